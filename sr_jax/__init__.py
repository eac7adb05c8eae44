"""Train, evaluate and apply super-resolution networks in JAX and Flax.

  import sr_jax
  config = sr_jax.get_config('srresnet:sample')
  sr_jax.train.train(config, 'runs/srresnet')
  sr = sr_jax.load('runs/srresnet')(lr)

The functions of this module and the modules of MODULES are the public interface; docs/python.md
shows how they are used together. A module is imported when it is first used, and JAX with it.
"""

import importlib
import os
import types
import typing
from typing import Any

if typing.TYPE_CHECKING:
  from ml_collections import ConfigDict

  from sr_jax import (  # noqa: F401, so that editors complete what __getattr__ imports
    data,
    errors,
    evaluate,
    experiment,
    images,
    inference,
    losses,
    metrics,
    models,
    pretrained,
    profiling,
    report,
    resize,
    restore,
    score,
    step,
    train,
    upscale,
    weights,
  )
  from sr_jax.restore import Model

__version__ = '0.1.0'

MODULES = ('data', 'errors', 'evaluate', 'experiment', 'images', 'inference', 'losses', 'metrics',
           'models', 'pretrained', 'profiling', 'report', 'resize', 'restore', 'score', 'step',
           'train', 'upscale', 'weights')

__all__ = ['allow_import', 'get_config', 'load']


def allow_import(module: str) -> None:
  """Allows runs and weight files to name code of a module of your own, such as 'my'.

  Raises:
    InputError: `module` is not the name of a module.
  """
  from sr_jax.system import user_code
  user_code.allow_import(module)


def load(source: os.PathLike | str, *, step: str | int = 'latest', raw: bool = False,
         wrapper: str = '', fields: dict[str, Any] | None = None) -> 'Model':
  """Loads a network with its weights.

    sr = sr_jax.load('runs/srgan')(lr)

  Args:
    source: the folder of a run; a `.safetensors`, `.pth` or ncnn file; or the name of a
      published network, such as 'realesrgan-x4plus'.
    step: for a run, the step of a checkpoint, 'latest' or 'best'.
    raw: for a run, loads the weights instead of their exponential moving average (EMA).
    wrapper: for a `.pth`, the key of the state dict in the file.
    fields: for a file, fields of the network that it does not determine, such as
      {'residual_scale': 0.1}.

  Returns:
    A `restore.Model`: a function of a NumPy or JAX image, [h, w], [h, w, 1 or 3] or
    [B, h, w, 1 or 3], uint8, uint16 or float in [0, 1], that returns the image upscaled by
    `.scale` as a NumPy array.

  Raises:
    InputError: a ValueError with a one-line message that names the file, the tensor and the
      expected shape.
  """
  from sr_jax import restore  # imported here so that importing the package does not import JAX
  return restore.load(source, step=step, raw=raw, wrapper=wrapper, fields=fields)


def get_config(name: os.PathLike | str) -> 'ConfigDict':
  """Returns the settings of an experiment; `train.train` and `evaluate.evaluate` take them.

    config = sr_jax.get_config('srgan:sample')
    config.optimizer.g.learning_rate = 2e-4

  Args:
    name: what --config takes: 'EXPERIMENT' or 'EXPERIMENT:VARIANT,VARIANT', such as
      'srgan:sample'; FILE.py or FILE.py:VARIANT, which defines `get_config`; or the config.json
      of a run.

  Returns:
    A ConfigDict that has every key of sr_jax/experiment/keys.py, each of its type. Values may be
    changed freely: keys and values are checked again when the config is used.

  Raises:
    InputError: there is no such experiment, file or variant, or a key is unknown or invalid; the
      message names all such keys.
  """
  from sr_jax.experiment import config_file
  name = os.fspath(name)
  return config_file.override(config_file.load(name), {}, name)


def __getattr__(name: str) -> types.ModuleType:
  """Imports a module of MODULES when it is first used (PEP 562)."""
  if name not in MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return importlib.import_module(f'{__name__}.{name}')


def __dir__() -> list[str]:
  return sorted({*globals(), *MODULES})
