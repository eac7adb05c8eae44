"""Weights & Biases: wandb follows a run's TensorBoard files while they are written."""

import hashlib
import pathlib

from sr_jax.errors import InputError, brief
from sr_jax.runs import metadata


def check_installed() -> None:
  """Before anything is written, for `start` comes late.

  Raises:
    InputError: wandb is not installed.
  """
  try:
    import wandb  # noqa: F401, late: it is optional, and slow
  except ImportError:
    raise InputError('config.wandb: wandb is not installed; pip install "wandb>=0.19,<1"') from None


def start(config, workdir: pathlib.Path):
  """Begins to follow WORKDIR/tensorboard, or goes on where the run was followed before.

  WANDB_MODE=offline keeps it all in WORKDIR/wandb, for `wandb sync`.

  Returns:
    a function that ends it, once everything is sent.

  Raises:
    InputError: wandb is not logged in, or can not be reached.
  """
  import wandb
  place = str(workdir.resolve())
  try:
    run = wandb.init(project=config.wandb, name=workdir.resolve().name, dir=place,
                     id=hashlib.sha256(place.encode()).hexdigest()[:16], resume='allow',
                     config=metadata.as_json(config))
    # What sync_tensorboard=True makes TensorFlow's, PyTorch's and tensorboardX's writers call. It
    # imports the three of them to do so, and ours is none of them.
    folder = str(workdir.resolve() / 'tensorboard')
    run._tensorboard_callback(folder, save=True, root_logdir=folder)
  except Exception as error:  # wandb has a dozen kinds, and they change
    raise InputError(f'config.wandb: {type(error).__name__}: {brief(error, 200)}') from None
  return run.finish
