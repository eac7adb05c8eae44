"""Trains a run from its start to its end: `train(config, workdir)`."""

from sr_jax.train.examples import draw_examples
from sr_jax.train.run import train
from sr_jax.train.stopping import Stopped

__all__ = ['Stopped', 'draw_examples', 'train']
