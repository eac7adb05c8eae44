"""Foreign weight files in: read as data, never as code."""
