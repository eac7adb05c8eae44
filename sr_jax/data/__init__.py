"""Pictures in, batches out: batch = f(source, seed, step), without iterator state."""
