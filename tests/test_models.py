"""Tests of networks: PyTorch's results with the same weights (tests/golden), and shapes."""

import functools
import importlib
import json
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sr_jax import images
from sr_jax.models import (
  EDSR,
  EDSR_BASELINE,
  EDSR_FULL,
  GENERATORS,
  MSRRESNET,
  PLKSR,
  REALPLKSR,
  RRDB,
  SPAN,
  SRCNN,
  SRRESNET,
  Compact,
  Discriminator,
  SRResNet,
)
from sr_jax.models.batch_norm import BatchNorm
from sr_jax.models.layers import (
  Activation,
  Upsample,
  add_chroma,
  match_channels,
  pixel_shuffle,
  pixel_unshuffle,
  repeat_pixels,
)
from sr_jax.models.vgg import VGG16, VGG19, VGG19_DEPTHS, convolution_names, max_pool, relu
from sr_jax.pretrained.vgg import load_vgg
from tests.conftest import GOLDEN, filled, same_bits

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def name_of(make: Callable) -> str:
  """Returns a test id without memory addresses, so that all workers collect the same tests."""
  fields = [value for value in getattr(make, 'keywords', {}).values() if not callable(value)]
  return '-'.join(map(str, [getattr(make, 'func', make).__name__, *getattr(make, 'args', ()),
                            *fields]))


def test_pixel_shuffle_and_prelu_agree_with_pytorch(golden: Callable) -> None:
  _, expected = golden('layers')
  x = expected['shuffle_in']
  np.testing.assert_array_equal(pixel_shuffle(x[..., :12], 2), expected['shuffle2'])
  np.testing.assert_array_equal(pixel_shuffle(x, 3), expected['shuffle3'])
  prelu = Activation('prelu')
  variables = prelu.init(jax.random.key(0), x)
  close(prelu.apply(variables, x), expected['prelu'])


def test_batch_norm_agrees_with_pytorch(golden: Callable) -> None:
  _, expected = golden('layers')
  variables = {'params': {'scale': expected['norm_scale'], 'bias': expected['norm_bias']},
               'batch_stats': {'mean': jnp.zeros(3), 'var': jnp.ones(3)}}
  out, changed = BatchNorm().apply(variables, expected['norm_in'], jnp.zeros(3),
                                   use_running_average=False, mutable=['batch_stats'])
  close(out, expected['norm_out'])
  close(changed['batch_stats']['mean'], expected['norm_mean'])
  close(changed['batch_stats']['var'], expected['norm_var'])


@pytest.mark.parametrize(('name', 'model'), [
    ('srcnn', SRCNN(widths=(4, 3), kernels=(9, 1, 5), scale=3)),
    ('srresnet', SRRESNET(features=4, blocks=2)),
    ('msrresnet', MSRRESNET(features=4, blocks=2, scale=3))])
def test_generators_agree_with_pytorch(golden: Callable, name: str, model: nn.Module) -> None:
  variables, expected = golden(name)
  close(jax.jit(model.apply)(variables, expected['lr']), expected['sr'])


@pytest.mark.parametrize('scale', [2, 3])
def test_transposed_upsampling_agrees_with_pytorch(golden: Callable, scale: int) -> None:
  variables, expected = golden(f'transposed/x{scale}')
  layer = Upsample(scale, 4, 'transposed', 'prelu', nn.initializers.zeros, jnp.float32)
  close(layer.apply(variables, expected['in']), expected['out'])


@pytest.mark.parametrize('head', ['conv', 'dense'])
def test_discriminator_agrees_with_pytorch(golden: Callable, head: str) -> None:
  variables, expected = golden(f'discriminators/{head}')
  model = Discriminator((4, 8), head=head, hidden=16)
  apply = jax.jit(partial(model.apply, train=True, mutable=['batch_stats']))
  logits, _ = apply(variables, expected['images'])
  close(logits, expected['logits'])


def test_parameter_count_of_the_discriminator() -> None:
  def count(size: int, **fields: Any) -> int:
    shapes = jax.eval_shape(Discriminator(**fields).init, jax.random.key(0),
                            jnp.zeros((1, size, size, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
  assert count(96, head='conv') == 5_215_425
  assert count(40, head='conv') == 5_215_425  # any patch size
  # Ledig's dense head on 96x96: 6 * 6 * 512 inputs.
  assert count(96) == 4_689_088 + (6 * 6 * 512 + 1) * 1024 + 1025


def test_only_the_first_convolution_has_no_norm() -> None:
  shapes = jax.eval_shape(Discriminator((8, 8, 16), head='conv').init, jax.random.key(0),
                          jnp.zeros((1, 16, 16, 3)))
  assert sum(name.startswith('BatchNorm') for name in shapes['params']) == 5


@pytest.mark.parametrize('scale', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('make', [
    *(partial(SRResNet, upsample=upsample) for upsample in ('shuffle', 'nearest', 'transposed',
                                                            'direct')),
    EDSR, partial(RRDB, growth=2), partial(RRDB, growth=2, upsample='shuffle'),
    *(partial(network, unshuffle=2) for network in (RRDB, EDSR, MSRRESNET, Compact)), Compact,
    partial(PLKSR, kernel=5, unshuffle=2), REALPLKSR,
    partial(SRResNet, upsample='direct', unshuffle=2), partial(Compact, inner_scale=4)],
    ids=name_of)
def test_scales_and_upsamplings(scale: int, make: Callable) -> None:
  fields = getattr(make, 'keywords', {})
  if scale == 3 and 'unshuffle' in fields and not (
      make.func in (Compact, PLKSR) or fields.get('upsample') == 'direct'):
    with pytest.raises(ValueError, match=r'unshuffle=2\b.*scale 3'):
      jax.eval_shape(make(4, 1, scale=3).init, jax.random.key(0), jnp.zeros((2, 6, 5, 3)))
    return
  model = make(features=4, blocks=1, scale=scale, dtype=jnp.bfloat16)
  shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 6, 5, 3)))
  sr, variables = shapes
  assert sr.shape == (2, 6 * scale, 5 * scale, 3)
  assert sr.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('model', [
    SRCNN((4,), (5, 3)), SRRESNET(4, 1), MSRRESNET(4, 1), EDSR(4, 1), RRDB(4, 1, 2),
    REALPLKSR(4, 1, kernel=5), Compact(4, 1, inner_scale=2), SPAN(4, 1)],
    ids=lambda model: type(model).__name__)
def test_trunk_then_tail_equals_a_call(model: nn.Module) -> None:
  assert {type(model)} <= {type(make()) for make in GENERATORS.values()}
  lr = jax.random.uniform(jax.random.key(1), (1, 7, 6, 3))
  variables = filled(model, lr)
  @jax.jit
  def apply(variables: dict, lr: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    features = model.apply(variables, lr, method='trunk')
    return features, model.apply(variables, features, lr, method='tail'), model.apply(variables, lr)

  features, in_parts, at_once = apply(variables, lr)
  assert features.shape[:3] == (1, 7, 6)  # at low resolution
  np.testing.assert_array_equal(in_parts, at_once)


def parameters(model: nn.Module) -> int:
  """Counts those of networks of one and two blocks, because shapes of 32 take seconds."""
  one, two = (sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(
      model.clone(blocks=blocks).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))))
              for blocks in (1, 2))
  return one + (model.blocks - 1) * (two - one)


def test_parameter_counts_of_edsr_rrdb_and_compact() -> None:
  # From the model zoos of EDSR-PyTorch and BasicSR, without the parameters of MeanShift.
  assert parameters(EDSR_BASELINE(scale=2)) == 1_369_859
  assert parameters(EDSR_BASELINE(scale=4)) == 1_517_571
  assert parameters(EDSR_FULL(scale=2)) == 40_729_603
  assert parameters(EDSR_FULL(scale=4)) == 43_089_923
  assert parameters(RRDB()) == 16_697_987
  assert parameters(RRDB(blocks=1, scale=2, unshuffle=2)) == (
      parameters(RRDB(blocks=1)) + 64 * 9 * 9)  # the head reads four times the channels
  assert parameters(Compact()) == 621_424  # realesr-animevideov3
  assert parameters(Compact(blocks=32)) == 1_213_296  # realesr-general-x4v3


def test_initial_weights() -> None:
  key, lr = jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  def init(model: nn.Module, *path: str) -> jax.Array:  # XLA compiles only what is returned
    return jax.jit(lambda: functools.reduce(lambda tree, name: tree[name], (*path, 'kernel'),
                                            model.init(key, lr)['params']))()

  for index, inputs in enumerate((32, 48, 64)):
    kernel = init(RRDB(32, 1, 16), 'body_0', 'DenseBlock_1', f'Conv_{index}')
    expected = 0.1 * (2 / (9 * inputs))**0.5  # Kaiming's x 0.1
    assert np.std(kernel) == pytest.approx(expected, rel=0.05)
  for layer, factor in (('layers_1', 1), ('last', 0.01)):
    kernel = init(Compact(64, 1), layer)
    assert np.std(kernel) == pytest.approx(factor * (2 / (9 * 64))**0.5, rel=0.05)
  for model in (EDSR(64, 1), RRDB(64, 1, 2)):
    kernel = init(model, 'body_end')
    bound = (9 * 64)**-0.5  # PyTorch's default
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert np.std(kernel) == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize('make', [
    partial(SRRESNET, 4, 2, kernel=3), *(pytest.param(make, marks=pytest.mark.slow) for make in (
        partial(EDSR, 4, 2), partial(RRDB, 4, 1, 2), partial(REALPLKSR, 4, 1)))],
    ids=['srresnet', 'edsr', 'rrdb', 'realplksr'])
def test_rematerialisation_changes_only_memory(make: Callable) -> None:
  lr = jax.random.uniform(jax.random.key(1), (2, 5, 6, 3))
  plain, remat = make(scale=2), make(scale=2, remat=True)
  variables = filled(plain, lr)

  def gradient(model: nn.Module) -> Callable:
    def objective(params: dict) -> tuple[jax.Array, dict]:
      sr, changed = model.apply(variables | {'params': params}, lr, train=True,
                                mutable=['batch_stats'])
      return (sr**2).mean(), changed
    return jax.jit(jax.value_and_grad(objective, has_aux=True))

  results = (jax.tree.leaves(gradient(model)(variables['params'])) for model in (plain, remat))
  for a, b in zip(*results, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
  text = (str(jax.make_jaxpr(gradient(model))(variables['params'])) for model in (plain, remat))
  assert ['remat' in jaxpr or 'checkpoint' in jaxpr for jaxpr in text] == [False, True]


@pytest.mark.parametrize('make', [
    partial(EDSR, 4, 1), partial(RRDB, 4, 1, 2), partial(RRDB, 4, 1, 2, unshuffle=2),
    partial(Compact, 4, 1), partial(MSRRESNET, 4, 1), partial(PLKSR, 4, 1, kernel=5),
    partial(SPAN, 4, 1)], ids=name_of)
def test_a_network_of_one_channel_predicts_luma_and_colour_is_bicubic(make: Callable) -> None:
  model = make(scale=2, channels=1)
  lr = jax.random.uniform(jax.random.key(1), (1, 8, 9, 3))
  variables = filled(model, lr)
  assert variables['params']['last']['bias'].shape[0] in (1, 4)
  apply = jax.jit(model.apply)
  sr = apply(variables, lr)
  ycbcr, bicubic = images.rgb_to_ycbcr(sr), images.rgb_to_ycbcr(images.resize(lr, 2))
  np.testing.assert_allclose(ycbcr[..., 1:], bicubic[..., 1:], atol=1e-5)
  grey = apply(variables, images.luma(lr))
  assert grey.shape == (1, 16, 18, 1)
  np.testing.assert_allclose(ycbcr[..., :1], grey, atol=1e-5)


def test_channels_of_images_and_networks() -> None:
  colour, grey = jnp.full((1, 2, 2, 3), 0.5), jnp.full((1, 2, 2, 1), 0.5)
  assert match_channels(colour, 3) is colour
  assert match_channels(grey, 1, full_range=False) is grey
  np.testing.assert_allclose(match_channels(colour, 1, full_range=False), images.luma(colour))
  assert add_chroma(grey, grey, 2, full_range=False) is grey
  for level in (0.0, 0.25, 1.0):  # grey from 0 to 1 has the luma 16 to 235
    luma = jnp.full((1, 2, 2, 1), (16 + 219 * level) / 255)
    for lr in (luma, jnp.full((1, 2, 2, 3), level)):
      np.testing.assert_allclose(match_channels(lr, 1), level, atol=2e-7)
    np.testing.assert_allclose(add_chroma(match_channels(luma, 1), luma, 1), luma, atol=2e-7)
  for lr, channels in ((grey, 3), (colour, 2), (jnp.zeros((1, 2, 2, 4)), 3)):
    with pytest.raises(ValueError, match=rf'channels={channels}\b.*\b{lr.shape[-1]}\b'):
      match_channels(lr, channels)


def test_pixel_unshuffle_and_nearest_upscaling() -> None:
  x = jax.random.uniform(jax.random.key(1), (2, 6, 4, 3))
  np.testing.assert_array_equal(pixel_shuffle(pixel_unshuffle(x, 2), 2), x)
  folded = pixel_unshuffle(x, 2)
  assert folded.shape == (2, 3, 2, 12)
  assert folded[1, 2, 1, 2 * 4 + 1 * 2 + 0] == x[1, 2 * 2 + 1, 2 * 1 + 0, 2]
  upscaled = repeat_pixels(x, 3)
  assert upscaled.shape == (2, 18, 12, 3)
  np.testing.assert_array_equal(upscaled[:, 1::3, 2::3], x)


@pytest.mark.parametrize('model', [
    RRDB(4, 1, 2, scale=2, unshuffle=2), EDSR(4, 1, scale=1, unshuffle=2),
    SRResNet(4, 1, scale=2, unshuffle=2, kernel=3), Compact(4, 1, scale=1, unshuffle=2),
    pytest.param(PLKSR(4, 1, scale=1, unshuffle=2), marks=pytest.mark.slow)],
    ids=lambda model: type(model).__name__)
def test_an_unshuffled_image_of_odd_size_is_padded_by_reflection(model: nn.Module) -> None:
  lr = jax.random.uniform(jax.random.key(1), (1, 5, 7, 3))
  variables = filled(model, lr)
  padded = jnp.pad(lr, ((0, 0), (0, 1), (0, 1), (0, 0)), 'reflect')
  apply = jax.jit(model.apply)
  cropped = apply(variables, padded)[:, :5 * model.scale, :7 * model.scale]
  np.testing.assert_allclose(apply(variables, lr), cropped, atol=1e-6)
  shape = jax.eval_shape(apply, variables, lr[:, :1, :1]).shape
  assert shape == (1, model.scale, model.scale, 3)


def test_parameter_count_of_srcnn() -> None:
  def count(**fields: Any) -> int:
    shapes = jax.eval_shape(SRCNN(**fields).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    kernels = [leaf for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1]
    return sum(leaf.size for leaf in kernels)
  assert count(kernels=(9, 1, 5)) == 8_032  # the journal's table, without biases
  assert count() == 57_184  # 9-5-5


def test_srcnn_predicts_luma_and_keeps_grey_images_grey() -> None:
  model = SRCNN((4,), (5, 3), scale=2)
  lr = jax.random.uniform(jax.random.key(1), (1, 8, 9, 3))
  variables = filled(model, lr)
  apply = jax.jit(model.apply)
  difference = np.abs(images.rgb_to_ycbcr(apply(variables, lr))
                      - images.rgb_to_ycbcr(images.resize(lr, 2)))
  chroma, luma = (difference[..., part].max()
                  for part in (slice(1, 3), slice(1)))
  assert chroma < 1e-6 < 0.1 < luma
  grey = lr[..., :1]
  assert jax.eval_shape(apply, variables, grey).shape == (1, 16, 18, 1)
  # A constant stays constant up to the last row and column, since borders are replicated.
  flat = apply(variables, jnp.full((1, 5, 5, 3), 0.5))
  assert np.ptp(flat) < 1e-5
  colour = SRCNN((4,), (5, 3), scale=2, luma_only=False)
  assert filled(colour, lr)['params']['layers_0']['kernel'].shape == (5, 5, 3, 4)


def test_tanh_stays_in_range_and_bilinear_skip_starts_near_the_input() -> None:
  lr = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
  ledig = SRRESNET(features=4, blocks=1, scale=2)
  sr = jax.jit(ledig.apply)(filled(ledig, lr), lr)
  assert 0 <= sr.min() < sr.max() <= 1
  msr = MSRRESNET(features=4, blocks=1, scale=2)
  sr = jax.jit(msr.apply)(jax.jit(msr.init)(jax.random.key(0), lr), lr)
  assert jnp.abs(sr - jax.image.resize(lr, sr.shape, 'bilinear')).max() < 1e-2


def test_invalid_field_values_are_named() -> None:
  for fields in ({'kernels': (9, 5)}, {'kernels': (9, 4, 5)}):
    with pytest.raises(ValueError, match='kernels'):
      SRCNN(**fields).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
  for fields in ({'scale': 5}, {'upsample': 'linear'}, {'skip': 'none'}, {'output': 'relu'}):
    with pytest.raises(ValueError, match=next(iter(fields))):
      SRResNet(**fields).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
  for model in (EDSR(scale=5), EDSR(mean=(0.5,)), RRDB(scale=5), RRDB(upsample='direct'),
                RRDB(scale=8, unshuffle=4), Compact(activation='tanh')):
    with pytest.raises(ValueError, match=r'scale|mean=|upsample=|activation'):
      jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))


def test_vgg16_agrees_with_pytorch_in_every_layer(golden: Callable) -> None:
  expected = json.loads((GOLDEN / 'vgg16.json').read_text())
  variables = load_vgg('vgg16', '', 'torchvision')
  features = VGG16(tuple(expected)).apply(variables, golden('vgg16')[1]['picture'][None])
  assert_activations(features, expected)


def test_vgg19_agrees_with_pytorch_in_every_layer(assets: pathlib.Path) -> None:
  expected = json.loads((assets / 'vgg19_features_expected.json').read_text())
  expected = expected['before_activation']
  variables = load_vgg('vgg19', str(assets / 'vgg19_features.safetensors'), 'caffe')
  picture = images.to_float(images.read_image(assets / 'lpips_ref' / 'ex_ref.png'))
  features = VGG19(tuple(expected)).apply(variables, picture[None])
  assert_activations(features, expected)


def assert_activations(features: dict[str, jax.Array], expected: dict[str, dict]) -> None:
  for name, statistics in expected.items():
    found = np.asarray(features[name])
    # The tolerance is relative to the layer's spread, since single values may be close to zero.
    near = partial(np.testing.assert_allclose, rtol=0, atol=1e-3 * statistics['std'], err_msg=name)
    near(found.mean(), statistics['mean'])
    near(found.std(), statistics['std'])
    near(found.reshape(-1)[:4], statistics['first'])


@pytest.mark.parametrize('shape', [(2, 4, 6, 3), (1, 5, 7, 2), (1, 1, 3, 1)])
def test_activation_and_pooling_of_vgg_are_those_of_flax(shape: tuple[int, ...]) -> None:
  """Small integers make equal maxima, of which the first gets the gradient."""
  rng = np.random.default_rng(0)
  x = jnp.float32(rng.integers(-2, 3, shape))
  for ours, theirs in ((relu, nn.relu),
                       (max_pool, partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2)))):
    (found, pullback), (want, reference) = jax.vjp(ours, x), jax.vjp(theirs, x)
    np.testing.assert_array_equal(found, want)
    cotangent = jnp.float32(rng.normal(size=want.shape))
    np.testing.assert_array_equal(pullback(cotangent)[0], reference(cotangent)[0])


def test_vgg_weights_may_be_rounded_beforehand() -> None:
  model, x = VGG16(('relu2_1',), dtype=jnp.bfloat16), np.float32([[[[0.1, 0.5, 0.9]] * 6] * 6])
  variables = filled(model, x)
  rounded = jax.tree.map(lambda array: array.astype(jnp.bfloat16), variables)
  assert same_bits(model.apply(variables, x), model.apply(rounded, x)) == []


def test_vgg_computes_only_the_requested_layers() -> None:
  x = jnp.zeros((1, 32, 32, 3))
  model = VGG19(('relu1_2', 'conv2_1'))
  shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
  features, variables = shapes
  assert {name: leaf.shape for name, leaf in features.items()} == {
      'relu1_2': (1, 32, 32, 64), 'conv2_1': (1, 16, 16, 128)}
  assert set(variables['params']) == {'conv1_1', 'conv1_2', 'conv2_1'}
  with pytest.raises(ValueError, match='conv5_5'):
    jax.eval_shape(VGG19(('conv5_5',)).init, jax.random.key(0), x)
  assert len(convolution_names(VGG19_DEPTHS)) == 16


@pytest.mark.slow
@pytest.mark.parametrize(('script', 'file'), [('make_golden', 'pytorch.npz'),
                                              ('make_foreign', 'foreign.npz')])
def test_golden_files_are_reproduced_by_pytorch(tmp_path: pathlib.Path, script: str,
                                                file: str) -> None:
  pytest.importorskip('torch')
  importlib.import_module(f'tests.golden.{script}').main(tmp_path)
  with np.load(tmp_path / file) as new, np.load(GOLDEN / file) as old:
    assert set(new) == set(old)
    for name in new:
      if new[name].dtype.kind == 'U':  # shapes, as text
        assert str(new[name]) == str(old[name])
      else:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-5, atol=1e-6, err_msg=name)
