"""sr-jax examples: draws the training examples of a step as the networks get them."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.data import folders
from sr_jax.data.degradations import chains
from sr_jax.data.feed import open_feed
from sr_jax.data.feed_mode import FeedSpec
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.experiment import crops, inputs
from sr_jax.experiment.check import check_given
from sr_jax.report.sheet import Row, draw_sheet
from sr_jax.runs import metadata
from sr_jax.system import files

MAX_EXAMPLES = 8  # of a batch, on a sheet
HEADINGS = {'lr': 'LR', 'hr': 'HR', 'target': 'HR sharpened'}


class Examples(NamedTuple):
  """The examples of a step.

  Attributes:
    batch: {'lr', 'hr'} and, where HR is sharpened, 'target': float32 [B, H, W, C] in [0, 1].
    words: for each example what its degradations have drawn, in the order in which they were
      applied; empty without degradations.
  """

  batch: dict[str, np.ndarray]
  words: Sequence[Sequence[str]]


def draw_examples(config: ConfigDict, workdir: os.PathLike | str, output: os.PathLike | str,
                  step: str | int = 1) -> pathlib.Path:
  """Writes a sheet with the first examples of a training step, at most 8, and prints its path.

  They are those that a run of this config takes in this step: the same images, crops, augmentation
  and degradations. Each row has LR with repeated pixels, HR, HR as the unsharp mask of
  `data.degrade.sharpen_hr` made it, and what the degradations of this example have drawn.

  Args:
    config: the experiment.
    workdir: folder of a run, which need not exist and is not changed. Whether it was streamed
      decides, with `data.mode=auto`, how the images are read.
    output: the PNG file to write; an existing one is replaced, unless it is a training image.
    step: number of the step, as in the log: 1 is the first one.

  Returns:
    The path of the sheet.

  Raises:
    InputError: an invalid config, output or step; images that cannot be read; a file that cannot
      be written.
  """
  output, number = _check_output(output), _check_step(step)
  config = check_given(config, 'examples')
  notes: list[str] = []
  found = inputs.training_set(config, notes)
  for note in notes:
    print(note)
  folders.refuse_originals({path: output for picture in found
                            for path in (picture.hr, picture.lr) if isinstance(path, pathlib.Path)})
  records = metadata.start_records(files.expand(workdir))
  config = crops.with_crops(config, crops.at_step(config, number - 1))
  spec = inputs.build_feed_spec(config, device_loop=False,
                                previous_mode=records[-1].get('data_mode', '') if records else '')
  examples = read_examples(found, spec, number)
  count = len(examples.batch['hr'])
  title = (f'Step {number}: {min(count, MAX_EXAMPLES)} of {count} examples; seed {config.seed}, '
           f'scale {config.scale}, {_origin_of_lr(config, found)}')
  images.write_image(output, draw_sheet(title, _rows(examples)))
  print(f'{output}: {title}')
  return output


def read_examples(found: Sequence[Picture], spec: FeedSpec, number: int) -> Examples:
  """Returns the examples of a step of a run, and what its degradations have drawn.

  Args:
    found: the training images.
    spec: how batches are made.
    number: of the step, from 1.

  Raises:
    InputError: as `open_feed`.
  """
  before = number - 1  # the state's count of steps, when it takes this one
  degrader = spec.degrader
  if degrader is not None:
    spec = dataclasses.replace(spec, degrader=degrader.with_draws)
  with contextlib.closing(open_feed(found, spec, before)) as feed:
    batch_at = jax.jit(feed.batch_at)
    made = jax.device_get(batch_at(feed.source_for(before, number), jnp.int32(spec.seed),
                                   jnp.int32(before)))
    for line in (*feed.skipped, *feed.notes):
      print(line)
  if degrader is None:
    return Examples(made, [[]] * len(made['hr']))
  batch, draws = made
  describe = functools.partial(chains.describe, degrader.degradation, draws)
  return Examples(batch, [describe(index) for index in range(len(batch['hr']))])


def _rows(examples: Examples) -> list[Row]:
  rows = []
  for index, words in enumerate(examples.words[:MAX_EXAMPLES]):
    crops = {name: images.as_rgb(images.to_uint8(examples.batch[name][index]))
             for name in HEADINGS if name in examples.batch}
    rows.append(Row({f'{HEADINGS[name]} {_size(crop)}': crop for name, crop in crops.items()},
                    [f'Example {index + 1}', *(f'{place}. {text}' for place, text in enumerate(
                        filter(None, words), 1))]))
  return rows


def _size(image: np.ndarray) -> str:
  return f'{image.shape[0]}x{image.shape[1]}'


def _origin_of_lr(config: ConfigDict, found: Sequence[Picture]) -> str:
  if config.data.degrade.name != 'none':
    return f'degradations {config.data.degrade.name}'
  if all(picture.lr is None for picture in found):
    return 'LR made by bicubic reduction'
  return 'LR of the data'


def _check_output(output: os.PathLike | str) -> pathlib.Path:
  if not os.fspath(output):
    raise InputError('--output is missing: name the file to write, such as --output sheet.png')
  path = files.expand(output)
  if path.suffix.lower() != '.png':
    raise InputError(f'--output {path}: expected a file name that ends in .png')
  if os.path.isdir(path):
    raise InputError(f'--output {path}: cannot write the sheet (it is a folder)')
  return path


def _check_step(step: Any) -> int:
  text = str(step)
  if not (text.isdecimal() and 1 <= int(text) < 2**31):
    raise InputError(f'--step {text}: examples expects the number of a step, from 1 to 2147483647')
  return int(text)
