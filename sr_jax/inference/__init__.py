"""Applies a generator to images of any size in the available memory."""
