"""Experiments: config -> checked values, networks, losses, optimisers, phases and data."""
