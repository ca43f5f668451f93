"""The networks of this room are those of `queries`, whose queries answer with a class and a mask each, be it a thing or stuff."""
