"""Sums, searches and running sums on GPUs."""
