"""Networks as flax.linen modules.

Generators are SRCNN, SRResNet, EDSR, RRDB, Compact, PLKSR, SPAN, DAT, SwinIR and HAT; `GENERATORS`
has them by the names of the configs, with their papers' sizes. `DISCRIMINATORS` has the
discriminators, and `VGGS` the feature extractors of the perceptual loss, whose weights
`pretrained.vgg.load_vgg` reads.

Every generator maps lr [B, h, w, C] in [0, 1] to float32 sr [B, h * scale, w * scale, C], in two
methods: `trunk(lr, train)` computes features at low resolution, and `tail(features, lr)` makes sr
from them. Most generators share these fields:

  channels: 3 (RGB) or 1 (luma; for RGB input, Cb and Cr are upscaled by bicubic).
  remat: recomputes the blocks in the backward pass instead of storing their activations, which
    saves memory for about a third more time. (XLA:CPU was observed to store them anyway.)
  kernel_init: initialiser of the kernels; biases start at zero.
  dtype: dtype of the computation; parameters stay float32.

Luma is Y of `images.luma`, from 16 / 255 to 235 / 255, in an image of one channel. The layers of
a network of one channel (other than SRCNN's) get it stretched to [0, 1], which is what other
projects give to such networks.

BatchNorm has the results of Flax's: the running variances are means of a batch's biased variance,
whose sum of squares is divided by N. PyTorch divides it by N - 1.

A layer that needs sums over the whole image, such as a normalisation or an attention over channels,
has two methods besides `__call__(x)`, with which an image that exceeds the memory is computed in
windows (`inference/layerwise.py`):

  statistics(x): a tree of arrays [B, ...], each a sum over the pixels of x [B, h, w, C] of what
    depends on one pixel alone, so that the sums of disjoint windows add up to those of the image.
  apply_statistics(x, sums, count): the result for a window x, from the sums over the image and its
    number of pixels. Given these, it is local.

`__call__(x)` is `apply_statistics(x, statistics(x), h * w)`. The trunk itself must call such a
layer, with x alone (other arguments must have their defaults), as it calls its blocks; what is
local before and after it belongs to others.

A layer with attention in windows depends on a pixel's position in its window. For an image that
exceeds the memory, such a layer states how it may be computed in windows of the image:

  window_grid: (multiple, halo), a property. For a part of x that starts at multiples of `multiple`
    and ends at multiples of it or at the image's border, `__call__` gives the result for the whole
    x, except within `halo` pixels of those borders of the part that are not the image's. Attention
    in windows of 8 has (8, 0) and, in windows that are shifted by 4 as in SwinIR, (8, 4); where a
    3x3 convolution is added, (8, 1) and (8, 4).

If such a layer needs sums over the image too, it has `statistics(x, inside=None)`: only pixels of x
where `inside` [h, w] is True are counted, and what is summed may depend on others that are up to
`halo` pixels away. `apply_statistics` is what then has the property above.

A module that consists of layers, such as a residual group of attention blocks, has the class
attribute `layered = True`; a network of which the trunk calls the trunk need not state it. Its
submodules are then computed one after the other, as if the trunk called them. What its `__call__`
itself does between them must be cheap, such as a sum: it is computed for the whole image, in the
host's memory.

A network of one's own needs the fields `scale` and `dtype` and a `__call__(lr, train=False)`. Where
`trunk` and `tail` are missing, or `__call__` is not one after the other, inference takes the
network as one part. `unshuffle`, if a class has it, is the side of the block of LR pixels that
becomes one pixel of the features. `feature_multiple`, if a class has it, is a number: `trunk` pads
the image by reflection at the bottom and right until the sides of the features are multiples of it,
and `tail` crops its result. Whether a network may be computed in windows is derived from its
operations (`inference/locality.py`); it need not state that.

With a field `drop_path` above 0, a network may call `self.make_rng('drop_path')` where `train` is
True (stochastic depth). The key is a function of the run's seed and the step, so that a resumed run
draws the same numbers.

A method `stem_network()`, if a class has it, returns a network, or None. It says that the submodule
`stem_trunk` has the variables of that network's trunk, so that `config.init_from` may name such a
network.

A field with an invalid value, or an image of integers or with the wrong number of channels, raises
ValueError when a module is first called.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models import failures
from sr_jax.models.compact import Compact
from sr_jax.models.dat import DAT, DAT_2, DAT_LIGHT, DAT_S
from sr_jax.models.discriminator import Discriminator
from sr_jax.models.edsr import EDSR, EDSR_BASELINE, EDSR_FULL
from sr_jax.models.hat import HAT, HAT_L, HAT_S
from sr_jax.models.plksr import PLKSR, PLKSR_TINY, REALPLKSR, REALPLKSR_TINY
from sr_jax.models.rrdb import RRDB
from sr_jax.models.span import SPAN, SPAN_52
from sr_jax.models.srcnn import SRCNN
from sr_jax.models.srresnet import MSRRESNET, SRRESNET, SRResNet
from sr_jax.models.swinir import (
  SWINIR_LIGHT,
  SWINIR_M,
  SWINIR_REAL_L,
  SWINIR_REAL_M,
  SWINIR_X1,
  SwinIR,
)
from sr_jax.models.unet_discriminator import UNetDiscriminator
from sr_jax.models.vgg import VGG16, VGG19, VGGS

GENERATORS = {'srcnn': SRCNN, 'srresnet': SRRESNET, 'msrresnet': MSRRESNET, 'edsr': EDSR,
              'rrdb': RRDB, 'compact': Compact, 'plksr': PLKSR, 'realplksr': REALPLKSR,
              'span': SPAN, 'dat': DAT, 'swinir': SwinIR, 'hat': HAT}
DISCRIMINATORS = {'vgg_style': Discriminator, 'unet': UNetDiscriminator}

__all__ = ['DAT', 'DAT_2', 'DAT_LIGHT', 'DAT_S', 'DISCRIMINATORS', 'EDSR', 'EDSR_BASELINE',
           'EDSR_FULL', 'GENERATORS', 'HAT', 'HAT_L', 'HAT_S', 'MSRRESNET', 'PLKSR', 'PLKSR_TINY',
           'REALPLKSR', 'REALPLKSR_TINY', 'RRDB', 'SPAN', 'SPAN_52', 'SRCNN', 'SRRESNET',
           'SWINIR_LIGHT', 'SWINIR_M', 'SWINIR_REAL_L', 'SWINIR_REAL_M', 'SWINIR_X1', 'VGG16',
           'VGG19', 'VGGS', 'Compact', 'Discriminator', 'SRResNet', 'SwinIR', 'UNetDiscriminator',
           'architecture', 'variable_shapes']


def architecture(module: nn.Module | None) -> dict[str, Any]:
  """Returns a network's class and the fields that its result depends on; {} for None.

  A class of the user's own has the name 'module:name'.
  """
  if module is None:
    return {}
  fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)
            if field.name not in ('parent', 'name', 'dtype', 'remat', 'kernel_init', 'drop_path')}
  name = type(module).__name__
  return {'network': f'{type(module).__module__}:{name}' if failures.is_own(module) else name
          } | fields


def variable_shapes(generator: nn.Module, method: str | None = None) -> dict[str, Any]:
  """Returns {'params', 'batch_stats'} of a generator as shapes.

  Args:
    method: a method of the generator, such as 'trunk', to which the variables are limited.

  Raises:
    InputError: the generator raises an exception.
  """
  # A multiple of what networks with windows or strides usually demand.
  lr = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
  init = functools.partial(generator.init, method=method)
  with failures.one_line(generator):
    return {'batch_stats': {}} | dict(jax.eval_shape(init, jax.random.key(0), lr))
