"""Kernels of the ops on positions, written as loops."""
