"""Canonicalization patterns: each writes an op in ops of the canonical set."""
