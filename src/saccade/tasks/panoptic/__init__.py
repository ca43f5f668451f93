"""Panoptic segmentation: every pixel in one segment, a thing or a region of stuff."""
