"""From scheduled kernels and Relax functions to machine code."""
