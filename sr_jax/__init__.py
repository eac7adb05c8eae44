"""Super-resolution networks in JAX and Flax: train, measure, use."""
