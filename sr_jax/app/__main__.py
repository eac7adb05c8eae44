"""A page that makes pictures larger: one goes in, before and after lie under a slider.

  python -m sr_jax.app --weights realesr-animevideov3-x2 realesrgan-x4plus
  python -m sr_jax.app --workdir runs/srgan runs/esrgan --step best --port 8080

Needs Gradio: pip install "gradio>=6,<7". The page is for this machine alone unless --host says
otherwise (0.0.0.0: all that can reach it), asks no other host for anything, and takes pictures
one after the other. What was put in and what was made is deleted after an hour and at the end.
"""

import contextlib
import os
import pathlib
import signal
import socket
import tempfile
import time

from sr_jax import restore
from sr_jax.app.interface import CSS, MAX_PIXELS, build_page, import_gradio
from sr_jax.errors import InputError
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import decoders
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.system import cli, compile_cache

KEPT_SECONDS = 3600  # what was put in and what was made


def serve(blocks, host: str, port: int, max_bytes: int) -> str:
  """Starts the page and gives its address."""
  gr = import_gradio()
  fonts = 'system-ui', 'sans-serif'  # a theme's own would be asked for at another host
  theme = gr.themes.Soft(font=fonts, font_mono=('ui-monospace', 'monospace'))
  _, address, _ = blocks.launch(
      server_name=f'[{host}]' if ':' in host and '[' not in host else host, server_port=port,
      prevent_thread_lock=True, quiet=True, share=False, inbrowser=False, ssr_mode=False,
      mcp_server=False, enable_monitoring=False, max_file_size=max_bytes, footer_links=[],
      theme=theme, css=CSS)
  return address


def load_networks(sources: list, **options) -> dict[str, Upscaler]:
  """Networks by the name that visitors see: a file's or a folder's own, if no other has it.

  Raises:
    InputError: one that can't be loaded, or is named twice.
  """
  networks = {}
  for source in sources:
    model = restore.load(source, **options)
    name = source if source in PUBLISHED else pathlib.Path(source).resolve().name
    name = str(source) if name in networks else name
    if name in networks:
      raise InputError(f'{source}: named twice')
    networks[name] = model.upscaler()
    print(f'{name}: x{model.scale}, {model.origin}', flush=True)
  return networks


def delete_old(folder, seconds: float = KEPT_SECONDS) -> None:
  """Deletes what lies below `folder` and was not written to for so long.

  Gradio's `delete_cache` leaves folders, empty files and uploads that were broken off.
  """
  for path in sorted(pathlib.Path(folder).rglob('*'), reverse=True):  # a folder after its files
    with contextlib.suppress(OSError):  # a folder that is not empty; a file that is gone
      if time.time() - path.stat().st_mtime > seconds:
        path.rmdir() if path.is_dir() else path.unlink()


def free_port(host: str, port: int) -> int:
  """`port`, if it can be had on `host`; of 0, one that can.

  Raises:
    InputError: it is taken, or no such host.
  """
  try:
    family, kind, _, _, address = socket.getaddrinfo(
        host.strip('[]'), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as found:
      found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      found.bind(address)
      return found.getsockname()[1]
  except OSError as error:
    raise InputError(f'{host}, port {port}: {error.strerror or error}') from None


def main(argv: list[str] | None = None) -> None:
  parser = cli.Parser('python -m sr_jax.app', __doc__)
  add = parser.add_argument
  network = parser.add_mutually_exclusive_group(required=True)
  network.add_argument('--workdir', nargs='+', type=cli.path, metavar='RUN')
  network.add_argument('--weights', nargs='+', metavar='FILE', help='weight files, or of '
                       + ', '.join(PUBLISHED))
  add('--step', default='latest', help="of runs: a number, 'latest' or 'best'")
  cli.add_file_options(parser)
  add('--host', default='127.0.0.1', help='where to listen (default: %(default)s)')
  add('--port', type=int, default=7860, help='0 takes any (default: %(default)s)')
  add('--max-pixels', type=int, default=MAX_PIXELS, metavar='N',
      help='the most that a picture may have (default: %(default)s)')
  args = parser.parse_args(argv)
  if args.max_pixels < 1:
    raise InputError(f'--max-pixels {args.max_pixels}: expected 1 or more')
  if not 0 <= args.port <= 65535:
    raise InputError(f'--port {args.port}: expected 0 to 65535')
  for workdir in args.workdir or ():
    if not workdir.is_dir():
      raise InputError(f'{workdir}: no run there')
  decoders.quiet()
  import_gradio()  # before networks are read, which takes longer
  port = free_port(args.host, args.port)
  compile_cache.use_cache()
  networks = load_networks(args.workdir or args.weights, step=args.step, wrapper=args.key,
                           fields=cli.parse_fields(args.set))
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C, tidily
  os.environ['NO_PROXY'] = os.environ['no_proxy'] = '*'  # no other host is asked for anything
  with tempfile.TemporaryDirectory(prefix='sr_jax-') as folder:
    os.environ['GRADIO_TEMP_DIR'] = tempfile.tempdir = folder  # of uploads, as they come
    blocks = build_page(networks, folder, args.max_pixels)
    try:
      # Eight bytes are a pixel of 16-bit RGBA; more is no picture that would be taken.
      address = serve(blocks, args.host, port, 8 * args.max_pixels + 2**20)
      print(f'{address} (Ctrl-C ends it)', flush=True)
      while True:
        time.sleep(60)
        delete_old(folder)
    finally:
      blocks.close(verbose=False)


if __name__ == '__main__':
  cli.leave(cli.run(main))
