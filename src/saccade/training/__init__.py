"""The loop and what it is made of: one for all rooms, with phases instead of special cases."""
