"""Which curves of a run, or of several, stand in which chart, and what their ends say."""

from collections.abc import Iterator, Sequence

import numpy as np

from sr_jax.report import curves
from sr_jax.report.curves import Curve
from sr_jax.report.history import History

POINTS = 1_500  # of a curve
TITLES = {'psnr_y': 'PSNR of luma, dB', 'ssim_y': 'SSIM of luma', 'psnr_rgb': 'PSNR of RGB, dB',
          'ssim_rgb': 'SSIM of RGB', 'psnr_lr': 'LR consistency, dB',
          'lpips_alex': 'LPIPS (AlexNet)', 'lpips_vgg': 'LPIPS (VGG)',
          'd_total': "D's loss", 'd_real': "D's right answers, real",
          'd_fake': "D's right answers, generated"}
NOT_TERMS = ('g/total', 'g/grad_norm', 'g/ema_distance')


def charts(histories: Sequence[History]) -> Iterator[dict]:
  """What page.js draws: title, section and lines of each chart."""
  names = list(dict.fromkeys(name for run in histories for name in run.curves))

  def those(prefix):
    return [name for name in names if name.startswith(prefix)]

  for figure in dict.fromkeys(name.partition('/')[2]
                              for name in (*those('valid/'), *those('test/'))):
    yield _chart(histories, 'Figures', TITLES.get(figure, figure),
                 {f'valid/{figure}': 'validation', f'test/{figure}': 'test'}, baseline=True)
  for name in those('g/'):
    if name not in NOT_TERMS:
      yield _chart(histories, 'Losses', f'{name[2:]}, weighted', {name: name[2:]}, loss=True)
  if len(those('g/')) > 4:
    yield _chart(histories, 'Losses', 'all of G', {'g/total': 'total'}, loss=True)
  if 'd/total' in names:
    yield _chart(histories, 'Losses', "D's loss", {'d/total': 'D'}, loss=True)
    yield _chart(histories, 'Discriminator', "D's right answers",
                 {'d/real': 'real', 'd/fake': 'generated'}, percent=True)
  for term in dict.fromkeys(name.split('/')[1] for name in those('terms/')):
    yield _chart(histories, 'On fixed crops', TITLES.get(term, term),
                 {f'terms/{term}/train': 'trained on', f'terms/{term}/valid': 'not trained on'},
                 loss=term not in ('d_real', 'd_fake'), percent=term in ('d_real', 'd_fake'))
  if those('learning_rate/'):
    yield _chart(histories, 'Training', 'learning rate',
                 {name: name.partition('/')[2].upper() for name in those('learning_rate/')})
  for name, title in (('g/grad_norm', 'gradient norm of G'), ('d/grad_norm', 'gradient norm of D')):
    if name in names:
      yield _chart(histories, 'Training', title, {name: name[0].upper()}, loss=True)
  for name, title in (('g/ema_distance', "weights' distance from their average"),
                      ('images_per_second', 'images a second'),
                      ('skipped', 'steps left out')):
    if name in names and any(np.nanmax(run.curves[name].values, initial=0) > 0
                             for run in histories if name in run.curves):
      yield _chart(histories, 'Training', title, {name: title})


def _chart(histories, section, title, names, loss=False, percent=False, baseline=False) -> dict:
  lines = []
  for index, run in enumerate(histories):
    for name, label in names.items():
      if name not in run.curves:
        continue
      curve = run.curves[name]
      noisy = len(curve.steps) > 40
      lines.append({'run': index, 'label': label, 'faint': noisy, **_points(curve)})
      if noisy:
        lines.append({'run': index, 'label': label, 'smooth': True,
                      **_points(curves.smooth(curve))})
    if baseline:
      for kind, figures in run.before.items():
        for name, label in names.items():
          if figures.get(name) is not None:
            lines.append({'run': index, 'level': figures[name], 'label': (
                kind if kind == 'bicubic' else f'{label} at the start')})
  return {'section': section, 'title': title, 'loss': loss, 'percent': percent, 'lines': lines,
          'boundaries': sorted({run.boundary for run in histories if run.boundary}),
          'checkpoints': histories[0].checkpoints if len(histories) == 1 else []}


def _points(curve: Curve) -> dict:
  thinned = curves.thin(curve, POINTS)
  return {'x': thinned.steps.tolist(),
          'y': [float(f'{value:.5g}') if np.isfinite(value) else None for value in thinned.values]}


def trends(run: History) -> list[str]:
  """What the end of each curve says, of the phase that the run is in: figures of pictures that are
  not trained on first.
  """
  lines = []
  begin = run.boundary if run.boundary and run.step > run.boundary else 0
  for name, curve in run.curves.items():
    kind, _, figure = name.partition('/')
    if kind not in ('valid', 'g', 'd') or name in NOT_TERMS[1:] or name == 'd/saturated':
      continue
    found = curves.trend(curve, begin, run.step)
    if not found:
      continue
    if kind == 'valid':
      up = not figure.startswith('lpips')
      digits, unit = (2, 'dB') if figure.startswith('psnr') else (4, '')
      lines.append((0, curves.describe_trend(TITLES.get(figure, figure).removesuffix(', dB'), found,
                                       digits, unit, up)))
    elif figure in ('real', 'fake'):
      where = 'real' if figure == 'real' else 'generated'
      lines.append((2, f'D is right about {found.level:.0%} of the {where} crops '
                       f'in the last {found.share:.0%}'))
    elif kind == 'g' or figure == 'total':
      lines.append((1, curves.describe_trend(f"{'G' if kind == 'g' else 'D'}'s loss: {figure}", found)))
  return [line for _, line in sorted(lines, key=lambda line: line[0])]
