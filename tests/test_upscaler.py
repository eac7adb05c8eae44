"""Tests that upscaling in tiles, windows and layers gives the result of the whole image."""

import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import monitoring

from sr_jax import images, restore
from sr_jax.errors import InputError
from sr_jax.inference import layerwise, planner, strategies, tiles
from sr_jax.inference.compiled_parts import CompiledParts, Program
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models import EDSR, MSRRESNET, RRDB, SPAN, SRCNN, SRRESNET, Compact, SRResNet
from tests.conftest import filled

# The last bits of a convolution's result depend on the shape that it is compiled for.
TOLERANCE = 2e-6

# (generator, variables, function of lr [h, w, C] that applies it to the whole image)
Network = tuple[nn.Module, dict, Callable[[np.ndarray], np.ndarray]]

NETWORKS = {
    'rrdb': RRDB(4, 1, 2), 'unfolding': RRDB(4, 1, 2, scale=2, unshuffle=2),
    'unfolding by 4': RRDB(4, 1, 2, scale=1, unshuffle=4),
    'unfolding compact': Compact(4, 2, scale=1, unshuffle=4),
    'unfolding edsr': EDSR(4, 2, scale=2, unshuffle=2),
    'unfolding msrresnet': MSRRESNET(features=4, blocks=1, scale=1, unshuffle=2),
    'edsr x1': EDSR(4, 2, scale=1), 'srresnet x1': SRResNet(4, 1, scale=1, kernel=3),
    'compact': Compact(4, 2), 'animevideov3-x2': Compact(4, 1, scale=2, inner_scale=4),
    'animevideov3-x3': Compact(4, 1, scale=3, inner_scale=4),
    'inner scale 1': Compact(4, 1, scale=3, inner_scale=1), 'span': SPAN(4, 2, scale=2),
    'srcnn': SRCNN((4, 3)), 'srcnn rgb': SRCNN((4, 3), scale=3, luma_only=False),
    'edsr': EDSR(4, 2, scale=2), 'deep edsr': EDSR(4, 4, scale=2),
    'edsr luma': EDSR(4, 1, scale=3, channels=1),
    'srresnet': SRRESNET(features=4, blocks=2), 'msrresnet': MSRRESNET(features=4, blocks=1),
    'transposed': SRResNet(4, 1, scale=3, upsample='transposed'),
    'direct': SRResNet(4, 1, scale=2, upsample='direct', kernel=3)}
DEEP = ['deep edsr', pytest.param('rrdb', marks=pytest.mark.slow)]  # the trunk sees 10, 17 pixels
CORE = ('unfolding', 'animevideov3-x3', 'msrresnet')
NAMES = [pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in NETWORKS]
# The trunks of these are those of others, so that only what their tails do in tiles is tested.
SAME_TRUNK = ('edsr x1', 'srresnet x1', 'animevideov3-x2', 'inner scale 1', 'srcnn rgb', 'edsr',
              'edsr luma', 'transposed', 'direct')
TRUNKS = [name for name in NAMES if name.values[0] not in SAME_TRUNK]


@pytest.fixture(scope='module')
def network() -> Callable[[str], Network]:
  """network(name) -> (generator, variables, untiled); untiled(lr) is the expected result."""
  cache = {}

  def make(name: str) -> Network:
    if name not in cache:
      generator = NETWORKS[name]
      variables = filled(generator, np.zeros((1, 12, 12, 3), np.float32))
      run = jax.jit(generator.apply)
      cache[name] = generator, variables, lambda lr: np.asarray(run(variables, lr[None])[0])
    return cache[name]

  return make


@pytest.fixture(scope='module')
def lr() -> np.ndarray:
  """An image whose sides are no multiples of 2 or 4, the height less than some windows'."""
  return np.random.default_rng(3).random((41, 55, 3), np.float32)


@pytest.mark.parametrize(('tile', 'name'), [
    *(pytest.param(16, *name.values, marks=name.marks) for name in NAMES),
    # Of a network in tiles only the sides differ, and these are the kinds of tails and of folding.
    *(pytest.param(tile, name, marks=pytest.mark.slow) for tile in (None, 25) for name in (
        'unfolding', 'unfolding by 4', 'animevideov3-x3', 'msrresnet', 'srcnn', 'transposed'))])
def test_tiles_do_not_change_the_result(network: Callable[[str], Network], lr: np.ndarray,
                                        tile: int | None, name: str) -> None:
  generator, variables, untiled = network(name)
  np.testing.assert_allclose(Upscaler(generator, variables, tile=tile)(lr), untiled(lr),
                             rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('name', NAMES)
def test_a_canvas_does_not_change_the_result(network: Callable[[str], Network], name: str) -> None:
  generator, variables, untiled = network(name)
  sizes = [(97, 113), (103, 119), (130, 160), (160, 120), (150, 150), (110, 160)]
  lr = np.random.default_rng(9).random((*sizes[0], 3), np.float32)
  upscale = Upscaler(generator, variables, sizes=sizes)
  plan = upscale.planner.plan(lr[None], 1 << 40)
  unfold = getattr(generator, 'unshuffle', 1)
  assert math.prod(plan.canvas) > math.prod(-(-side // unfold) for side in lr.shape[:2])
  np.testing.assert_allclose(upscale(lr), untiled(lr), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('name', TRUNKS)
@pytest.mark.parametrize('strategy', ['windows', 'layers'])
def test_windows_and_layers_do_not_change_the_result(network: Callable[[str], Network],
                                                     lr: np.ndarray, name: str, strategy: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
  """Each strategy is forced although the trunk would fit, with small and so many windows."""
  generator, variables, untiled = network(name)
  upscale = Upscaler(generator, variables, tile=16)
  unfold = getattr(generator, 'unshuffle', 1)
  sides = [-(-side // unfold) for side in lr.shape[:2]]
  if strategy == 'windows':
    reach = upscale.planner.trunk_reach + upscale.planner.tail_reach
    tiling = tiles.Tiling(*(min(2 * reach + 9, side) for side in sides), reach)
    window = upscale.planner.tail_window(lr[None], tiling[:2], 1 << 40)
    plan = strategies.TilingPlan(None, window, tiling)
  else:
    window = upscale.planner.tail_window(lr[None], sides, 1 << 40)
    plan = strategies.TilingPlan(None, window, layer_side=9)
  monkeypatch.setattr(upscale.planner, 'plan', lambda lr, budget: plan)
  np.testing.assert_allclose(upscale(lr), untiled(lr), rtol=0, atol=TOLERANCE)


@pytest.fixture(scope='module')
def large() -> np.ndarray:
  return np.random.default_rng(4).random((130, 150, 3), np.float32)


def _trunk_bytes(generator: nn.Module, variables: dict, lr: np.ndarray) -> float:
  return CompiledParts(generator, variables).trunk(1, lr.shape[:2]).bytes


@pytest.mark.parametrize('name', DEEP)
def test_the_memory_decides_the_strategy(network: Callable[[str], Network], large: np.ndarray,
                                         name: str) -> None:
  """With less and less memory: untiled, in windows, by layers."""
  generator, variables, untiled = network(name)
  want, full = untiled(large), _trunk_bytes(generator, variables, large)
  # Layers see less than the network, which needs much less work only where windows are small.
  for divisor, strategy in ((1, 'canvas'), (1.4, 'tiling'), (8, 'layer_side')):
    upscale = Upscaler(generator, variables, tile=16, memory=int(full / divisor))
    plan = upscale.planner.plan(large[None], upscale.memory)
    assert [name for name in ('canvas', 'tiling', 'layer_side') if getattr(plan, name)
            ] == [strategy]
    np.testing.assert_allclose(upscale(large), want, rtol=0, atol=TOLERANCE)
    assert upscale.notes == []


@pytest.mark.parametrize(('name', 'reach'), [
    ('deep edsr', 13), pytest.param('rrdb', 20, marks=pytest.mark.slow)])
def test_an_inexact_result_is_noted_once_with_its_error(network: Callable[[str], Network],
                                                        large: np.ndarray, name: str, reach: int,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
  generator, variables, untiled = network(name)
  monkeypatch.setattr(planner, 'MAX_WORK', 1.2)
  memory = _trunk_bytes(generator, variables, large) // 8
  upscale = Upscaler(generator, variables, tile=16, memory=memory)
  error = 255 * np.abs(upscale(large) - untiled(large)).max()
  note, = upscale.notes
  match = re.search(rf'not exact: .* (\d+) of the {reach} pixels .* ([\d.e-]+) levels', note)
  assert match, note
  assert 0 < int(match[1]) < reach
  assert 0 < float(match[2]) <= 1.05 * error
  upscale(large[:, ::-1])
  assert upscale.notes == [note]


def test_a_canvas_larger_than_memory_is_not_used(network: Callable[[str], Network],
                                                 large: np.ndarray) -> None:
  """An image whose canvas does not fit runs in windows."""
  generator, variables, untiled = network('deep edsr')
  memory = _trunk_bytes(generator, variables, large) // 2
  sizes = [(130, 150), (131, 149), (120, 160), (140, 140), (90, 100), (60, 70)]
  upscale = Upscaler(generator, variables, tile=16, memory=memory, sizes=sizes)
  assert upscale.planner.plan(large[None], memory).canvas is None
  np.testing.assert_allclose(upscale(large), untiled(large), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_tiny_memory_is_noted_or_refused(network: Callable[[str], Network]) -> None:
  """Windows are almost all halo; each result is exact, noted as inexact, or an InputError."""
  generator, variables, untiled = network('rrdb')
  for size in ((1, 3), (36, 6)):
    lr = np.random.default_rng(7).random((*size, 3), np.float32)
    upscale = Upscaler(generator, variables, tile=16, memory=1 << 14)
    try:
      error = np.abs(upscale(lr) - untiled(lr)).max()
    except InputError:
      continue
    assert upscale.notes or error < TOLERANCE


@pytest.mark.parametrize(('part', 'after'), [
    ('tail', 3), pytest.param('tail', 0, marks=pytest.mark.slow),
    pytest.param('trunk', 0, marks=pytest.mark.slow)])
def test_exhausted_memory_halves_the_budget(network: Callable[[str], Network], large: np.ndarray,
                                            part: str, after: int,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
  """The upscaler continues, whether the first call fails or one in the middle of the image."""
  generator, variables, untiled = network('deep edsr')
  upscale = Upscaler(generator, variables, tile=64, memory=1 << 26)
  compile_program, sides, calls = CompiledParts._program, set(), [0]

  def program(self: CompiledParts, key: tuple, run: Callable, *inputs: Any) -> Program:
    compiled = compile_program(self, key, run, *inputs)

    def exhausted(*arguments: Any) -> jax.Array:
      if key[0] == part:
        sides.add(key[2])
        calls[0] += 1
        if calls[0] > after and upscale.memory > 1 << 20:
          raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
      return compiled.run(*arguments)

    return compiled._replace(run=exhausted)

  monkeypatch.setattr(CompiledParts, '_program', program)
  rows = []
  sr = upscale(large, rows.append)
  np.testing.assert_allclose(sr, untiled(large), rtol=0, atol=TOLERANCE)
  assert sum(rows) == 130
  assert upscale.memory == 1 << 20
  assert len(sides) > 1  # smaller windows were used


def test_memory_exhausted_at_every_size_is_one_error(network: Callable[[str], Network],
                                                     large: np.ndarray,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
  generator, variables, _ = network('deep edsr')

  def full(*_: Any) -> None:
    raise MemoryError

  monkeypatch.setattr(planner.Planner, 'plan', full)
  with pytest.raises(InputError, match=r'150x130 .*memory'):
    Upscaler(generator, variables)(large)


@pytest.mark.parametrize('every', [25, pytest.param(5, marks=pytest.mark.slow)])
def test_fifty_sizes_need_six_compilations(network: Callable[[str], Network], every: int,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
  generator, variables, untiled = network('edsr luma')
  rng = np.random.default_rng(5)
  sizes = list({tuple(size) for size in rng.integers(24, 120, (60, 2)).tolist()})[:50]
  inputs = [rng.random((*size, 3), np.float32) for size in sizes]
  compiled = []
  monitoring.register_event_duration_secs_listener(
      lambda name, seconds, **_: compiled.append(name) if 'backend_compile' in name else None)
  upscale = Upscaler(generator, variables, sizes=sizes)
  compiled.clear()  # the operations on marks by which `locality` examined the network
  try:
    results = [upscale(lr) for lr in inputs]
  finally:
    monitoring.clear_event_listeners()
  assert 3 <= len(compiled) <= 6
  for lr, sr in list(zip(inputs, results, strict=True))[::every]:
    np.testing.assert_allclose(sr, untiled(lr), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(('name', 'size'), [
    ('unfolding', (3, 150)), *(pytest.param(name, size, marks=pytest.mark.slow) for name, size in
                               (('unfolding', (1, 1)), ('srcnn', (1, 1)), ('srcnn', (2, 70))))])
def test_the_smallest_and_the_narrowest_images(network: Callable[[str], Network], name: str,
                                               size: tuple[int, int]) -> None:
  generator, variables, untiled = network(name)
  lr = np.random.default_rng(6).random((*size, 3), np.float32)
  np.testing.assert_allclose(Upscaler(generator, variables, tile=16)(lr), untiled(lr),
                             rtol=0, atol=TOLERANCE)


def test_a_tiny_image_uses_no_shared_canvas(network: Callable[[str], Network]) -> None:
  """Windows may not be larger than the image, so it would make the windows of all images tiny."""
  generator, variables, untiled = network('edsr luma')
  sizes = [(1, 1), (60, 70), (70, 60), (64, 64), (40, 90), (3, 20)]
  upscale = Upscaler(generator, variables, sizes=sizes)
  assert min(upscale.planner.canvas_windows.values()) == 40
  for size in sizes[:2]:
    lr = np.random.default_rng(8).random((*size, 3), np.float32)
    np.testing.assert_allclose(upscale(lr), untiled(lr), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_dtypes_channels_and_batches(network: Callable[[str], Network], lr: np.ndarray) -> None:
  """Integers are clipped and rounded; a grey result is the mean over the network's channels."""
  generator, variables, untiled = network('edsr luma')
  upscale = Upscaler(generator, variables, tile=16)
  for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
    levels = np.round(lr * white).astype(dtype)
    exact = np.clip(untiled(np.float32(levels / white)), 0, 1) * white
    sr = upscale(levels)
    assert sr.dtype == dtype
    assert np.abs(sr - exact).max() < 0.5 + 0.01 * white / 255
    grey = upscale(levels[..., :1])
    rgb = np.float32(levels[..., :1] / white).repeat(3, -1)
    exact = np.clip(untiled(rgb).mean(-1, keepdims=True), 0, 1) * white
    assert grey.shape == (*sr.shape[:2], 1)
    assert np.abs(grey - exact).max() < 0.5 + 0.01 * white / 255
  both = np.stack([lr, lr[::-1]])
  np.testing.assert_allclose(upscale(both)[1], untiled(lr[::-1]), rtol=0, atol=TOLERANCE)


def test_bands_are_parts_from_the_top(network: Callable[[str], Network], large: np.ndarray) -> None:
  generator, variables, untiled = network('deep edsr')
  bands = list(Upscaler(generator, variables, tile=32).bands(large))
  assert len(bands) > 2
  np.testing.assert_allclose(np.concatenate(bands), untiled(large), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_a_published_network_in_tiles(assets: pathlib.Path) -> None:
  """RRDB with 23 blocks, whose trunk sees 347 pixels, also layer by layer in windows of 24."""
  model = restore.load(assets / 'rrdb23_x4_realsr_df2k.safetensors')
  lr = images.read_image(assets / 'Set5' / 'LRbicx4' / 'img_003.png')[:40, :36]
  want = np.asarray(jax.jit(model.generator.apply)(model.variables, images.to_float(lr)[None])[0])
  floats = images.to_float(lr)
  assert np.abs(model.upscaler(tile=16)(floats) - want).max() < 1e-4
  features = layerwise.trunk(model.generator, model.variables, floats[None], 24)
  sr = jax.jit(lambda *inputs: model.generator.apply(*inputs, method='tail'))(
      model.variables, features, floats[None])
  assert np.abs(np.asarray(sr)[0] - want).max() < 1e-4
