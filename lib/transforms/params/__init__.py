"""Work on weights, done once."""
