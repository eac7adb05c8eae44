"""Bicubic by our protocol beside the published table, as Markdown.

  python tests/benchmarks/bicubic_table.py data/Set5 data/Set14

Figures are luma PSNR and SSIM of MATLAB's bicubic, LR and enlargement, border = scale.
"""

import pathlib
import sys

from sr_jax import images
from sr_jax.data.benchmarks import read_set
from sr_jax.errors import InputError
from sr_jax.metrics import scorer
from sr_jax.metrics.scorer import score_set
from sr_jax.system import cli

# As papers since 2016 print it, for instance EDSR (Lim et al. 2017), table 3.
PUBLISHED = {
    'Set5': {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)},
    'Set14': {2: (30.24, 0.8688), 3: (27.55, 0.7742), 4: (26.00, 0.7027)},
    'BSD100': {2: (29.56, 0.8431), 3: (27.21, 0.7385), 4: (25.96, 0.6675)},
    'Urban100': {2: (26.88, 0.8403), 3: (24.46, 0.7349), 4: (23.14, 0.6577)},
}


def main() -> None:
  parser = cli.Parser('python tests/benchmarks/bicubic_table.py', __doc__)
  parser.add_argument('sets', nargs='+', help=f'folders called {", ".join(PUBLISHED)}')
  rows = ['| set | ours | published | distance |', '|---|---|---|---|']
  for folder in map(pathlib.Path, parser.parse_args().sets):
    if folder.name not in PUBLISHED:
      raise InputError(f'{folder}: expected a folder called {", ".join(PUBLISHED)}')
    for scale, (psnr, ssim) in PUBLISHED[folder.name].items():
      found = scorer.mean(score_set(read_set(str(folder), scale),
                                   lambda lr, scale=scale: images.imresize(lr, scale),
                                   scorer.make_scorer(scale, 'none')))
      rows.append(f'| {folder.name} x{scale} | {found["psnr_y"]:.3f} / {found["ssim_y"]:.4f} '
                  f'| {psnr:.2f} / {ssim:.4f} '
                  f'| {found["psnr_y"] - psnr:+.3f} / {found["ssim_y"] - ssim:+.4f} |')
  print('\n'.join(rows))


if __name__ == '__main__':
  sys.exit(cli.run(main))
