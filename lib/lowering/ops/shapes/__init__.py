"""Lowerings that make, join, cut and reshape tensors."""
