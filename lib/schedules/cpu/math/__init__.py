"""Functions of numbers as polynomials that stay in vectors."""
