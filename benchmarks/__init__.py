"""The claims, measured: one folder per claim; README.md has the table."""
