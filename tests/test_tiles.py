"""Tests of the geometry of windows and canvases."""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import numpy as np
import pytest

from sr_jax.inference import planner, tiles
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.models import EDSR, MSRRESNET, RRDB, SPAN, SRCNN, Compact, SRResNet
from tests.conftest import filled


@pytest.mark.parametrize(('side', 'window', 'halo'), [
    (10, 10, 3), (3, 3, 5), (100, 20, 3), (101, 20, 0), (47, 46, 22), (64, 63, 1), (5, 1, 0)])
@pytest.mark.parametrize('fractions', [(0, 1), (0.3, 0.9)])
def test_exact_parts_of_windows_cover_each_pixel_once(side: int, window: int, halo: int,
                                                      fractions: tuple[float, float]) -> None:
  begin, end = (round(fraction * side) for fraction in fractions)
  spans = tiles.spans(side, window, halo, begin, end)
  assert [pixel for span in spans for pixel in range(span.begin, span.end)] == list(
      range(begin, end))
  for span in spans:
    assert 0 <= span.start <= side - window
    # Exact: each end of the window is an end of the side, or at least a halo away.
    assert span.start == 0 or span.begin - span.start >= halo
    assert span.start + window == side or span.start + window - span.end >= halo


@pytest.mark.parametrize('multiple', [1, 4, 7, 32])
@pytest.mark.parametrize('halo', [0, 1, 2, 16, 17])
def test_windows_on_a_grid(multiple: int, halo: int) -> None:
  """The smallest ones and larger ones, on axes that are multiples of the grid or not."""
  grid = tiles.Grid(multiple, halo)
  assert (grid.shortest, tiles.Grid(1, halo).shortest) == (
      multiple * math.ceil(2 * halo / multiple + 1), 2 * halo + 1)
  for side, wanted in itertools.product((3, 64, 113, 224), (1, 70)):
    window = grid.window(wanted, side)
    spans = tiles.spans(side, window, halo, multiple=multiple)
    assert [pixel for span in spans for pixel in range(span.begin, span.end)] == list(range(side))
    for span in spans:
      assert span.start % multiple == 0
      assert span.start == 0 or span.begin - span.start >= halo
      assert span.start + window >= side or (
          window % multiple == 0 and span.start + window - span.end >= halo)


def test_windows_without_an_exact_part_are_refused() -> None:
  with pytest.raises(ValueError, match=r'window of 6 .*halo of 3'):
    tiles.spans(10, 6, 3)


@pytest.mark.parametrize('side', [7, 38, 39, 70, 71, 339, 510])
def test_even_windows_are_as_few_and_as_small_as_possible(side: int) -> None:
  window = tiles.even_window(side, 32, 3)
  assert window <= min(side, 38)
  count = len(tiles.spans(side, window, 3))
  assert count == len(tiles.spans(side, min(side, 38), 3))
  if window < side:
    assert len(tiles.spans(side, window - 1, 3)) > count


NETWORKS = {
    'rrdb': RRDB(3, 1, 2), 'unfolding': RRDB(3, 1, 2, scale=2, unshuffle=2),
    'unfolding compact': Compact(3, 1, scale=1, unshuffle=2),
    'unfolding edsr': EDSR(3, 1, scale=1, unshuffle=2),
    'unfolding msrresnet': MSRRESNET(features=3, blocks=1, scale=1, unshuffle=2),
    'compact': Compact(3, 2), 'animevideov3': Compact(3, 1, scale=3, inner_scale=4),
    'inner scale 1': Compact(3, 1, scale=2, inner_scale=1), 'span': SPAN(3, 1),
    'srcnn': SRCNN((3, 2)), 'luma': EDSR(3, 1, scale=2, channels=1),
    'srresnet': SRResNet(3, 1, output='linear'), 'msrresnet': MSRRESNET(features=3, blocks=1),
    'transposed': SRResNet(3, 1, scale=3, upsample='transposed', output='linear')}


@pytest.mark.parametrize('name', NETWORKS)
def test_reach_bounds_what_a_pixel_changes(name: str) -> None:
  """One pixel is changed. The features and pixels of SR that change lie within the reach, and
  extend to at least two thirds of it: a reach that is too long costs time.
  """
  network, side, at = NETWORKS[name], 48, 24
  variables = filled(network, np.zeros((1, 12, 12, 3), np.float32))
  found = planner.Planner(CompiledParts(network, variables))
  trunk, tail = found.trunk_reach, found.tail_reach
  # With positive kernels and biases, ReLUs pass all changes and no two changes cancel.
  variables = jax.tree.map(lambda x: np.abs(x) + 0.01, variables)
  lr = np.random.default_rng(0).random((1, side, side, 3), np.float32)
  other = lr.copy()
  other[:, at, at] += 0.5
  run = jax.jit(functools.partial(network.apply, method='trunk'))
  before, after = (np.asarray(run(variables, x)) for x in (lr, other))
  unfold = side // before.shape[1]
  seen = _distance(before, after, at // unfold)
  assert seen <= trunk <= max(1.5 * seen, seen + 2)
  finish = jax.jit(functools.partial(network.apply, method='tail'))
  changed = before.copy()
  changed[:, at // unfold, at // unfold] += 0.5
  features = (before, changed) if trunk else (lr, other)
  sr = [np.asarray(finish(variables, x, lr)) for x in features]
  seen = math.ceil(_distance(*sr, at * network.scale, size=network.scale * unfold)
                   / (network.scale * unfold))
  assert seen <= tail <= 2 * seen + 2


def _distance(before: np.ndarray, after: np.ndarray, at: int, size: int = 1) -> int:
  """Returns the distance from the block of pixels at `at` to the furthest changed row or column."""
  changed = np.abs(before - after).max((0, 3)) > 0
  assert changed.any()
  rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
  return max(max(at - index.min(), index.max() - (at + size - 1)) for index in (rows, columns))


def test_canvases_fit_all_images_with_little_waste() -> None:
  rng = np.random.default_rng(1)
  sizes = [tuple(size) for size in rng.integers(20, 200, (50, 2)).tolist()]
  canvases = tiles.canvases(sizes, 5)
  assert len(canvases) == 5
  areas = [math.prod(tiles.canvas_of(size, canvases)) for size in sizes]
  assert all(area >= math.prod(size) for area, size in zip(areas, sizes, strict=True))
  one_canvas = 50 * max(height for height, _ in sizes) * max(width for _, width in sizes)
  assert sum(areas) < 0.62 * one_canvas
  assert tiles.canvas_of((201, 10), canvases) is None


def test_few_sizes_have_one_canvas_each() -> None:
  sizes = [(30, 40)] * 9 + [(40, 30), (7, 7)]
  assert tiles.canvases(sizes, 3) == [(7, 7), (30, 40), (40, 30)]


def test_a_frequent_size_keeps_its_canvas() -> None:
  """A few larger images do not enlarge the canvas of a thousand images."""
  canvases = tiles.canvases([(30, 40)] * 1000 + [(50, 50), (52, 60), (33, 44)], 2)
  assert canvases[0] == (30, 40)


def test_thousands_of_sizes_are_grouped_quickly() -> None:
  rng = np.random.default_rng(2)
  sizes = [tuple(size) for size in rng.integers(20, 4000, (5000, 2)).tolist()]
  canvases = tiles.canvases(sizes, 5)
  assert len(canvases) == 5
  assert all(tiles.canvas_of(size, canvases) for size in sizes)


def test_an_ensemble_is_the_mean_of_eight(picture: Callable) -> None:
  lr = np.float32(picture(6, 9)) / 255
  kernel = np.arange(9, dtype=np.float32).reshape(3, 3) / 36  # without any symmetry

  def upscale(x: np.ndarray) -> np.ndarray:
    return np.stack([np.kron(x[..., c], kernel) for c in range(3)], axis=-1)

  # Rotating the image and the result back rotates the kernel: the mean over the eight remains.
  turned = [np.rot90(each, k) for k in range(4) for each in (kernel, kernel.T)]
  want = np.stack([np.kron(lr[..., c], np.mean(turned, axis=0)) for c in range(3)], axis=-1)
  np.testing.assert_allclose(tiles.ensemble(upscale, lr), want, atol=1e-6)
