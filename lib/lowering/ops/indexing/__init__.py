"""Lowerings that read, write, search and order by index."""
