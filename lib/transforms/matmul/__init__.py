"""Products of matrices: their weights packed, their siblings joined."""
