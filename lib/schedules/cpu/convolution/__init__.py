"""Convolutions: direct, depthwise and by Winograd's algorithm."""
