"""Readers and writers for other projects' weight files, which are never executed as code."""
