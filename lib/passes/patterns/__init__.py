"""Canonicalisation patterns: for each op its one spelling."""
