"""--mode profile: what a training step waits for."""
