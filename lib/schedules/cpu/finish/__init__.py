"""What every kernel needs, whoever scheduled it."""
