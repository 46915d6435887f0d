"""Schedules found by measurement: the search, the measurements, and the folder that keeps what was found."""
