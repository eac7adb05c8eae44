"""Whatever way a picture is cut, what comes out is what the network makes of the whole."""

import math
import re

import jax
import numpy as np
import pytest
from jax import monitoring

from sr_jax import images, restore
from sr_jax.errors import InputError
from sr_jax.inference import layerwise, strategies, tiles, upscaler
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models import EDSR, MSRRESNET, RRDB, SRCNN, SRRESNET, Compact, SRResNet
from tests.conftest import filled

# A convolution's result depends in its last bits on the shape it is compiled for.
EXACT = 2e-6

RRDB_1 = RRDB(4, 1, 2)
NETWORKS = {
    'rrdb': RRDB_1, 'unfolding': RRDB(4, 1, 2, scale=2, unshuffle=2),
    'unfolding by 4': RRDB(4, 1, 2, scale=1, unshuffle=4),
    'compact': Compact(4, 2), 'animevideov3-x2': Compact(4, 1, scale=2, inner_scale=4),
    'animevideov3-x3': Compact(4, 1, scale=3, inner_scale=4),
    'of one pixel': Compact(4, 1, scale=3, inner_scale=1),
    'srcnn': SRCNN((4, 3)), 'srcnn rgb': SRCNN((4, 3), scale=3, luma_only=False),
    'edsr': EDSR(4, 2, scale=2), 'edsr luma': EDSR(4, 1, scale=3, channels=1),
    'srresnet': SRRESNET(features=4, blocks=2), 'msrresnet': MSRRESNET(features=4, blocks=1),
    'transposed': SRResNet(4, 1, scale=3, upsample='transposed'),
    'direct': SRResNet(4, 1, scale=2, upsample='direct', kernel=3)}
# Sides that no folding divides; the second smaller than some windows.
CORE = ('unfolding', 'animevideov3-x3', 'msrresnet')
NAMES = [pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in NETWORKS]


@pytest.fixture(scope='module')
def network():
  """network(name) -> (generator, variables, whole), whole(lr) of float32 [h, w, C] by itself."""
  made = {}

  def make(name):
    if name not in made:
      generator = NETWORKS[name]
      variables = filled(generator, np.zeros((1, 12, 12, 3), np.float32))
      run = jax.jit(generator.apply)
      made[name] = generator, variables, lambda lr: np.asarray(run(variables, lr[None])[0])
    return made[name]

  return make


@pytest.fixture(scope='module')
def lr():
  return np.random.default_rng(3).random((41, 55, 3), np.float32)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('tile', [16, *(pytest.param(tile, marks=pytest.mark.slow)
                                        for tile in (None, 25))])
def test_tiles_leave_no_trace(network, lr, name, tile):
  generator, variables, whole = network(name)
  np.testing.assert_allclose(Upscaler(generator, variables, tile=tile)(lr), whole(lr),
                             rtol=0, atol=EXACT)


@pytest.mark.parametrize('name', NAMES)
def test_a_canvas_leaves_no_trace(network, name):
  generator, variables, whole = network(name)
  sizes = [(97, 113), (103, 119), (130, 160), (160, 120), (150, 150), (110, 160)]
  lr = np.random.default_rng(9).random((*sizes[0], 3), np.float32)
  upscale = Upscaler(generator, variables, sizes=sizes)
  plan = upscale._plan(lr[None], 1 << 40)
  unfold = getattr(generator, 'unshuffle', 1)
  assert math.prod(plan.canvas) > math.prod(-(-side // unfold) for side in lr.shape[:2])
  np.testing.assert_allclose(upscale(lr), whole(lr), rtol=0, atol=EXACT)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('way', ['windows', 'layers'])
def test_windows_and_layers_leave_no_trace(network, lr, name, way, monkeypatch):
  """Each is taken though the trunk would fit, with windows so small that there are many."""
  generator, variables, whole = network(name)
  upscale = Upscaler(generator, variables, tile=16)
  unfold = getattr(generator, 'unshuffle', 1)
  sides = [-(-side // unfold) for side in lr.shape[:2]]
  if way == 'windows':
    reach = upscale._trunk_reach + upscale._halo
    cut = tiles.Tiling(*(min(2 * reach + 9, side) for side in sides), reach)
    plan = strategies.TilingPlan(None, upscale._tail_window(lr[None], cut[:2], 1 << 40), cut)
  else:
    plan = strategies.TilingPlan(None, upscale._tail_window(lr[None], sides, 1 << 40), layer=9)
  monkeypatch.setattr(upscale, '_plan', lambda lr, budget: plan)
  np.testing.assert_allclose(upscale(lr), whole(lr), rtol=0, atol=EXACT)


@pytest.fixture(scope='module')
def large():
  return np.random.default_rng(4).random((130, 150, 3), np.float32)


def _trunk_bytes(generator, variables, lr):
  return CompiledParts(generator, variables).trunk(1, lr.shape[:2]).bytes


def test_the_memory_says_which_way(network, large):
  """Less and less: whole, in windows, by layers."""
  generator, variables, whole = network('rrdb')
  want, full = whole(large), _trunk_bytes(generator, variables, large)
  # The network sees 20 pixels, its RRDB 15: only where windows are small is the difference large.
  for share, way in ((1, 'canvas'), (1.4, 'cut'), (8, 'layer')):
    upscale = Upscaler(generator, variables, tile=16, memory=int(full / share))
    plan = upscale._plan(large[None], upscale._budget)
    assert [name for name in ('canvas', 'cut', 'layer') if getattr(plan, name)] == [way]
    np.testing.assert_allclose(upscale(large), want, rtol=0, atol=EXACT)
    assert upscale.notes == []


def test_what_is_not_exact_is_said_once_with_what_it_changes(network, large, monkeypatch):
  generator, variables, whole = network('rrdb')
  monkeypatch.setattr(upscaler, 'WORST', 1.2)
  memory = _trunk_bytes(generator, variables, large) // 8
  upscale = Upscaler(generator, variables, tile=16, memory=memory)
  worst = 255 * np.abs(upscale(large) - whole(large)).max()
  note, = upscale.notes
  found = re.search(r'an overlap of (\d+) of the 20 pixels .* up to ([\d.e-]+) levels of 255', note)
  assert found, note
  assert 0 < int(found[1]) < 20
  assert 0 < float(found[2]) <= 1.05 * worst
  upscale(large[:, ::-1])
  assert upscale.notes == [note]


def test_memory_holds_on_a_canvas_too(network, large):
  """A picture whose canvas does not fit runs in windows by itself."""
  generator, variables, whole = network('rrdb')
  memory = _trunk_bytes(generator, variables, large) // 2
  sizes = [(130, 150), (131, 149), (120, 160), (140, 140), (90, 100), (60, 70)]
  upscale = Upscaler(generator, variables, tile=16, memory=memory, sizes=sizes)
  assert upscale._plan(large[None], memory).canvas is None
  np.testing.assert_allclose(upscale(large), whole(large), rtol=0, atol=EXACT)


@pytest.mark.slow
def test_with_next_to_no_memory_it_is_said_and_not_raised(network):
  """Sizes at which windows have almost nothing but halo; each is done or refused in a line."""
  generator, variables, whole = network('rrdb')
  for size in ((1, 3), (36, 6)):
    lr = np.random.default_rng(7).random((*size, 3), np.float32)
    upscale = Upscaler(generator, variables, tile=16, memory=1 << 14)
    try:
      error = np.abs(upscale(lr) - whole(lr)).max()
    except InputError:
      continue
    assert upscale.notes or error < EXACT


@pytest.mark.parametrize(('kind', 'after'), [
    ('tail', 7), pytest.param('tail', 0, marks=pytest.mark.slow),
    pytest.param('trunk', 0, marks=pytest.mark.slow)])
def test_what_is_exhausted_is_halved_and_goes_on(network, large, kind, after, monkeypatch):
  """At once, and in the middle of the picture."""
  generator, variables, whole = network('rrdb')
  upscale = Upscaler(generator, variables, tile=32, memory=1 << 26)
  plain, sides, calls = CompiledParts._program, set(), [0]

  def program(self, key, run, *inputs):
    found = plain(self, key, run, *inputs)

    def exhausted(*arguments):
      if key[0] == kind:
        sides.add(key[2])
        calls[0] += 1
        if calls[0] > after and upscale._budget > 1 << 21:
          raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
      return found.run(*arguments)

    return found._replace(run=exhausted)

  monkeypatch.setattr(CompiledParts, '_program', program)
  rows = []
  sr = upscale(large, rows.append)
  np.testing.assert_allclose(sr, whole(large), rtol=0, atol=EXACT)
  assert sum(rows) == 130
  assert upscale._budget == 1 << 21
  assert len(sides) > 1  # smaller ones were made


def test_what_is_exhausted_for_ever_is_one_line(network, large, monkeypatch):
  generator, variables, _ = network('rrdb')

  def full(*_):
    raise MemoryError

  monkeypatch.setattr(Upscaler, '_plan', full)
  with pytest.raises(InputError, match='150x130 is too large for the memory, even in tiles'):
    Upscaler(generator, variables)(large)


@pytest.mark.parametrize('every', [25, pytest.param(1, marks=pytest.mark.slow)])
def test_fifty_sizes_are_six_compilations(network, every, monkeypatch):
  generator, variables, whole = network('edsr luma')
  rng = np.random.default_rng(5)
  sizes = list({tuple(size) for size in rng.integers(24, 120, (60, 2)).tolist()})[:50]
  pictures = [rng.random((*size, 3), np.float32) for size in sizes]
  compiled = []
  monitoring.register_event_duration_secs_listener(
      lambda name, seconds, **_: compiled.append(name) if 'backend_compile' in name else None)
  try:
    upscale = Upscaler(generator, variables, sizes=sizes)
    results = [upscale(each) for each in pictures]
  finally:
    monitoring.clear_event_listeners()
  assert 3 <= len(compiled) <= 6
  for lr, sr in list(zip(pictures, results, strict=True))[::every]:
    np.testing.assert_allclose(sr, whole(lr), rtol=0, atol=EXACT)


@pytest.mark.parametrize(('name', 'size'), [
    ('unfolding', (3, 150)), *(pytest.param(name, size, marks=pytest.mark.slow) for name, size in
                               (('unfolding', (1, 1)), ('srcnn', (1, 1)), ('srcnn', (2, 70))))])
def test_the_smallest_and_the_narrowest(network, name, size):
  generator, variables, whole = network(name)
  lr = np.random.default_rng(6).random((*size, 3), np.float32)
  np.testing.assert_allclose(Upscaler(generator, variables, tile=16)(lr), whole(lr),
                             rtol=0, atol=EXACT)


def test_a_tiny_picture_among_others_is_compiled_for_itself(network):
  """It would have no window that lies inside it, and theirs would become as small."""
  generator, variables, whole = network('edsr luma')
  sizes = [(1, 1), (60, 70), (70, 60), (64, 64), (40, 90), (3, 20)]
  upscale = Upscaler(generator, variables, sizes=sizes)
  assert min(upscale._windows.values()) == 40
  for size in sizes[:2]:
    lr = np.random.default_rng(8).random((*size, 3), np.float32)
    np.testing.assert_allclose(upscale(lr), whole(lr), rtol=0, atol=EXACT)


@pytest.mark.slow
def test_kinds_of_pictures(network, lr):
  """Integers are clipped and rounded to their levels; grey is the mean of what is made of it."""
  generator, variables, whole = network('edsr luma')
  upscale = Upscaler(generator, variables, tile=16)
  for kind, most in ((np.uint8, 255), (np.uint16, 65535)):
    levels = np.round(lr * most).astype(kind)
    exact = np.clip(whole(np.float32(levels / most)), 0, 1) * most
    sr = upscale(levels)
    assert sr.dtype == kind
    assert np.abs(sr - exact).max() < 0.5 + 0.01 * most / 255
    grey = upscale(levels[..., :1])
    exact = np.clip(whole(np.float32(levels[..., :1] / most).repeat(3, -1)).mean(-1, keepdims=True),
                    0, 1) * most
    assert grey.shape == (*sr.shape[:2], 1)
    assert np.abs(grey - exact).max() < 0.5 + 0.01 * most / 255
  both = np.stack([lr, lr[::-1]])
  np.testing.assert_allclose(upscale(both)[1], whole(lr[::-1]), rtol=0, atol=EXACT)


def test_bands_come_in_order_and_are_not_the_whole(network, large):
  generator, variables, whole = network('rrdb')
  bands = list(Upscaler(generator, variables, tile=32).bands(large))
  assert len(bands) > 2
  np.testing.assert_allclose(np.concatenate(bands), whole(large), rtol=0, atol=EXACT)


@pytest.mark.slow
def test_a_published_network_in_tiles(assets):
  """RRDB with 23 blocks, whose trunk sees 347 pixels: by layers in windows of 60 as a whole."""
  model = restore.load(assets / 'rrdb23_x4_realsr_df2k.safetensors')
  lr = images.read_image(assets / 'Set5' / 'LRbicx4' / 'img_003.png')
  want = np.asarray(jax.jit(model.generator.apply)(model.variables, images.to_float(lr)[None])[0])
  floats = images.to_float(lr)
  for tile in (16, 32):
    error = np.abs(model.upscaler(tile=tile)(floats) - want).max()
    assert error < 1e-4
  features = layerwise.trunk(model.generator, model.variables, floats[None], 60)
  sr = jax.jit(lambda *given: model.generator.apply(*given, method='tail'))(
      model.variables, features, floats[None])
  assert np.abs(np.asarray(sr)[0] - want).max() < 1e-4
