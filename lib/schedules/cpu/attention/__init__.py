"""Scaled dot product attention in one kernel."""
