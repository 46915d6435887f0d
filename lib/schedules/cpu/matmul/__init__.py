"""Products of matrices of floats, bfloat16 and bytes."""
