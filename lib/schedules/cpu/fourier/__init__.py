"""Discrete Fourier transforms, many side by side."""
