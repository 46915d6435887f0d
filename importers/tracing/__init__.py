"""What is changed in PyTorch, and what is refused, while it runs a program to trace it."""
