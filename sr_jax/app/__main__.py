"""Serves a web page that upscales images and compares them with the input under a slider.

  sr-jax app --weights realesr-animevideov3-x2 realesrgan-x4plus
  sr-jax app --workdir runs/srgan runs/esrgan --step best --port 8080

Needs Gradio: pip install "gradio>=6,<7". The page can be opened on this machine only, unless --host
says otherwise (0.0.0.0: on every machine that can reach this one). It makes no requests to other
hosts and processes one image at a time; visitors wait for one another. Uploads and results are
deleted an hour after their last use, and when the server stops.
"""

import contextlib
import os
import pathlib
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from sr_jax import restore
from sr_jax.app.computation import approximate
from sr_jax.app.interface import CSS, MAX_PIXELS, build_page, import_gradio
from sr_jax.app.upscaling import Network
from sr_jax.errors import InputError
from sr_jax.images import decoders
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.system import cli, compile_cache
from sr_jax.system.memory import free_memory

if TYPE_CHECKING:
  import gradio

MAX_AGE_SECONDS = 3600  # of uploads and results
# On a CPU, so that parts of a large image take a minute or so: a stopped one ends after a part.
CPU_MEMORY = 2 * 2**30


def serve(blocks: 'gradio.Blocks', host: str, port: int, max_bytes: int) -> str:
  """Starts serving the page and returns its address; uploads above max_bytes are refused."""
  gr = import_gradio()
  fonts = 'system-ui', 'sans-serif'  # a theme's default fonts are requested from another host
  theme = gr.themes.Soft(font=fonts, font_mono=('ui-monospace', 'monospace'))
  _, address, _ = blocks.launch(
      server_name=f'[{host}]' if ':' in host and '[' not in host else host, server_port=port,
      prevent_thread_lock=True, quiet=True, share=False, inbrowser=False, ssr_mode=False,
      mcp_server=False, enable_monitoring=False, max_file_size=max_bytes, footer_links=[],
      theme=theme, css=CSS)
  return address


def load_networks(sources: Sequence[os.PathLike | str], **options: Any) -> dict[str, Network]:
  """Loads networks, measures their speed and returns them by the names that the page shows.

  Args:
    sources: as for `restore.load`. A network is named after its file or folder, or by its whole
      path if that name is in use.
    **options: of `restore.load`.

  Raises:
    InputError: a network cannot be loaded, or is given twice.
  """
  networks = {}
  for source in sources:
    model = restore.load(source, **options)
    name = source if source in PUBLISHED else pathlib.Path(source).resolve().name
    name = str(source) if name in networks else name
    if name in networks:
      raise InputError(f'{source}: given twice')
    networks[name] = Network(name, model.upscaler(memory=_memory()))
    networks[name].measure()
    seconds = networks[name].seconds_per_pixel * 1e6
    print(f'{name}: x{model.scale}, about {approximate(seconds)} for a megapixel, {model.origin}',
          flush=True)
  return networks


def _memory() -> int | None:
  """Returns the memory of a network's `Upscaler`."""
  device = jax.devices()[0]
  return min(CPU_MEMORY, int(0.8 * free_memory(device))) if device.platform == 'cpu' else None


def delete_old(folder: os.PathLike | str, seconds: float = MAX_AGE_SECONDS) -> None:
  """Deletes files and empty folders below `folder` that were last modified `seconds` ago.

  Gradio's `delete_cache` does not delete folders, empty files and incomplete uploads.
  """
  for path in sorted(pathlib.Path(folder).rglob('*'), reverse=True):  # files before their folder
    with contextlib.suppress(OSError):  # the folder is not empty, or the file no longer exists
      if time.time() - path.stat().st_mtime > seconds:
        path.rmdir() if path.is_dir() else path.unlink()


def free_port(host: str, port: int) -> int:
  """Returns `port` if it is free on `host`; if it is 0, a free port.

  Raises:
    InputError: the port is in use, or the host is unknown.
  """
  try:
    family, kind, _, _, address = socket.getaddrinfo(
        host.strip('[]'), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind(address)
      return probe.getsockname()[1]
  except OSError as error:
    raise InputError(f'{host}, port {port}: {error.strerror or error}') from None


def _parser() -> cli.Parser:
  parser = cli.Parser('sr-jax app', __doc__)
  add = parser.add_argument
  network = parser.add_mutually_exclusive_group(required=True)
  network.add_argument('--workdir', nargs='+', type=cli.path, metavar='RUN',
                       help='run folders')
  network.add_argument('--weights', nargs='+', metavar='FILE', help='weight files, or any of '
                       + ', '.join(f'{name} ({known.suits})' for name, known in PUBLISHED.items()))
  add('--step', default='latest',
      help="checkpoint of the runs: a step, 'latest' or 'best' (default: %(default)s)")
  cli.add_file_options(parser)
  add('--host', default='127.0.0.1', help='address to listen on (default: %(default)s)')
  add('--port', type=cli.number(int, 0, 65535), default=7860,
      help='port to listen on; 0 chooses a free one (default: %(default)s)')
  add('--max-pixels', type=cli.number(int, 1, 1 << 40), default=MAX_PIXELS, metavar='N',
      help=f'refuse images with more pixels (default: {MAX_PIXELS:,})')
  return parser


def main(argv: list[str] | None = None) -> None:
  """Runs the command line until it is interrupted."""
  args = _parser().parse_args(argv)
  for workdir in args.workdir or ():
    if not workdir.is_dir():
      raise InputError(f'--workdir {workdir}: no such run folder')
  decoders.silence_libraries()
  import_gradio()  # fails before networks are loaded, which takes longer
  port = free_port(args.host, args.port)
  compile_cache.use_cache()
  networks = load_networks(args.workdir or args.weights, step=args.step, wrapper=args.key,
                           fields=cli.parse_fields(args.set))
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # exits like Ctrl-C, with clean-up
  os.environ['NO_PROXY'] = os.environ['no_proxy'] = '*'  # for Gradio's request to itself
  with tempfile.TemporaryDirectory(prefix='sr_jax-') as folder:
    os.environ['GRADIO_TEMP_DIR'] = tempfile.tempdir = folder  # uploads are stored here too
    blocks = build_page(networks, folder, args.max_pixels)
    try:
      # A pixel of 16-bit RGBA has eight bytes; a larger file has more pixels than are accepted.
      address = serve(blocks, args.host, port, 8 * args.max_pixels + 2**20)
      print(f'{address} (press Ctrl-C to stop)', flush=True)
      while True:
        time.sleep(60)
        delete_old(folder)
    finally:
      blocks.close(verbose=False)


if __name__ == '__main__':
  cli.leave(cli.run(main))
