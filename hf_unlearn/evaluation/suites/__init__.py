"""The packaged suites, a file each, and `SUITES` by name in names.py."""
