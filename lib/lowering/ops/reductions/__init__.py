"""Lowerings that reduce: sums, norms, losses, scans."""
