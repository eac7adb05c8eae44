"""The web page that upscales images."""
