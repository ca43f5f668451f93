"""What the rooms of objects share: detection finds boxes, instances their masks too."""
