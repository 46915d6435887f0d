"""Lists, dicts and strings of the program."""
