"""The Gradio page: upscales images and shows each beside the input under a slider."""

import html
import os
import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sr_jax.app.batch import describe, keep_recent, upscale_all
from sr_jax.app.upscaling import Network, Result, parse_outscale, thumbnail, zip_files
from sr_jax.errors import InputError
from sr_jax.inference.upscale_file import Extras, FileOptions
from sr_jax.media import photos
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.system.text import format_bytes

if TYPE_CHECKING:
  import gradio

INSTALL_COMMAND = 'pip install "gradio>=6,<7"'
MAX_PIXELS = 25_000_000  # a photograph of 24 megapixels
MAX_FILES = 100  # in one upload
WAITING = 'Waiting for the images before.'
STOPPED = 'Stopped.'
FAILED = 'Upscaling failed. The terminal that runs this page shows the error.'
FORMATS_WITH_QUALITY = ('jpeg', 'webp')

# The labels of both sides of the slider are CSS content, because Gradio has no option for them.
CSS = """
.gradio-container {width: 100%; max-width: 1280px !important; margin: 0 auto}
#status p, #summary p, #progress p {margin: 0; overflow-wrap: anywhere}
#preview .icon-button-wrapper {display: none}
p.error {color: #b91c1c}
.dark p.error {color: #fca5a5}
#compare:not(:has(img)) {min-height: 320px}
#status:not(:has(p)), #summary:not(:has(p)), #progress:not(:has(p)) {display: none}
#compare .eta-bar {display: none}
#compare .content::before, #compare .content::after {
  position: absolute; bottom: 10px; z-index: 2; padding: 2px 10px; border-radius: 6px;
  background: #000a; color: #fff; font-size: 13px; pointer-events: none}
#compare .content::before {content: 'before: bicubic'; left: 10px}
#compare .content::after {content: 'after'; right: 10px}
"""


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


def paragraph(text: str | InputError) -> str:
  """Returns an HTML paragraph; the text, which may contain a visitor's file name, is escaped."""
  kind = 'error' if isinstance(text, InputError) else 'info'
  return f'<p class="{kind}" role="status">{html.escape(str(text))}</p>'


# The page ----------------------------------------------------------------------------


class Inputs(NamedTuple):
  """The components on the left, apart from the buttons."""

  upload: Any
  preview: Any
  status: Any
  network: Any
  outscale: Any
  format: Any
  quality: Any
  ensemble: Any


class Outputs(NamedTuple):
  """The components on the right, and both buttons."""

  slider: Any
  choice: Any
  progress: Any
  summary: Any
  files: Any
  download: Any
  results: Any
  button: Any
  stop: Any


def build_page(networks: dict[str, Network], folder: os.PathLike | str,
               max_pixels: int = MAX_PIXELS) -> 'gradio.Blocks':
  """Returns the page.

  Args:
    networks: by the names that the page shows.
    folder: for the results. Should be $GRADIO_TEMP_DIR; otherwise Gradio copies every result.
    max_pixels: a larger image is refused.
  """
  gr = import_gradio()
  with gr.Blocks(title='sr_jax', analytics_enabled=False) as blocks:
    gr.HTML('<h1>Upscale images</h1><p>Uploads and results are deleted from this server an hour '
            'after their last use.</p>')
    with gr.Row():
      with gr.Column(scale=1, min_width=300):
        inputs = _add_inputs(gr, networks, max_pixels)
        button = gr.Button('Upscale', variant='primary')
        stop = gr.Button('Stop', visible=False)
      with gr.Column(scale=2, min_width=300):
        outputs = Outputs(
            slider=gr.ImageSlider(show_label=False, format='png', interactive=False,
                                  buttons=['fullscreen'], elem_id='compare', max_height=600),
            choice=gr.Dropdown([], label='Shown', visible=False, elem_id='choice'),
            progress=gr.HTML(elem_id='progress', padding=False),
            summary=gr.HTML(elem_id='summary', padding=False),
            files=gr.File(label='Results', visible=False, interactive=False, file_count='multiple',
                          elem_id='results'),
            download=gr.DownloadButton('Download', visible=False, elem_id='download'),
            results=gr.State([]), button=button, stop=stop)
    _connect_inputs(gr, inputs, networks, max_pixels)
    _connect_outputs(gr, inputs, outputs, networks, (folder, max_pixels))
  return blocks.queue(api_open=False, max_size=32)


def _add_inputs(gr: types.ModuleType, networks: dict[str, Network], max_pixels: int) -> Inputs:
  """Adds what a visitor chooses."""
  choices = [(f'{name}: {PUBLISHED[name].suits}' if name in PUBLISHED else name, name)
             for name in networks]
  upload = gr.File(label=f'Images up to {max_pixels / 1e6:g} megapixels', height=190,
                   file_count='multiple')
  preview = gr.Image(visible=False, interactive=False, show_label=False, height=170, buttons=[],
                     elem_id='preview')
  status = gr.HTML(elem_id='status', padding=False)
  network = gr.Radio(choices, value=next(iter(networks)), label='Network')
  with gr.Row():
    outscale = gr.Textbox(label='Outscale', info='times the input', min_width=120, max_lines=1,
                          placeholder="the network's", elem_id='outscale')
    format = gr.Dropdown(list(photos.FORMATS), value='png', label='Format', info='of the results',
                         min_width=120, elem_id='format')
  quality = gr.Slider(1, 100, FileOptions.quality, step=1, label='Quality', visible=False,
                      elem_id='quality')
  ensemble = gr.Checkbox(label='Self-ensemble', info='Mean over 8 rotations and reflections: '
                         'slightly better, takes 8 times as long')
  return Inputs(upload, preview, status, network, outscale, format, quality, ensemble)


def _connect_inputs(gr: types.ModuleType, inputs: Inputs, networks: dict[str, Network],
                    max_pixels: int) -> None:
  """Shows sizes, times and errors of the uploaded files whenever a choice changes."""
  def describe_upload(paths: list[str] | None, network: str, outscale: str,
                      ensemble: bool) -> str:
    try:
      extras = Extras(ensemble, outscale=parse_outscale(outscale, networks[network].upscaler.scale))
    except InputError as error:
      return paragraph(error)
    lines = describe(_paths(paths), networks[network], extras, max_pixels)
    return ''.join(paragraph(line) for line in lines)

  def show_preview(paths: list[str] | None) -> dict:
    try:
      return gr.update(value=thumbnail(_paths(paths)[0], max_pixels), visible=True)
    except (IndexError, InputError):  # `describe_upload` shows the error
      return gr.update(value=None, visible=False)

  options: dict[str, Any] = {'api_visibility': 'private', 'show_progress': 'hidden', 'queue': False}
  for component in (inputs.upload, inputs.network, inputs.outscale, inputs.ensemble):
    component.change(describe_upload, [inputs.upload, inputs.network, inputs.outscale,
                                       inputs.ensemble], inputs.status, **options)
  inputs.upload.change(show_preview, inputs.upload, inputs.preview, **options)
  inputs.format.change(lambda format: gr.update(visible=format in FORMATS_WITH_QUALITY),
                       inputs.format, inputs.quality, **options)


def _connect_outputs(gr: types.ModuleType, inputs: Inputs, outputs: Outputs,
                     networks: dict[str, Network], limits: tuple[os.PathLike | str, int]) -> None:
  """Connects the buttons and the choice of the shown result; `limits` are (folder, max_pixels)."""
  folder, max_pixels = limits
  stopped = set()  # the sessions that were stopped, whose event then fails

  def begin(paths: list[str] | None, request: gr.Request) -> dict:
    stopped.discard(request.session_hash)
    keep_recent(_paths(paths))  # waiting in the queue may take long
    return {outputs.button: gr.update(interactive=False), outputs.stop: gr.update(visible=True),
            outputs.progress: paragraph(WAITING)}

  def upscale(paths: list[str] | None, name: str, outscale: str, format: str,
              quality: float, ensemble: bool) -> Iterator[dict]:
    yield _clear(gr, outputs)
    try:
      if not paths:
        raise InputError('No image yet: upload one first')
      if len(paths) > MAX_FILES:
        raise InputError(f'{len(paths)} files: the maximum is {MAX_FILES}')
      extras = Extras(ensemble, outscale=parse_outscale(outscale, networks[name].upscaler.scale))
      options = FileOptions(format, extras, int(quality), max_pixels)
      outcomes = []
      for line, outcomes in upscale_all(_paths(paths), networks[name], options, folder):
        yield _show(gr, outputs, line, outcomes)
      yield _show(gr, outputs, '', outcomes) | _end(gr, outputs) | {
          outputs.download: _offer_download(gr, outcomes)}
    except InputError as error:
      yield _end(gr, outputs, error)

  def stop(request: gr.Request) -> dict:
    stopped.add(request.session_hash)
    return _end(gr, outputs, STOPPED)

  def fail(request: gr.Request) -> dict:
    failed = request.session_hash not in stopped
    return _end(gr, outputs, InputError(FAILED)) if failed else _end(gr, outputs, STOPPED)

  options: dict[str, Any] = {'api_visibility': 'private', 'show_progress': 'hidden'}
  click = outputs.button.click(begin, inputs.upload,
                               [outputs.button, outputs.stop, outputs.progress], queue=False,
                               **options)
  click = click.then(upscale, [inputs.upload, inputs.network, inputs.outscale, inputs.format,
                               inputs.quality, inputs.ensemble], list(outputs),
                     concurrency_limit=1, **options)
  end = [outputs.button, outputs.stop, outputs.progress]
  click.failure(fail, None, end, queue=False, **options)
  outputs.stop.click(stop, None, end, queue=False, cancels=[click], **options)
  outputs.choice.input(lambda results, index: results[index].shown or None if results else None,
                        [outputs.results, outputs.choice], outputs.slider, queue=False, **options)


def _clear(gr: types.ModuleType, outputs: Outputs) -> dict:
  """Returns the updates that remove earlier results."""
  return {outputs.slider: None, outputs.summary: '', outputs.results: [],
          outputs.choice: gr.update(choices=[], value=None, visible=False),
          outputs.files: gr.update(value=None, visible=False),
          outputs.download: gr.update(value=None, visible=False)}


def _end(gr: types.ModuleType, outputs: Outputs, text: str | InputError = '') -> dict:
  """Returns the updates of the buttons and of the line of progress after the last image."""
  return {outputs.button: gr.update(interactive=True), outputs.stop: gr.update(visible=False),
          outputs.progress: text and paragraph(text)}


def _show(gr: types.ModuleType, outputs: Outputs, line: str,
          outcomes: Sequence[Result | InputError]) -> dict:
  """Returns the updates for the current state of `upscale_all`."""
  updates = {outputs.progress: line and paragraph(line)}
  if line:  # nothing else has changed since the last image was finished
    return updates
  results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
  updates |= {outputs.results: results, outputs.summary: ''.join(
      paragraph(outcome.summary if isinstance(outcome, Result) else outcome)
      for outcome in outcomes)}
  if results:
    choices = [(result.file.name, index) for index, result in enumerate(results)]
    updates |= {
        outputs.slider: results[-1].shown or None,
        outputs.choice: gr.update(choices=choices, value=len(results) - 1,
                                  visible=len(results) > 1),
        outputs.files: gr.update(value=[str(result.file) for result in results],
                                 visible=len(results) > 1)}
  return updates


def _offer_download(gr: types.ModuleType, outcomes: Sequence[Result | InputError]) -> dict:
  """Returns the update of the download button: one file, or a zip archive of several.

  Raises:
    InputError: the archive cannot be written.
  """
  files = [outcome.file for outcome in outcomes if isinstance(outcome, Result)]
  if not files:
    return gr.update(visible=False)
  file = files[0]
  if len(files) > 1:
    file = zip_files(files, file.parent / 'upscaled.zip')
  size = format_bytes(file.stat().st_size, 'MB') if file.stat().st_size > 10**6 else 'below 1 MB'
  return gr.update(label=f'Download {file.name} ({size})', value=file, visible=True)


def _paths(paths: Sequence[str] | None) -> list[pathlib.Path]:
  return [pathlib.Path(path) for path in paths or ()]
