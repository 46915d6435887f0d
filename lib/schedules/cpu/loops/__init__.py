"""Loops over elements: everything that no other folder has a kernel for."""
