"""The page of `app.py`: a picture goes in, before and after lie under a slider. Needs Gradio."""

import html
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
from PIL import Image

from sr_jax.errors import InputError
from sr_jax.inference.upscale_file import Extras, upscale_photo
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos

GRADIO = 'pip install "gradio>=6,<7"'
MAX_PIXELS = 4_000_000
SHOWN_PIXELS = 16_000_000  # of a result under the slider: a phone's browser holds two of them
WORKING = 'Working. The first picture of a network takes longer: it is compiled.'
FAILED = 'It failed; the terminal that runs this page says why.'

# What lies on the left and on the right of the slider is said on it.
CSS = """
.gradio-container {width: 100%; max-width: 1280px !important; margin: 0 auto}
#status p, #words p {margin: 0; overflow-wrap: anywhere}
#preview .icon-button-wrapper {display: none}
p.wrong {color: #b91c1c}
.dark p.wrong {color: #fca5a5}
#words p {text-align: center}
#compare:not(:has(img)) {min-height: 320px}
#status:not(:has(p)), #words:not(:has(p)) {display: none}
#compare .eta-bar {display: none}
#compare .content::before, #compare .content::after {
  position: absolute; bottom: 10px; z-index: 2; padding: 2px 10px; border-radius: 6px;
  background: #000a; color: #fff; font-size: 13px; pointer-events: none}
#compare .content::before {content: 'before: bicubic'; left: 10px}
#compare .content::after {content: 'after'; right: 10px}
"""


class Result(NamedTuple):
  """What is shown and given away: files of one size, and the PNG of full size."""

  before: pathlib.Path
  after: pathlib.Path
  file: pathlib.Path
  words: str


# A picture in, a larger one out ------------------------------------------------------


def read_picture(path: pathlib.Path, max_pixels: int) -> photos.Photo:
  """Of a picture file.

  Raises:
    InputError: no picture that can be read, or of more than `max_pixels`. It names the file
      without its folder, which means nothing to a visitor.
  """
  try:
    height, width = photos.size(path, max_pixels=sys.maxsize)
    if height * width > max_pixels:  # in words for one who can't lift the limit
      raise InputError(f'{path}: {width}x{height} is {height * width:,} pixels, at most '
                       f'{max_pixels:,} are taken')
    return photos.read(path, max_pixels)
  except InputError as error:
    as_said = str(InputError(path))  # without what a message has none of
    raise InputError(str(error).replace(as_said, path.name)) from None


def enlarge(upscaler: Upscaler, network: str, path: pathlib.Path, folder, *,
            ensemble: bool = False, max_pixels: int = MAX_PIXELS) -> Result:
  """The picture in the file `path`, `upscaler.scale` times larger, and bicubic beside it.

  Args:
    network: its name, for the words.
    folder: where a folder is made for the files.

  Raises:
    InputError: as `read_picture`; or it is too large for the memory.
  """
  lr = read_picture(path, max_pixels)
  began, told = time.monotonic(), len(upscaler.notes)
  try:
    sr = upscale_photo(upscaler, lr, Extras(ensemble=ensemble))
  except (MemoryError, InputError) as error:
    raise InputError(f'{path.name}: {str(error) or "too large for the memory"}') from None
  seconds = time.monotonic() - began
  folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
  file = folder / f'{path.stem}_x{upscaler.scale}.png'
  photos.write(file, sr, 'png')
  height, width = sr.samples.shape[:2]
  shrink = max(1, (height * width / SHOWN_PIXELS) ** 0.5)
  size = max(1, int(width / shrink)), max(1, int(height / shrink))
  before, after = folder / 'before.png', file if shrink == 1 else folder / 'after.png'
  _write_shown(before, lr, size)
  if after != file:
    _write_shown(after, sr, size)
  words = (f'{path.name}: {lr.samples.shape[1]}x{lr.samples.shape[0]} to {width}x{height} in '
           f'{seconds:.1f} s by {network}' + (', mean of eight' if ensemble else '')
           + ''.join(f'; {note}' for note in (lr.note, *upscaler.notes[told:]) if note)
           + (f'; shown at {size[0]}x{size[1]}' if after != file else ''))
  return Result(before, after, file, words)


def _write_shown(path, photo: photos.Photo, size: tuple[int, int]) -> None:
  """Of (width, height), by bicubic, as a PNG that is quick to write."""
  _picture(photo).resize(size, Image.Resampling.BICUBIC).save(path, compress_level=1)


def _picture(photo: photos.Photo) -> Image.Image:
  """In 8 bits, as a screen has them."""
  samples = [photo.samples] if photo.alpha is None else [photo.samples, photo.alpha]
  image = np.concatenate(samples, axis=-1)
  image = np.uint8(image >> 8) if image.dtype == np.uint16 else image
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


# The page ---------------------------------------------------------------------------


def import_gradio():
  """The module, which then asks nobody for its newest version and keeps no history.

  Raises:
    InputError: it is missing, or of another major version.
  """
  os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'GRADIO_RUN_HISTORY': 'False',
                 'HF_HUB_DISABLE_TELEMETRY': '1'}
  try:
    import gradio  # late: it is optional, and takes seconds
  except ImportError:
    raise InputError(f'the page needs Gradio, which is not installed: {GRADIO}') from None
  if not gradio.__version__.startswith('6.'):
    raise InputError(f'the page needs Gradio 6, installed is {gradio.__version__}: {GRADIO}')
  return gradio


def build_page(networks: dict[str, Upscaler], folder, max_pixels: int = MAX_PIXELS):
  """The page as gradio.Blocks, of networks by the name that is shown.

  Args:
    folder: for what is made; Gradio's own, $GRADIO_TEMP_DIR, or else it keeps copies.
  """
  gr = import_gradio()

  def describe(path, network):
    if not path:
      return gr.update(visible=False), ''
    try:
      lr = read_picture(pathlib.Path(path), max_pixels)
    except InputError as error:
      return gr.update(visible=False), _line(error, 'wrong')
    (height, width), scale = lr.samples.shape[:2], networks[network].scale
    thumbnail = _picture(lr)
    thumbnail.thumbnail((512, 512))
    return (gr.update(value=thumbnail, visible=True),
            _line(f'{width}x{height}, to be {width * scale}x{height * scale}'))

  def work(path, network, ensemble):
    if not path:
      return None, '', gr.update(visible=False), _line('No picture yet: drop one first', 'wrong')
    try:
      result = enlarge(networks[network], network, pathlib.Path(path), folder,
                       ensemble=ensemble, max_pixels=max_pixels)
    except InputError as error:
      return None, '', gr.update(visible=False), _line(error, 'wrong')
    return ((result.before, result.after), _line(result.words),
            gr.update(value=result.file, visible=True), gr.skip())

  with gr.Blocks(title='sr_jax', analytics_enabled=False) as blocks:
    gr.HTML('<h1>Make a picture larger</h1>'
            '<p>What you put in and what you get is deleted here after an hour.</p>')
    with gr.Row():
      with gr.Column(scale=1, min_width=300):
        picture = gr.File(label=f'Picture, up to {max_pixels / 1e6:g} million pixels', height=190)
        preview = gr.Image(visible=False, interactive=False, show_label=False, height=170,
                           buttons=[], elem_id='preview')
        status = gr.HTML(elem_id='status', padding=False)
        network = gr.Radio(list(networks), value=next(iter(networks)), label='Network')
        ensemble = gr.Checkbox(label='Self-ensemble', info='The mean of eight turns and '
                               'reflections: a little better, eight times as long')
        button = gr.Button('Enlarge', variant='primary')
      with gr.Column(scale=2, min_width=300):
        slider = gr.ImageSlider(show_label=False, format='png', interactive=False,
                                buttons=['fullscreen'], elem_id='compare', max_height=600)
        words = gr.HTML(elem_id='words', padding=False)
        download = gr.DownloadButton('Download PNG', visible=False, elem_id='download')
    for change in (picture.change, network.change):
      change(describe, [picture, network], [preview, status], api_visibility='private',
             show_progress='hidden', queue=False)
    # In the browser, at once; `work` waits in the queue and then takes its time.
    button.click(None, None, words, js=_says(WORKING), api_visibility='private')
    working = button.click(work, [picture, network, ensemble], [slider, words, download, status],
                           api_visibility='private', concurrency_limit=1, show_progress_on=slider)
    working.failure(None, None, words, js=_says(FAILED, 'wrong'), api_visibility='private')
  return blocks.queue(api_open=False, max_size=32)


def _line(text, kind: str = 'fine') -> str:
  """Escaped: a visitor chooses the name of a file."""
  return f'<p class="{kind}" role="status">{html.escape(str(text))}</p>'


def _says(text: str, kind: str = 'fine') -> str:
  """JavaScript that gives the line."""
  return f'() => {json.dumps(_line(text, kind))}'
