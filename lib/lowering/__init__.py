"""Torch dialect to Relax: a registry of small functions, one an op, and the walk that calls them."""
