"""Networks: timm's models by name, stems for small images, weights in and out."""
