"""Prints bicubic's scores beside the published table, as Markdown.

  python tests/benchmarks/bicubic_table.py data/Set5 data/Set14

The scores are luma PSNR and SSIM of MATLAB's bicubic, for both LR and upscaling, border = scale.
"""

import functools
import pathlib
import sys

from sr_jax import images
from sr_jax.data.benchmarks import find_set, read_set
from sr_jax.errors import InputError
from sr_jax.metrics import scorer
from sr_jax.system import cli

# Values in papers since 2016, for instance EDSR (Lim et al. 2017), table 3.
PUBLISHED = {
    'Set5': {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)},
    'Set14': {2: (30.24, 0.8688), 3: (27.55, 0.7742), 4: (26.00, 0.7027)},
    'BSD100': {2: (29.56, 0.8431), 3: (27.21, 0.7385), 4: (25.96, 0.6675)},
    'Urban100': {2: (26.88, 0.8403), 3: (24.46, 0.7349), 4: (23.14, 0.6577)},
}


def main() -> None:
  """Runs the command line."""
  parser = cli.Parser('python tests/benchmarks/bicubic_table.py', __doc__)
  parser.add_argument('sets', nargs='+', help=f'folders named {", ".join(PUBLISHED)}')
  rows = ['| set | sr_jax | published | difference |', '|---|---|---|---|']
  for folder in map(pathlib.Path, parser.parse_args().sets):
    if folder.name not in PUBLISHED:
      raise InputError(f'{folder}: expected a folder named {", ".join(PUBLISHED)}')
    for scale, (psnr, ssim) in PUBLISHED[folder.name].items():
      mean = scorer.mean(scorer.score_set(
          read_set(find_set(str(folder), scale), scale),
          functools.partial(images.imresize, scale=scale), scorer.make_scorer(scale, 'none')))
      rows.append(f'| {folder.name} x{scale} | {mean["psnr_y"]:.3f} / {mean["ssim_y"]:.4f} '
                  f'| {psnr:.2f} / {ssim:.4f} '
                  f'| {mean["psnr_y"] - psnr:+.3f} / {mean["ssim_y"] - ssim:+.4f} |')
  print('\n'.join(rows))


if __name__ == '__main__':
  sys.exit(cli.run(main))
