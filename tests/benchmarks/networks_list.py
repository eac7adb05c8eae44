"""The networks of docs/networks.md in their published sizes, with the published figures at x4."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from sr_jax import models

SCALE = 4


class Network(NamedTuple):
  """A network in one of its sizes.

  Attributes:
    title: what the page calls it.
    name: a key of `models.GENERATORS`.
    config: the experiment that trains it.
    fields: those that differ from the defaults of `name`.
    published: {set: 'PSNR / SSIM'} of luma.
    source: where they are from, and the training set.
    weights: a key of `pretrained.published.PUBLISHED` that was evaluated here.
  """

  title: str
  name: str
  config: str
  fields: Mapping[str, Any] = {}
  published: Mapping[str, str] = {}
  source: str = ''
  weights: str = ''

  def build(self, dtype: Any = jnp.float32) -> nn.Module:
    """Returns the module, at x4."""
    return models.GENERATORS[self.name](scale=SCALE, dtype=jnp.dtype(dtype), **self.fields)


def _scores(set5: str, set14: str, urban100: str) -> dict[str, str]:
  found = {'Set5': set5, 'Set14': set14, 'Urban100': urban100}
  return {name: score for name, score in found.items() if score}


TRAINER = 'traiNNer-redux'
NETWORKS = {
    'srcnn': Network('SRCNN, 9-5-5', 'srcnn', 'srcnn', {},
                     _scores('30.48 / .8628', '27.50 / .7513', ''), 'Dong et al., ImageNet'),
    'srresnet': Network('SRResNet', 'srresnet', 'srresnet', {}, _scores('32.05', '28.49', ''),
                        'Ledig et al., ImageNet'),
    'compact': Network('SRVGGNetCompact, 32 convolutions', 'compact', 'compact', {'blocks': 32}),
    'span': Network('SPAN, 48 features', 'span', 'span', {'fused': True},
                    _scores('', '', '26.18 / .7879'), f"{TRAINER}, the authors' weights",
                    'span-x4'),
    'span-ch52': Network('SPAN, 52 features', 'span', 'span', {'features': 52, 'fused': True},
                         weights='span-x4-ch52'),
    'edsr': Network('EDSR, baseline', 'edsr', 'edsr'),
    'edsr-full': Network('EDSR, full', 'edsr', 'edsr:full',
                         models.EDSR_FULL.keywords,
                         _scores('32.46 / .8968', '28.80 / .7876', '26.64 / .8033'),
                         'Lim et al., DIV2K'),
    'rrdb': Network('RRDBNet, 23 blocks', 'rrdb', 'rrdb', {},
                    _scores('32.73 / .9011', '28.99 / .7917', '27.03 / .8153'),
                    'Wang et al., DF2K'),
    'plksr-tiny': Network('PLKSR, tiny', 'plksr', 'realplksr:plksr,small',
                          models.PLKSR_TINY.keywords,
                          _scores('', '', '26.12 / .7888'), f'{TRAINER}, DIV2K'),
    'plksr': Network('PLKSR', 'plksr', 'realplksr:plksr', {}, _scores('', '', '26.69 / .8054'),
                     f'{TRAINER}, DIV2K'),
    'realplksr': Network('RealPLKSR, LayerNorm', 'realplksr', 'realplksr', {'norm': 'layer'},
                         _scores('', '', '26.94 / .8140'), f'{TRAINER}, DF2K'),
    'realplksr-group': Network('RealPLKSR, GroupNorm', 'realplksr', 'realplksr:group',
                               {'norm': 'group'}),
    'swinir-light': Network('SwinIR, light', 'swinir', 'swinir:light',
                            models.SWINIR_LIGHT.keywords,
                            _scores('32.44 / .8976', '28.77 / .7858', '26.47 / .7980'),
                            'Liang et al., DIV2K'),
    'swinir': Network('SwinIR', 'swinir', 'swinir', {},
                      _scores('32.92 / .9044', '29.09 / .7950', '27.45 / .8254'),
                      'Liang et al., DF2K'),
    'swinir-real': Network('SwinIR, for photographs', 'swinir', 'swinir:real',
                           models.SWINIR_REAL_M.keywords),
    'hat-s': Network('HAT-S', 'hat', 'hat:s', models.HAT_S.keywords,
                     _scores('32.92', '29.15', '27.87 / .8346'), 'Chen et al., DF2K'),
    'hat': Network('HAT', 'hat', 'hat', {},
                   _scores('33.04 / .9056', '29.23 / .7973', '27.97 / .8368'),
                   'Chen et al., DF2K'),
    'hat-l': Network('HAT-L', 'hat', 'hat:large', models.HAT_L.keywords,
                     _scores('33.30', '29.47', '28.60 / .8498'),
                     'Chen et al., ImageNet, then DF2K'),
    'dat-light': Network('DAT, light', 'dat', 'dat:light', models.DAT_LIGHT.keywords,
                         _scores('', '', '26.64 / .8033'),
                         f"{TRAINER}, the authors' weights", 'dat-light-x4'),
    'dat-s': Network('DAT-S', 'dat', 'dat:s', models.DAT_S.keywords,
                     _scores('', '', '27.68 / .8300'),
                     'Chen et al., DF2K'),
    'dat': Network('DAT', 'dat', 'dat', {},
                   _scores('33.08 / .9055', '29.23 / .7973', '27.87 / .8343'),
                   'Chen et al., DF2K')}
