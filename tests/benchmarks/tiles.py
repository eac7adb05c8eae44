"""Compares tiled upscaling with untiled upscaling and with PyTorch: errors, time and memory.

  python -m tests.benchmarks.tiles errors --weights realesrgan-x4plus-anime Set5/LRbicx4
  python -m tests.benchmarks.tiles speed --weights realesr-animevideov3-x4 photo.jpg --size 510x339

`errors` prints the largest difference of float32 results to those of one untiled call, for tiles of
32, 64, 128 and none, and for simple tiles with an overlap of 16 pixels. `speed` prints the seconds
(the best of --repeat calls, after one that compiles) and the process's peak memory, of sr_jax and
of the same network in PyTorch (spandrel), each in a process of its own. Needs PyTorch and
spandrel.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from unittest import mock

import jax
import numpy as np

import sr_jax
from sr_jax import images
from sr_jax.data import folders
from sr_jax.pretrained import generators

TILES = (None, 128, 64, 32)


def simple_tiles(upscale: Callable[[np.ndarray], np.ndarray], lr: np.ndarray, scale: int,
                 tile: int, overlap: int = 16) -> np.ndarray:
  """Applies the entire network to overlapping tiles and crops the overlap, as other tools do."""
  height, width = lr.shape[:2]
  sr = np.empty((height * scale, width * scale, 3), np.float32)
  for y in range(0, height, tile):
    for x in range(0, width, tile):
      top, left = max(0, y - overlap), max(0, x - overlap)
      part = upscale(lr[top:y + tile + overlap, left:x + tile + overlap])
      inner = part[(y - top) * scale:(y - top + tile) * scale,
                   (x - left) * scale:(x - left + tile) * scale]
      sr[y * scale:y * scale + inner.shape[0], x * scale:x * scale + inner.shape[1]] = inner
  return sr


def read_images(paths: Sequence[pathlib.Path], size: str) -> dict[str, np.ndarray]:
  """Returns float32 [h, w, 3] by name, resized to 'WIDTHxHEIGHT' if `size` is not empty."""
  result = {}
  for path in paths:
    files = folders.images_by_name(path) if path.is_dir() else {path.name: path}
    for name, file in files.items():
      image = images.as_rgb(images.read_image(file))
      if size:
        width, height = (int(side) for side in size.split('x'))
        image = images.imresize(image, size=(height, width))
      result[f'{path.parent.name}/{name}' if path.is_dir() else name] = images.to_float(image)
  return result


def errors(args: argparse.Namespace) -> None:
  """Prints the errors of tiles."""
  model = sr_jax.load(args.weights)
  forward = jax.jit(model.generator.apply)

  def untiled(lr: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision('highest'):
      return np.asarray(forward(model.variables, lr[None])[0])

  worst = {}
  for name, lr in read_images(args.images, args.size).items():
    want, row = untiled(lr), []
    for tile in TILES:
      row.append(np.abs(model.upscaler(tile=tile)(lr) - want).max())
      worst[tile] = max(worst.get(tile, 0), row[-1])
    if not args.quick:
      simple = simple_tiles(untiled, lr, model.scale, 64)
      row.append(np.abs(np.clip(simple, 0, 1) - np.clip(want, 0, 1)).max())
      worst['simple'] = max(worst.get('simple', 0), row[-1])
    print(f'{name:24} {lr.shape[1]:4}x{lr.shape[0]:<4}', ' '.join(f'{each:.1e}' for each in row),
          flush=True)
  print(f'{args.weights}: largest errors by tile',
        {tile: f'{error:.1e}' for tile, error in worst.items()})


def speed(args: argparse.Namespace) -> None:
  """Prints the seconds and the memory of each implementation and tile."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'weights.safetensors')
    model = sr_jax.load(args.weights)
    generators.write_generator(path, 'basicsr', model.name, model.generator, model.variables)
    rows = {}
    for by, tile in args.only or [*(('jax', tile) for tile in TILES), ('torch', None),
                                  ('torch', 64)]:
      command = [sys.executable, '-m', 'tests.benchmarks.tiles', 'once', '--by', by, '--tile',
                 str(tile or 0), '--weights', args.weights if by == 'jax' else str(path),
                 '--size', args.size, '--repeat', str(args.repeat), *map(str, args.images)]
      rows[by, tile] = json.loads(subprocess.run(command, check=True, capture_output=True,
                                                 text=True).stdout.splitlines()[-1])
      row = rows[by, tile]
      print(f'{by:6} tile {tile or "none":5} {row["seconds"]:8.2f} s '
            f'{row["seconds"] / next(iter(rows.values()))["seconds"]:6.2f} times the first row, '
            f'first call {row["first"]:.1f} s, peak {row["peak"]:6.0f} MB, '
            f'{row["before"]:.0f} MB before the first call', flush=True)


def once(args: argparse.Namespace) -> None:
  """Measures one implementation in this process and prints the result as JSON."""
  (lr,) = read_images(args.images, args.size).values()
  if args.by == 'jax':
    upscale = sr_jax.load(args.weights).upscaler(tile=args.tile or None)
  else:
    import torch
    for name in ('', '.transforms', '.transforms.functional'):
      # spandrel imports it without using it, and a CUDA build fails with a CPU build of PyTorch.
      sys.modules[f'torchvision{name}'] = mock.MagicMock()
    import spandrel
    model = spandrel.ModelLoader().load_from_file(args.weights)

    def forward(part: np.ndarray) -> np.ndarray:
      with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))[None]
        return model.model(x)[0].numpy().transpose(1, 2, 0)

    def upscale(lr: np.ndarray) -> np.ndarray:
      return simple_tiles(forward, lr, model.scale, args.tile) if args.tile else forward(lr)

  before, times = _peak(), []
  for _ in range(args.repeat + 1):
    start = time.perf_counter()
    upscale(lr)
    times.append(time.perf_counter() - start)
  print(json.dumps({'first': times[0], 'seconds': min(times[1:] or times), 'before': before,
                    'peak': _peak()}))


def _peak() -> float:
  """Returns the peak memory of this process in MB (on Linux)."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('what', choices=('errors', 'speed', 'once'))
  parser.add_argument('images', nargs='+', type=pathlib.Path)
  parser.add_argument('--weights', required=True)
  parser.add_argument('--size', default='', help='WIDTHxHEIGHT to which the images are resized')
  parser.add_argument('--repeat', type=int, default=3,
                      help='number of timed calls; 0 times the call that compiles')
  parser.add_argument('--quick', action='store_true', help='skip the simple tiles')
  parser.add_argument('--only', nargs='*', help='measure these only, such as jax:128 torch:0')
  parser.add_argument('--by', choices=('jax', 'torch'))
  parser.add_argument('--tile', type=int, default=0)
  arguments = parser.parse_args()
  arguments.only = [(by, int(tile) or None) for by, tile in
                    (text.split(':') for text in arguments.only or ())]
  {'errors': errors, 'speed': speed, 'once': once}[arguments.what](arguments)
