"""Weights & Biases: wandb uploads a run's TensorBoard files while they are being written."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from sr_jax.errors import InputError, brief
from sr_jax.runs.folder import RunFolder


def check_usable() -> None:
  """Checks that wandb is installed and logged in, early in a start: `start` is called late.

  Raises:
    InputError: wandb is not installed or not logged in.
  """
  try:
    import wandb  # imported late because it is optional and slow
  except ImportError:
    raise InputError('config.wandb: wandb is not installed; run pip install "wandb>=0.19,<1"'
                     ) from None
  if os.environ.get('WANDB_MODE') in ('offline', 'disabled', 'dryrun'):
    return
  try:
    wandb.login()
  except Exception as error:  # wandb raises many types, which change between versions
    reason = brief(error, 200).rstrip('. ')
    raise InputError(f'config.wandb: {type(error).__name__}: {reason}; '
                     'WANDB_MODE=offline records without a login') from None


def start(project: str, config: Mapping[str, Any], workdir: pathlib.Path) -> Callable[[], None]:
  """Starts uploading WORKDIR/tensorboard, or continues the wandb run of the same folder.

  With WANDB_MODE=offline everything stays in WORKDIR/wandb, for `wandb sync`.

  Args:
    project: the name of the wandb project.
    config: the settings that wandb shows beside the run.

  Returns:
    A function that waits until everything is uploaded and ends the wandb run.

  Raises:
    InputError: wandb is not logged in, or cannot be reached.
  """
  import wandb
  folder = workdir.resolve()
  try:
    run = wandb.init(project=project, name=folder.name, dir=str(folder),
                     id=hashlib.sha256(str(folder).encode()).hexdigest()[:16], resume='allow',
                     config=dict(config))
    # sync_tensorboard=True would import the event writers of TensorFlow, PyTorch and tensorboardX
    # to make them call this; this project has its own (sr_jax/runs/event_file.py).
    events = str(RunFolder(folder).tensorboard)
    run._tensorboard_callback(events, save=True, root_logdir=events)
  except Exception as error:  # wandb raises many types, which change between versions
    raise InputError(f'config.wandb: {type(error).__name__}: {brief(error, 200)}') from None
  return run.finish
