"""Compiled code and whole modules that are kept from one process to the next."""
