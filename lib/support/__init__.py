"""Errors, source locations, IR dumps and timing: what every other folder may use."""
