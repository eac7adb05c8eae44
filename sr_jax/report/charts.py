"""Decides which curves of one or several runs are drawn in which chart, and describes trends."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.report import curves
from sr_jax.report.curves import Curve
from sr_jax.report.history import History
from sr_jax.runs import metrics_log
from sr_jax.system.text import better_when_lower

MAX_POINTS = 1_500  # of a drawn curve
MAX_POINTS_OF_ALL = 6_000  # of the curves of one metric or loss in all runs
NOISY = 40  # with more points a curve is drawn faintly, below its smoothed version
MANY_RUNS = 4  # with more runs noisy curves are drawn smoothed only
TITLES = {'psnr_y': 'PSNR of luma, dB', 'ssim_y': 'SSIM of luma', 'psnr_rgb': 'PSNR of RGB, dB',
          'ssim_rgb': 'SSIM of RGB', 'psnr_lr': 'LR consistency, dB',
          'lpips_alex': 'LPIPS (AlexNet)', 'lpips_vgg': 'LPIPS (VGG)', 'niqe': 'NIQE',
          'd_total': "D's loss", 'd_real': 'Accuracy of D, real',
          'd_fake': 'Accuracy of D, generated'}
# The width of a trend's 95% interval up to which a change is stated, for the metrics with trends.
WIDEST_INTERVALS = {'psnr_y': 0.05, 'ssim_y': 0.002, 'lpips_alex': 0.005, 'lpips_vgg': 0.005,
                    'niqe': 0.05}
WIDEST_LOSS_INTERVAL = 10.0  # percent of the loss
NOT_LOSS_TERMS = ('g/total', 'g/grad_norm', 'g/ema_distance')


class Chart(NamedTuple):
  """What is drawn in one chart.

  Attributes:
    lines: {name of the curve in `History.curves`: label}.
    loss: whether the checkbox for a logarithmic axis applies.
    percent: whether values are shares.
    baselines: whether the scores before training are drawn as levels.
    hide_zero: whether there is no chart if nothing above zero was logged.
  """

  section: str
  title: str
  lines: dict[str, str]
  loss: bool = False
  percent: bool = False
  baselines: bool = False
  hide_zero: bool = False


def charts(histories: Sequence[History]) -> Iterator[dict[str, Any]]:
  """Yields what page.js draws: title, section, lines and options of each chart."""
  names = list(dict.fromkeys(name for run in histories for name in run.curves))
  for chart in (*_metric_charts(names), *_training_charts(names)):
    if not chart.hide_zero or any(np.nanmax(run.curves[name].values, initial=0) > 0
                                  for run in histories for name in chart.lines
                                  if name in run.curves):
      yield _as_json(chart, histories)


def _metric_charts(names: Sequence[str]) -> Iterator[Chart]:
  metrics = dict.fromkeys(name.partition('/')[2] for kind in metrics_log.SETS
                          for name in _with_prefix(names, kind))
  for metric in metrics:
    yield Chart('Metrics', TITLES.get(metric, metric),
                {f'valid/{metric}': 'validation', f'clean/{metric}': 'clean LR',
                 f'test/{metric}': 'test', f'lr_images/{metric}': 'images without HR'},
                baselines=True)


def _training_charts(names: Sequence[str]) -> Iterator[Chart]:
  of_g = _with_prefix(names, 'g/')
  for name in of_g:
    if name not in NOT_LOSS_TERMS:
      yield Chart('Losses', f'{name[2:]}, weighted', {name: name[2:]}, loss=True)
  if len(of_g) > 4:
    yield Chart('Losses', "G's total loss", {'g/total': 'total'}, loss=True)
  if 'd/total' in names:
    yield Chart('Losses', "D's loss", {'d/total': 'D'}, loss=True)
    yield Chart('Discriminator', 'Accuracy of D', {'d/real': 'real', 'd/fake': 'generated'},
                percent=True)
  for term in dict.fromkeys(name.split('/')[1] for name in _with_prefix(names, 'terms/')):
    is_accuracy = term in ('d_real', 'd_fake')
    yield Chart('On fixed crops', TITLES.get(term, term),
                {f'terms/{term}/train': 'train', f'terms/{term}/valid': 'validation'},
                loss=not is_accuracy, percent=is_accuracy)
  rates = _with_prefix(names, 'learning_rate/')
  if rates:
    yield Chart('Training', 'learning rate', {name: name.partition('/')[2].upper()
                                              for name in rates})
  for name, title in (('g/grad_norm', 'gradient norm of G'), ('d/grad_norm', 'gradient norm of D')):
    if name in names:
      yield Chart('Training', title, {name: name[0].upper()}, loss=True)
  for name, title in (('g/ema_distance', "distance of G's weights from their EMA"),
                      ('images_per_second', 'images per second'), ('skipped', 'skipped steps')):
    if name in names:
      yield Chart('Training', title, {name: title}, hide_zero=True)


def _with_prefix(names: Sequence[str], prefix: str) -> list[str]:
  return [name for name in names if name.startswith(prefix)]


def _as_json(chart: Chart, histories: Sequence[History]) -> dict[str, Any]:
  lines = [line for index, run in enumerate(histories)
           for line in _lines(chart, index, run, len(histories))]
  if chart.baselines:
    lines += _levels(chart, histories)
  borders = {at: text for run in histories for at, text in run.borders.items()}
  return {'section': chart.section, 'title': chart.title, 'loss': chart.loss,
          'percent': chart.percent, 'lines': lines,
          'boundaries': [{'at': at, 'text': text} for at, text in sorted(borders.items())],
          'checkpoints': histories[0].checkpoints if len(histories) == 1 else []}


def _lines(chart: Chart, index: int, run: History, runs: int) -> Iterator[dict[str, Any]]:
  """Yields the curves of the run with this index, one of a number of runs."""
  points = min(MAX_POINTS, MAX_POINTS_OF_ALL // runs)
  for name, label in chart.lines.items():
    curve = run.curves.get(name)
    if curve is None:
      continue
    noisy = len(curve.steps) > NOISY
    if not noisy or runs <= MANY_RUNS:
      yield {'run': index, 'label': label, 'faint': noisy, **_points(curve, points)}
    if noisy:
      yield {'run': index, 'label': label, 'smooth': True, **_points(curves.smooth(curve), points)}


def _levels(chart: Chart, histories: Sequence[History]) -> list[dict[str, Any]]:
  """Returns the scores before training; one that all runs share belongs to none of them."""
  found: dict[tuple[str, float], list[int]] = {}
  for index, run in enumerate(histories):
    for kind, scores in run.baselines.items():
      for name, label in chart.lines.items():
        if scores.get(name) is not None:
          text = f'{label} at the start'
          if kind == 'bicubic':
            text = images.baseline_name(kind, run.config.get('scale'))
            text += f' of {label}' if name.startswith(('clean/', 'lr_images/')) else ''
          found.setdefault((text, scores[name]), []).append(index)
  return [{'run': None if len(indices) > 1 else indices[0], 'level': level, 'label': text}
          for (text, level), indices in found.items()]


def _points(curve: Curve, most: int) -> dict[str, list]:
  thinned = curves.thin(curve, most)
  return {'x': thinned.steps.tolist(),
          'y': [float(f'{value:.5g}') if np.isfinite(value) else None for value in thinned.values]}


def trends(run: History) -> list[str]:
  """Describes the trends of the validation metrics and the accuracy of D in the current phase."""
  start, lines = _start_of_phase(run), []
  metrics = [name for name in run.curves if name.partition('/')[2] in WIDEST_INTERVALS
             and name.startswith('valid/')]
  counts = [len(_inside(run.curves[name], start, run.step)) for name in metrics]
  if metrics and max(counts) < curves.MIN_POINTS:
    metrics = []
    lines.append(f'{max(counts)} validation{"s" * (max(counts) != 1)} in the {run.main_phase} '
                 f'phase: too few validations for a trend, which needs {curves.MIN_POINTS}')
  for name in metrics:
    found, metric = curves.trend(run.curves[name], start, run.step), name.partition('/')[2]
    digits, unit = (2, 'dB') if metric.startswith('psnr') else (4, '')
    if found:
      lines.append(curves.describe_trend(
          TITLES[metric].removesuffix(', dB'), found, WIDEST_INTERVALS[metric], digits, unit,
          higher_is_better=not better_when_lower(metric)))
  for name, crops in (('d/real', 'real'), ('d/fake', 'generated')):
    found = name in run.curves and curves.trend(run.curves[name], start, run.step)
    if found:
      lines.append(f'D classified {found.level:.0%} of the {crops} crops correctly '
                   f'in the last {found.share:.0%}')
  return lines


def loss_trends(run: History) -> list[str]:
  """Describes the trends of the losses in the current phase, without those that are only noise."""
  start, lines = _start_of_phase(run), []
  for name, curve in run.curves.items():
    net, _, term = name.partition('/')
    if (net == 'g' and name not in NOT_LOSS_TERMS[1:]) or name == 'd/total':
      found = curves.trend(curve, start, run.step)
      if found and 2 * found.error <= abs(found.level):  # an interval of at most 100%
        lines.append(curves.describe_trend(f"{net.upper()}'s loss: {term}", found,
                                           WIDEST_LOSS_INTERVAL))
  return lines


def _start_of_phase(run: History) -> int:
  return run.boundary if run.boundary and run.step > run.boundary else 0


def _inside(curve: Curve, start: int, stop: int) -> np.ndarray:
  steps = curve.finite.steps
  return steps[(steps > start) & (steps <= stop)]
