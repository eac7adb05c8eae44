"""What the loss terms on fixed crops say at the end of a run."""

from collections.abc import Mapping, Sequence

import numpy as np

from sr_jax.runs import metrics_log


def print_terms(workdir, crops: Mapping[str, dict]) -> None:
  """At a run's end: `describe_terms`, and of what they are."""
  lines = metrics_log.read_metrics(workdir)
  described = describe_terms(lines)
  if described and crops:
    train, valid = (len(crops[kind]['hr']) for kind in ('train', 'valid'))
    print(f'\nLoss terms of the phase {lines[-1]["phase"]}, raw weights, on the middle of pictures '
          f'({train} for training, {valid} for validation)')
    print('\n'.join(described))


def describe_terms(lines: Sequence[dict]) -> list[str]:
  """A line for each term of the last phase: where it began and ended, and the lowest.

  Args:
    lines: of metrics.jsonl.
  """
  lines = [line for line in lines if any(name.startswith('terms/') for name in line)]
  last = [lines[-1]['phase']] if lines else []
  if {line['phase'] for line in lines} == {'start', *last}:  # the same loss, before its first step
    last.append('start')
  lines = [line for line in lines if line['phase'] in last]
  terms = dict.fromkeys(name.split('/')[1] for line in lines for name in line
                        if name.startswith('terms/'))
  described = []
  for term in terms:
    curve = [(line['step'], *values) for line in lines if None not in (
        values := [line.get(f'terms/{term}/{kind}') for kind in ('train', 'valid')])]
    if curve:  # null is no number: the run came to nothing there
      described.append(f'{term}: {_describe(term, *zip(*curve, strict=True))}')
  return described


def _describe(term: str, steps: Sequence[int], train: Sequence[float],
              valid: Sequence[float]) -> str:
  share = term in ('d_real', 'd_fake')
  ends = [' to '.join(f'{value:.0%}' if share else f'{value:.4g}' for value in (
      (curve[0], curve[-1]) if len(curve) > 1 else curve)) for curve in (train, valid)]
  text = f'train {ends[0]}, validation {ends[1]}'
  if share:  # of right answers, not to be low
    return text
  lowest = int(np.argmin(valid))
  text += f', lowest {valid[lowest]:.4g} at step {steps[lowest]}'
  if term in ('pixel', 'perceptual') and overfits(train, valid):
    text += ': it rose while train fell on, the generator overfits'
  return text


def overfits(train: Sequence[float], valid: Sequence[float]) -> bool:
  """Whether a loss fell on where it was trained on while, for good, it rose elsewhere.

  The last quarter of the validations, four at least, is held against as many in a row whose
  validation values are the lowest. Every validation value of the one must lie above every one
  of the other, on average by 1%, and every training value below: what goes up and down by
  chance does not keep apart so, and on pictures that a network has learnt by heart it does.

  A term that rises on both has been given up for another (pixels, in an adversarial phase);
  one that falls on both is learnt, however far apart the two are. Neither is overfitting.

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
