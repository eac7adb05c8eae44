"""Decides which curves of one or several runs are drawn in which chart, and describes trends."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax.report import curves
from sr_jax.report.curves import Curve
from sr_jax.report.history import History

MAX_POINTS = 1_500  # of a drawn curve
NOISY = 40  # with more points a curve is drawn faintly, below its smoothed version
TITLES = {'psnr_y': 'PSNR of luma, dB', 'ssim_y': 'SSIM of luma', 'psnr_rgb': 'PSNR of RGB, dB',
          'ssim_rgb': 'SSIM of RGB', 'psnr_lr': 'LR consistency, dB',
          'lpips_alex': 'LPIPS (AlexNet)', 'lpips_vgg': 'LPIPS (VGG)',
          'd_total': "D's loss", 'd_real': 'Accuracy of D, real',
          'd_fake': 'Accuracy of D, generated'}
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
  metrics = dict.fromkeys(name.partition('/')[2] for kind in ('valid/', 'test/')
                          for name in _with_prefix(names, kind))
  for metric in metrics:
    yield Chart('Metrics', TITLES.get(metric, metric),
                {f'valid/{metric}': 'validation', f'test/{metric}': 'test'}, baselines=True)


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
                {f'terms/{term}/train': 'training', f'terms/{term}/valid': 'validation'},
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
  lines = [line for index, run in enumerate(histories) for line in _lines(chart, index, run)]
  return {'section': chart.section, 'title': chart.title, 'loss': chart.loss,
          'percent': chart.percent, 'lines': lines,
          'boundaries': sorted({run.boundary for run in histories if run.boundary}),
          'checkpoints': histories[0].checkpoints if len(histories) == 1 else []}


def _lines(chart: Chart, index: int, run: History) -> Iterator[dict[str, Any]]:
  """Yields the curves and the baselines of the run with this index."""
  for name, label in chart.lines.items():
    curve = run.curves.get(name)
    if curve is None:
      continue
    noisy = len(curve.steps) > NOISY
    yield {'run': index, 'label': label, 'faint': noisy, **_points(curve)}
    if noisy:
      yield {'run': index, 'label': label, 'smooth': True, **_points(curves.smooth(curve))}
  if chart.baselines:
    for kind, scores in run.baselines.items():
      yield from _levels(chart, index, kind, scores)


def _levels(chart: Chart, index: int, kind: str,
            scores: Mapping[str, float]) -> Iterator[dict[str, Any]]:
  for name, label in chart.lines.items():
    if scores.get(name) is not None:
      yield {'run': index, 'level': scores[name],
             'label': kind if kind == 'bicubic' else f'{label} at the start'}


def _points(curve: Curve) -> dict[str, list]:
  thinned = curves.thin(curve, MAX_POINTS)
  return {'x': thinned.steps.tolist(),
          'y': [float(f'{value:.5g}') if np.isfinite(value) else None for value in thinned.values]}


def trends(run: History) -> list[str]:
  """Describes the trend of each curve in the current phase of a run.

  Validation metrics come first, then the losses, then the accuracy of D.
  """
  ranked = []
  start = run.boundary if run.boundary and run.step > run.boundary else 0
  for name, curve in run.curves.items():
    kind, _, metric = name.partition('/')
    if kind not in ('valid', 'g', 'd') or name in NOT_LOSS_TERMS[1:] or name == 'd/saturated':
      continue
    found = curves.trend(curve, start, run.step)
    if not found:
      continue
    if kind == 'valid':
      digits, unit = (2, 'dB') if metric.startswith('psnr') else (4, '')
      title = TITLES.get(metric, metric).removesuffix(', dB')
      ranked.append((0, curves.describe_trend(
          title, found, digits, unit, higher_is_better=not metric.startswith('lpips'))))
    elif metric in ('real', 'fake'):
      crops = 'real' if metric == 'real' else 'generated'
      ranked.append((2, f'D classified {found.level:.0%} of the {crops} crops correctly '
                        f'in the last {found.share:.0%}'))
    elif kind == 'g' or metric == 'total':
      ranked.append((1, curves.describe_trend(f"{kind.upper()}'s loss: {metric}", found)))
  return [line for _, line in sorted(ranked, key=lambda pair: pair[0])]
