"""What may befall a run, injected: each script prints a table of it for the README.

`bash launch/test.sh --faults` runs them all; a few of each are in the ordinary tests.
"""

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import jax
import numpy as np

from sr_jax import images
from sr_jax.experiment import phases
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step.state import TrainState

ROOT = pathlib.Path(__file__).parents[2]


class Run:
  """A small adversarial run from the command line: 60 steps, saved each 5, in FOLDER/NAME."""

  def __init__(self, folder, name: str, disk=None, **changes):
    """FOLDER holds what it needs, `disk` its workdir, by default FOLDER too."""
    self.folder = pathlib.Path(folder)
    self.workdir, self.log = pathlib.Path(disk or folder) / name, self.folder / f'{name}.log'
    self.changes = [f'--config.{key}={value}' for key, value in changes.items()]

  def start(self, compiled: bool = True) -> subprocess.Popen:
    """The command, whose output goes to LOG; without what earlier ones compiled if asked."""
    cache = {'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'xla'),
             'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
             'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0'} if compiled else {}
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith('JAX_')} | {
        'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', **cache,
        'SR_JAX_CACHE': str(self.folder / 'cache'), 'PYTHONUNBUFFERED': '1'}
    with self.log.open('w') as log:
      return subprocess.Popen(
          [sys.executable, '-m', 'sr_jax.main', f'--config={config_file(self.folder)}',
           f'--workdir={self.workdir}', *self.changes],
          cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

  @property
  def said(self) -> str:
    return self.log.read_text() if self.log.exists() else ''

  @property
  def reached(self) -> int:
    """The last step that its log has."""
    return max((line['step'] for line in read_metrics(self.workdir)), default=0)

  @property
  def began_at(self) -> int | None:
    """The step that its last start went on from; None if it has not come so far."""
    found = re.search(r'(?:goes on from step (\d+)|: begins);', self.said)
    return int(found[1] or 0) if found else None

  @property
  def has_trained(self) -> bool:
    """Whether its last start has logged a step."""
    begin = self.began_at
    return begin is not None and self.reached > begin

  def state(self) -> TrainState:
    """What its last checkpoint holds."""
    target = jax.eval_shape(phases.build(self.config()).new_state)
    checkpoints = Checkpoints(self.workdir, read_only=True)
    try:
      return checkpoints.restore(target)
    finally:
      checkpoints.close()

  def config(self):
    space = {}
    exec(config_file(self.folder).read_text(), space)
    return space['get_config']()

  def metrics(self) -> list[dict]:
    """Its log but for the speed."""
    return [{key: value for key, value in line.items() if key != 'images_per_second'}
            for line in read_metrics(self.workdir)]

  def left_over(self) -> list[pathlib.Path]:
    """Files that nobody will ever finish."""
    return [path for path in self.workdir.rglob('*')
            if re.search(r'^\.unfinished|\.(saving|deleted|orbax)', path.name)]


def config_file(folder) -> pathlib.Path:
  """FOLDER/small.py and, in FOLDER/pictures, what it trains on; made where there is none."""
  path = pathlib.Path(folder) / 'small.py'
  if path.exists():
    return path
  rng = np.random.default_rng(0)
  for number in range(4):
    noise = rng.integers(0, 256, (12, 14, 3), np.uint8)
    images.write_image(path.parent / 'pictures' / f'{number}.png', images.imresize(noise, 4))
  path.write_text(textwrap.dedent(f'''
      from configs.common import defaults

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
        return config
      '''))
  return path


def table(head: list[str], rows: list[list]) -> str:
  """In Markdown."""
  return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |'
                   for row in [head, ['---'] * len(head), *rows])
