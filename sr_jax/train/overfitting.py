"""Detects overfitting from the loss terms on fixed crops of both sets, at the end of a run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_jax.runs.metrics_log import kind_of_phase, read_metrics

# Terms that do not compare SR with HR: they may rise on validation without overfitting.
NOT_COMPARISONS = ('total_variation', 'adversarial', 'd_total')


def term_lines(workdir: pathlib.Path,
               crops: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
  """Returns what `describe_terms` returns below a line with the number of crops.

  Args:
    crops: of `validation_data.ValidationData`.
  """
  lines = read_metrics(workdir)
  described = describe_terms(lines)
  if not described or not crops:
    return []
  train, valid = (len(crops[kind]['hr']) for kind in ('train', 'valid'))
  return [f'Loss terms of the phase {kind_of_phase(lines[-1]["phase"])} on fixed centre crops '
          f'({train} of the training set, {valid} of the validation set; weights without EMA), '
          'first to last',
          *described]


def describe_terms(lines: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns a line for each term of the last phase: its first, last and lowest value.

  Args:
    lines: of metrics.jsonl.
  """
  lines = [line for line in lines if any(name.startswith('terms/') for name in line)]
  kinds = [kind_of_phase(line['phase']) for line in lines]
  last = kinds[-1:]
  if {*kinds} == {'start', *last}:  # the same loss, before its first step
    last.append('start')
  lines = [line for line, kind in zip(lines, kinds, strict=True) if kind in last]
  terms = dict.fromkeys(name.split('/')[1] for line in lines for name in line
                        if name.startswith('terms/'))
  described = []
  for term in terms:
    curve = [(line['step'], *values) for line in lines if None not in (
        values := [line.get(f'terms/{term}/{kind}') for kind in ('train', 'valid')])]
    if curve:  # null stands for a non-finite value and is skipped
      described.append(f'{term}: {_describe(term, *zip(*curve, strict=True))}')
  return described


def _describe(term: str, steps: Sequence[int], train: Sequence[float],
              valid: Sequence[float]) -> str:
  is_accuracy = term in ('d_real', 'd_fake')
  ends = [' to '.join(f'{value:.0%}' if is_accuracy else f'{value:.4g}' for value in (
      (curve[0], curve[-1]) if len(curve) > 1 else curve)) for curve in (train, valid)]
  text = f'train {ends[0]}, validation {ends[1]}'
  if is_accuracy:  # lower is not better
    return text
  lowest = int(np.argmin(valid))
  text += f', lowest {valid[lowest]:.4g} at step {steps[lowest]}'
  if term not in NOT_COMPARISONS and overfits(train, valid):
    text += ': rising on validation while train falls, so the generator overfits'
  return text


def overfits(train: Sequence[float], valid: Sequence[float]) -> bool:
  """Returns whether a loss kept falling on the training set while it rose for good elsewhere.

  Compares two windows of validations: the last quarter, at least four, and as many in a row whose
  validation values are the lowest. Every validation value of the last window must be above every
  one of the lowest window, on average by 1%, and every training value below. Chance fluctuations
  do not separate like this; images that a network memorises do.

  A term that rises on both sets was given up for another one (pixels, in an adversarial phase), and
  one that falls on both is being learnt, however far apart the two are. Neither is overfitting.

  Args:
    train, valid: values of one term, oldest first.
  """
  train, valid = np.asarray(train), np.asarray(valid)
  count = max(4, len(valid) // 4)
  if len(valid) < 2 * count:
    return False
  start = min(range(len(valid) - 2 * count + 1), key=lambda i: valid[i:i + count].mean())
  lowest, last = slice(start, start + count), slice(-count, None)
  return bool(valid[last].min() > valid[lowest].max() and train[last].max() < train[lowest].min()
              and valid[last].mean() > 1.01 * valid[lowest].mean())
