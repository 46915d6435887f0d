"""Attributes on TIR functions by which one stage tells a later one what a kernel is."""

POINTWISE = "torch_tvm.pointwise"
"""The kernel computes each element of its result from the elements at the same place of its operands."""
