"""Compiled modules as files: written once, loaded without a compiler."""
