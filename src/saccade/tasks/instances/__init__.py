"""Instances: objects in boxes, with their masks."""
