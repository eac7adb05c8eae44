"""Tiles beside the whole picture and beside PyTorch: what they change, take and need.

  python -m tests.benchmarks.tiles errors --weights realesrgan-x4plus-anime Set5/LRbicx4
  python -m tests.benchmarks.tiles speed --weights realesr-animevideov3-x4 photo.jpg --size 510x339

`errors`: the largest difference of float32 pictures to those of one untiled call, for tiles of 32,
64, 128 and none, and for the usual tiles with an overlap of 16. `speed`: seconds (the best of
--repeat, after one that compiles) and the peak of the process's memory, ours and the same network's
in PyTorch (spandrel), each in a process of its own. Needs PyTorch and spandrel.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from unittest import mock

import jax
import numpy as np

import sr_jax
from sr_jax import images
from sr_jax.data import folders
from sr_jax.pretrained import generators

TILES = (None, 128, 64, 32)


def usual_tiles(upscale, lr: np.ndarray, scale: int, tile: int, overlap: int = 16) -> np.ndarray:
  """As other tools do: the whole network on tiles that overlap, the overlap cut off."""
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


def pictures(paths, size: str) -> dict[str, np.ndarray]:
  """float32 [h, w, 3] by name, resized to 'WIDTHxHEIGHT' if that is given."""
  found = {}
  for path in paths:
    for name, file in (folders.images_by_name(path).items() if path.is_dir() else [(path.name, path)]):
      image = images.as_rgb(images.read_image(file))
      if size:
        width, height = (int(side) for side in size.split('x'))
        image = images.imresize(image, size=(height, width))
      found[f'{path.parent.name}/{name}' if path.is_dir() else name] = images.to_float(image)
  return found


def errors(args) -> None:
  model = sr_jax.load(args.weights)
  forward = jax.jit(model.generator.apply)

  def whole(lr):
    with jax.default_matmul_precision('highest'):
      return np.asarray(forward(model.variables, lr[None])[0])

  worst = {}
  for name, lr in pictures(args.pictures, args.size).items():
    want, row = whole(lr), []
    for tile in TILES:
      row.append(np.abs(model.upscaler(tile=tile)(lr) - want).max())
      worst[tile] = max(worst.get(tile, 0), row[-1])
    if not args.quick:
      usual = usual_tiles(whole, lr, model.scale, 64)
      row.append(np.abs(np.clip(usual, 0, 1) - np.clip(want, 0, 1)).max())
      worst['usual'] = max(worst.get('usual', 0), row[-1])
    print(f'{name:24} {lr.shape[1]:4}x{lr.shape[0]:<4}', ' '.join(f'{each:.1e}' for each in row),
          flush=True)
  print(f'{args.weights}: the largest of', {tile: f'{each:.1e}' for tile, each in worst.items()})


def speed(args) -> None:
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'weights.safetensors')
    model = sr_jax.load(args.weights)
    generators.write_generator(path, 'basicsr', model.name, model.generator, model.variables)
    rows = {}
    for by, tile in args.only or [*(('jax', tile) for tile in TILES), ('torch', None),
                                  ('torch', 64)]:
      command = [sys.executable, '-m', 'tests.benchmarks.tiles', 'once', '--by', by, '--tile',
                 str(tile or 0), '--weights', args.weights if by == 'jax' else str(path),
                 '--size', args.size, '--repeat', str(args.repeat), *map(str, args.pictures)]
      rows[by, tile] = json.loads(subprocess.run(command, check=True, capture_output=True,
                                                 text=True).stdout.splitlines()[-1])
      found = rows[by, tile]
      print(f'{by:6} tile {tile or "none":5} {found["seconds"]:8.2f} s '
            f'{found["seconds"] / next(iter(rows.values()))["seconds"]:6.2f} times the first way, '
            f'at first {found["first"]:.1f} s, {found["peak"]:6.0f} MB, '
            f'{found["before"]:.0f} MB of them before', flush=True)


def once(args) -> None:
  (lr,) = pictures(args.pictures, args.size).values()
  if args.by == 'jax':
    upscale = sr_jax.load(args.weights).upscaler(tile=args.tile or None)
  else:
    import torch
    for name in ('', '.transforms', '.transforms.functional'):
      # Not used, and one made for CUDA can't be loaded beside a CPU build of PyTorch.
      sys.modules[f'torchvision{name}'] = mock.MagicMock()
    import spandrel
    model = spandrel.ModelLoader().load_from_file(args.weights)

    def forward(part):
      with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))[None]
        return model.model(x)[0].numpy().transpose(1, 2, 0)

    def upscale(lr):
      return usual_tiles(forward, lr, model.scale, args.tile) if args.tile else forward(lr)

  before, times = _peak(), []
  for _ in range(args.repeat + 1):
    start = time.perf_counter()
    upscale(lr)
    times.append(time.perf_counter() - start)
  print(json.dumps({'first': times[0], 'seconds': min(times[1:] or times), 'before': before,
                    'peak': _peak()}))


def _peak() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB, on Linux


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('what', choices=('errors', 'speed', 'once'))
  parser.add_argument('pictures', nargs='+', type=pathlib.Path)
  parser.add_argument('--weights', required=True)
  parser.add_argument('--size', default='', help='WIDTHxHEIGHT that they are resized to')
  parser.add_argument('--repeat', type=int, default=3, help='0 times what compiles too')
  parser.add_argument('--quick', action='store_true', help='leaves the usual tiles out')
  parser.add_argument('--only', nargs='*', help='of speed, such as jax:128 torch:0')
  parser.add_argument('--by', choices=('jax', 'torch'))
  parser.add_argument('--tile', type=int, default=0)
  arguments = parser.parse_args()
  arguments.only = [(by, int(tile) or None) for by, tile in
                    (way.split(':') for way in arguments.only or ())]
  {'errors': errors, 'speed': speed, 'once': once}[arguments.what](arguments)
