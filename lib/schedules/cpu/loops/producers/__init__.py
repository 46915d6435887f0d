"""What is computed within the loops of what reads it."""
