"""Conditions and loops, of tensors and of numbers."""
