"""Blocks that rooms share."""
