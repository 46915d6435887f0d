"""What is said of a compile: reports, dumps, reproducers, and what a dry run finds."""
