"""From an imported program to a module that runs: what every way into the compiler shares."""
