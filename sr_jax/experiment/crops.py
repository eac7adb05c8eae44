"""config.phases -> the crops of each part of a run."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from ml_collections import ConfigDict

from sr_jax.errors import InputError


class Crops(NamedTuple):
  """The steps start .. stop - 1 of a run, whose batches have crops of one size.

  Attributes:
    number: of the part of the main phase, from 1; 0 where the run has no such parts.
    start, stop: the first step, and the first step after them.
    hr_patch, batch_size: of the batches.
  """

  number: int
  start: int
  stop: int
  hr_patch: int
  batch_size: int

  @property
  def size(self) -> tuple[int, int]:
    """The side and the number of crops."""
    return self.hr_patch, self.batch_size

  @property
  def suffix(self) -> str:
    """What is added to the name of the phase: '' or '-2'."""
    return f'-{self.number}' if self.number else ''

  def __str__(self) -> str:
    return f'{self.batch_size} crops of {self.hr_patch}x{self.hr_patch}'


def of_warmup(config: ConfigDict) -> Crops:
  """Returns the crops of the warm-up, which `config.phases` does not divide."""
  return Crops(0, 0, config.warmup_steps, config.hr_patch, config.batch_size)


def of_main_phase(config: ConfigDict) -> list[Crops]:
  """Returns the crops of the main phase, in order; without `config.phases` there is one entry.

  Args:
    config: with epochs converted to steps, if it has some.
  """
  lengths, start = config.phases.steps, config.warmup_steps
  sides = config.phases.hr_patch or (config.hr_patch,) * len(lengths)
  sizes = config.phases.batch_size or (config.batch_size,) * len(lengths)
  parts = []
  for length, side, size in zip(lengths, sides, sizes, strict=True):
    parts.append(Crops(len(parts) + 1, start, start + length, side, size))
    start += length
  if start < config.steps or not parts:
    parts.append(Crops(len(parts) + bool(parts), start, config.steps, config.hr_patch,
                       config.batch_size))
  return parts


def at_step(config: ConfigDict, step: int) -> Crops:
  """Returns the crops of a step, the number of steps taken before it."""
  parts = of_main_phase(config)
  if step < config.warmup_steps:
    return of_warmup(config)
  return next((part for part in parts if step < part.stop), parts[-1])


def with_crops(config: ConfigDict, crops: Crops) -> ConfigDict:
  """Returns the config with these crops as its own."""
  config = config.copy_and_resolve_references()
  config.hr_patch, config.batch_size = crops.hr_patch, crops.batch_size
  return config


@contextlib.contextmanager
def named(crops: Crops) -> Iterator[None]:
  """Says in the message of an InputError raised in the block which phase it is about."""
  try:
    yield
  except InputError as error:
    if not crops.number:
      raise
    raise InputError(f'config.phases: phase {crops.number}, batches of {crops}: {error}') from None


def check_lists(config: ConfigDict) -> None:
  """Refuses lists of `config.phases` that do not go together, and epochs beside them.

  Raises:
    InputError: names the key.
  """
  section = config.phases
  for key in ('hr_patch', 'batch_size'):
    if section[key] and len(section[key]) != len(section.steps):
      raise InputError(f'config.phases.{key}={section[key]}: expected as many entries as config.'
                       f'phases.steps has, {len(section.steps)}')
  if section.steps and not section.hr_patch and not section.batch_size:
    raise InputError(f'config.phases.steps={section.steps}: needs config.phases.hr_patch or '
                     'config.phases.batch_size, which differ in these phases')
  for key, value in (('epochs', config.epochs), ('warmup_epochs', config.warmup_epochs),
                     ('eval.every_epochs', config.eval.every_epochs)):
    if section.steps and value:
      raise InputError(f'config.{key}={value}: expected 0 with config.phases, which counts steps')
