"""Files of pictures and clips as people have them, to arrays and back."""
