"""The Gradio page: upscales an image and shows it beside the input under a slider."""

import html
import json
import os
import pathlib
import sys
import tempfile
import time
import types
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from sr_jax.errors import InputError
from sr_jax.inference.upscale_file import Extras, upscale_photo
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos

if TYPE_CHECKING:
  import gradio

INSTALL_COMMAND = 'pip install "gradio>=6,<7"'
MAX_PIXELS = 4_000_000
MAX_SHOWN_PIXELS = 16_000_000  # of a result under the slider: phones hold two such images
WORKING = 'Working. The first image takes longer, because the network is compiled for its size.'
FAILED = 'Upscaling failed. The terminal that runs this page shows the error.'

# The labels of both sides of the slider are CSS content, because Gradio has no option for them.
CSS = """
.gradio-container {width: 100%; max-width: 1280px !important; margin: 0 auto}
#status p, #summary p {margin: 0; overflow-wrap: anywhere}
#preview .icon-button-wrapper {display: none}
p.error {color: #b91c1c}
.dark p.error {color: #fca5a5}
#summary p {text-align: center}
#compare:not(:has(img)) {min-height: 320px}
#status:not(:has(p)), #summary:not(:has(p)) {display: none}
#compare .eta-bar {display: none}
#compare .content::before, #compare .content::after {
  position: absolute; bottom: 10px; z-index: 2; padding: 2px 10px; border-radius: 6px;
  background: #000a; color: #fff; font-size: 13px; pointer-events: none}
#compare .content::before {content: 'before: bicubic'; left: 10px}
#compare .content::after {content: 'after'; right: 10px}
"""


class Result(NamedTuple):
  """An upscaled image: two files of one size for the slider, and the PNG of full size."""

  before: pathlib.Path
  after: pathlib.Path
  file: pathlib.Path
  summary: str


# Upscaling one image -----------------------------------------------------------------


def read_photo(path: pathlib.Path, max_pixels: int) -> photos.Photo:
  """Reads an image file.

  Raises:
    InputError: the file is no readable image or has more than `max_pixels` pixels. The message
      gives its name without the folder, which means nothing to a visitor.
  """
  try:
    height, width = photos.size(path, max_pixels=sys.maxsize)
    if height * width > max_pixels:  # not photos.read's message, which advises a flag
      raise InputError(f'{path}: {width}x{height} has {height * width:,} pixels, the maximum is '
                       f'{max_pixels:,}')
    return photos.read(path, max_pixels)
  except InputError as error:
    printed_path = str(InputError(path))  # as in the message, without control characters
    raise InputError(str(error).replace(printed_path, path.name)) from None


def upscale_image(upscaler: Upscaler, network: str, path: pathlib.Path,
                  folder: os.PathLike | str, *, ensemble: bool = False,
                  max_pixels: int = MAX_PIXELS) -> Result:
  """Upscales an image file with the network and, for comparison, with bicubic interpolation.

  Args:
    upscaler: the network.
    network: its name, for the summary.
    path: the image file.
    folder: the result's files are written to a new folder in it.
    ensemble: whether to use the self-ensemble.
    max_pixels: a larger image is refused.

  Raises:
    InputError: the image cannot be read, has too many pixels or does not fit in memory.
  """
  lr = read_photo(path, max_pixels)
  start, notes_before = time.monotonic(), len(upscaler.notes)
  try:
    sr = upscale_photo(upscaler, lr, Extras(ensemble=ensemble))
  except (MemoryError, InputError) as error:
    message = str(error) or 'the image does not fit in memory'
    raise InputError(f'{path.name}: {message}') from None
  seconds = time.monotonic() - start
  folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
  file = folder / f'{path.stem}_x{upscaler.scale}.png'
  photos.write(file, sr, 'png')
  height, width = sr.samples.shape[:2]
  shrink = max(1, (height * width / MAX_SHOWN_PIXELS) ** 0.5)
  size = max(1, int(width / shrink)), max(1, int(height / shrink))
  before, after = folder / 'before.png', file if shrink == 1 else folder / 'after.png'
  _write_shown(before, lr, size)
  if after != file:
    _write_shown(after, sr, size)
  summary = (f'{path.name}: {lr.samples.shape[1]}x{lr.samples.shape[0]} to {width}x{height} in '
             f'{seconds:.1f} s with {network}' + (', self-ensemble of 8' if ensemble else '')
             + ''.join(f'; {note}' for note in (lr.note, *upscaler.notes[notes_before:]) if note)
             + (f'; shown at {size[0]}x{size[1]}' if after != file else ''))
  return Result(before, after, file, summary)


def _write_shown(path: pathlib.Path, photo: photos.Photo, size: tuple[int, int]) -> None:
  """Writes the photo resized to (width, height) by bicubic, as a PNG with fast compression."""
  _to_pillow(photo).resize(size, Image.Resampling.BICUBIC).save(path, compress_level=1)


def _to_pillow(photo: photos.Photo) -> Image.Image:
  """Returns the photo in 8 bits, as a screen shows it."""
  samples = [photo.samples] if photo.alpha is None else [photo.samples, photo.alpha]
  image = np.concatenate(samples, axis=-1)
  image = np.uint8(image >> 8) if image.dtype == np.uint16 else image
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


# The page ----------------------------------------------------------------------------


def import_gradio() -> types.ModuleType:
  """Imports and returns Gradio, with its telemetry, version check and history disabled.

  Raises:
    InputError: Gradio is not installed, or is of another major version.
  """
  os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'GRADIO_RUN_HISTORY': 'False',
                 'HF_HUB_DISABLE_TELEMETRY': '1'}
  try:
    import gradio  # not at module level: it is optional, and importing it takes seconds
  except ImportError:
    raise InputError(f'the page needs Gradio, which is not installed: {INSTALL_COMMAND}') from None
  if not gradio.__version__.startswith('6.'):
    raise InputError(f'the page needs Gradio 6, but {gradio.__version__} is installed: '
                     f'{INSTALL_COMMAND}')
  return gradio


def build_page(networks: dict[str, Upscaler], folder: os.PathLike | str,
               max_pixels: int = MAX_PIXELS) -> 'gradio.Blocks':
  """Returns the page.

  Args:
    networks: by the names that the page shows.
    folder: for the results. Should be $GRADIO_TEMP_DIR; otherwise Gradio copies every result.
    max_pixels: a larger image is refused.
  """
  gr = import_gradio()

  def describe(path: str | None, network: str) -> tuple[dict, str]:
    """Returns the updates of the preview and of the status line."""
    if not path:
      return gr.update(visible=False), ''
    try:
      lr = read_photo(pathlib.Path(path), max_pixels)
    except InputError as error:
      return gr.update(visible=False), _line(error, 'error')
    (height, width), scale = lr.samples.shape[:2], networks[network].scale
    thumbnail = _to_pillow(lr)
    thumbnail.thumbnail((512, 512))
    return (gr.update(value=thumbnail, visible=True),
            _line(f'{width}x{height}, result {width * scale}x{height * scale}'))

  def upscale(path: str | None, network: str, ensemble: bool) -> tuple:
    """Returns the updates of the slider, the summary, the download button and the status line."""
    if not path:
      return None, '', gr.update(visible=False), _line('No image yet: upload one first', 'error')
    try:
      result = upscale_image(networks[network], network, pathlib.Path(path), folder,
                             ensemble=ensemble, max_pixels=max_pixels)
    except InputError as error:
      return None, '', gr.update(visible=False), _line(error, 'error')
    return ((result.before, result.after), _line(result.summary),
            gr.update(value=result.file, visible=True), gr.skip())

  with gr.Blocks(title='sr_jax', analytics_enabled=False) as blocks:
    gr.HTML('<h1>Upscale an image</h1>'
            '<p>Uploads and results are deleted from this server after an hour.</p>')
    with gr.Row():
      with gr.Column(scale=1, min_width=300):
        upload = gr.File(label=f'Image, up to {max_pixels / 1e6:g} million pixels', height=190)
        preview = gr.Image(visible=False, interactive=False, show_label=False, height=170,
                           buttons=[], elem_id='preview')
        status = gr.HTML(elem_id='status', padding=False)
        network = gr.Radio(list(networks), value=next(iter(networks)), label='Network')
        ensemble = gr.Checkbox(label='Self-ensemble', info='Mean over 8 rotations and '
                               'reflections: slightly better, takes 8 times as long')
        button = gr.Button('Upscale', variant='primary')
      with gr.Column(scale=2, min_width=300):
        slider = gr.ImageSlider(show_label=False, format='png', interactive=False,
                                buttons=['fullscreen'], elem_id='compare', max_height=600)
        summary = gr.HTML(elem_id='summary', padding=False)
        download = gr.DownloadButton('Download PNG', visible=False, elem_id='download')
    for change in (upload.change, network.change):
      change(describe, [upload, network], [preview, status], api_visibility='private',
             show_progress='hidden', queue=False)
    # Runs in the browser and so immediately, while `upscale` first waits in the queue.
    button.click(None, None, summary, js=_js_line(WORKING), api_visibility='private')
    click = button.click(upscale, [upload, network, ensemble], [slider, summary, download, status],
                         api_visibility='private', concurrency_limit=1, show_progress_on=slider)
    click.failure(None, None, summary, js=_js_line(FAILED, 'error'), api_visibility='private')
  return blocks.queue(api_open=False, max_size=32)


def _line(text: object, kind: str = 'info') -> str:
  """Returns an HTML paragraph; the text, which may contain a visitor's file name, is escaped."""
  return f'<p class="{kind}" role="status">{html.escape(str(text))}</p>'


def _js_line(text: str, kind: str = 'info') -> str:
  """Returns a JavaScript function that returns the paragraph."""
  return f'() => {json.dumps(_line(text, kind))}'
