"""One file per format on disk; each says whether a folder is of its kind, and reads it."""
