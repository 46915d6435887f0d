"""Products and convolutions of bytes with a scale and a zero point."""
