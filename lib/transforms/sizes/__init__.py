"""Sizes that vary, where fusion would lose them."""
