"""Weights that may change, and how they are packed anew."""
