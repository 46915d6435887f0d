"""Lowerings of the backward ops that autograd leaves whole."""
