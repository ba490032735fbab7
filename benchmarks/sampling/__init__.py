"""One claim, measured; see README.md."""
