"""Image and video files as users have them, to arrays and back."""
