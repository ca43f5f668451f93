"""What rooms share of networks that answer by queries, each with a class and a mask of the whole image."""
