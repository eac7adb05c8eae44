"""Foreign weight files in and out: read as data, never as code."""
