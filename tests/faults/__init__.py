"""Fault injection: each script provokes faults of a run and prints a table of the results.

`bash launch/test.sh --faults` runs all of them; the ordinary tests run a few faults of each kind.
"""

import os
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from sr_jax import images
from sr_jax.experiment import phases
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metadata import start_records
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step.state import TrainState

ROOT = pathlib.Path(__file__).parents[2]


class Run:
  """A small adversarial run from the command line: 60 steps, with a checkpoint every 5.

  Attributes:
    folder: contains the config, the images, the caches and the log of the command.
    workdir: the folder of the run.
    log: what the command printed at its last start.
  """

  def __init__(self, folder: os.PathLike | str, name: str, disk: pathlib.Path | None = None,
               variant: str = '', **changes: Any) -> None:
    """Describes the run.

    Args:
      folder: see above.
      name: of its workdir.
      disk: the folder for its workdir, by default `folder`.
      variant: of the config: '' or 'degraded'.
      changes: values of keys of the config.
    """
    self.folder, self.variant = pathlib.Path(folder), variant
    self.workdir, self.log = pathlib.Path(disk or folder) / name, self.folder / f'{name}.log'
    self.changes = [f'--config.{key}={value}' for key, value in changes.items()]
    self._earlier_starts = 0

  def start(self, use_compile_cache: bool = True) -> subprocess.Popen:
    """Starts the command, with its output in `log`."""
    self._earlier_starts = len(start_records(self.workdir))
    cache = {'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'xla'),
             'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
             'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0'} if use_compile_cache else {}
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith('JAX_')} | {
        'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', **cache,
        'SR_JAX_CACHE': str(self.folder / 'cache'), 'PYTHONUNBUFFERED': '1'}
    with self.log.open('w') as log:
      return subprocess.Popen(
          [sys.executable, '-m', 'sr_jax.main', f'--workdir={self.workdir}',
           f'--config={config_file(self.folder)}:{self.variant}', *self.changes],
          cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

  @property
  def output(self) -> str:
    """What the command printed at its last start."""
    return self.log.read_text() if self.log.exists() else ''

  @property
  def last_step(self) -> int:
    """The last step in metrics.jsonl."""
    return max((line['step'] for line in read_metrics(self.workdir)), default=0)

  @property
  def began_at(self) -> int | None:
    """The step that the last start resumed from; None before it has written run.json."""
    records = start_records(self.workdir)
    return records[-1]['from_step'] if len(records) > self._earlier_starts else None

  @property
  def has_trained(self) -> bool:
    """Whether the last start has logged a step."""
    begin = self.began_at
    return begin is not None and self.last_step > begin

  def state(self) -> TrainState:
    """Returns the state in the latest checkpoint."""
    target = jax.eval_shape(phases.build(self.config()).new_state)
    checkpoints = Checkpoints(self.workdir, read_only=True)
    try:
      return checkpoints.restore(target)
    finally:
      checkpoints.close()

  def config(self) -> ml_collections.ConfigDict:
    """Returns the config of the run, without its `changes`."""
    namespace = {}
    exec(config_file(self.folder).read_text(), namespace)
    return namespace['get_config'](self.variant)

  def metrics(self) -> list[dict]:
    """Returns the lines of metrics.jsonl without the speed."""
    return [{key: value for key, value in line.items() if key != 'images_per_second'}
            for line in read_metrics(self.workdir)]

  def leftovers(self) -> list[pathlib.Path]:
    """Returns files and folders that were being written when a start ended."""
    return [path for path in self.workdir.rglob('*')
            if re.search(r'^\.unfinished|\.(saving|deleted|orbax)', path.name)]


def config_file(folder: os.PathLike | str) -> pathlib.Path:
  """Returns FOLDER/small.py; writes it and the images in FOLDER/pictures if it is missing."""
  path = pathlib.Path(folder) / 'small.py'
  if path.exists():
    return path
  rng = np.random.default_rng(0)
  for number in range(4):
    noise = rng.integers(0, 256, (12, 14, 3), np.uint8)
    images.write_image(path.parent / 'pictures' / f'{number}.png', images.imresize(noise, 4))
  path.write_text(textwrap.dedent(f'''
      from sr_jax.experiment.base_config import defaults

      def get_config(variant=''):
        config = defaults()
        config.scale, config.batch_size, config.hr_patch = 2, 4, 16
        config.steps, config.warmup_steps = 60, 30
        config.generator.update({{'features': 4, 'blocks': 1, 'kernel': 3}})
        config.discriminator.update({{
            'name': 'vgg_style', 'widths': (4, 8), 'head': 'conv', 'hidden': 8}})
        config.loss.adversarial.weight = 1e-3
        config.data.source = config.data.valid = 'folder:{path.parent / "pictures"}'
        config.eval.lpips, config.eval.pictures = 'none', 1
        config.log_every, config.checkpoint_every = 1, 5
        config.eval.every, config.sample_every = 20, 10
        if variant == 'degraded':
          config.data.degrade.name, config.data.degrade.margin = 'realesrgan', 8
          config.discriminator.update({{'name': 'unet', 'features': 4, 'widths': None,
                                       'head': None, 'hidden': None}})
        return config
      '''))
  return path


def table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
  """Returns a table in Markdown."""
  return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |'
                   for row in [header, ['---'] * len(header), *rows])
