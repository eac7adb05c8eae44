"""The data pipeline: reads images and makes batches as a pure function of (source, seed, step)."""
