"""Complex numbers: arithmetic, functions, and what takes them apart and puts them together."""
