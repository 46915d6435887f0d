"""Convolutions on blocked channels, and what stands between them."""
