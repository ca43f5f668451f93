"""Generation: images drawn from what the training images have in common."""
