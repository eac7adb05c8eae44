"""Gives hostile files to everything that reads files.

  python tests/faults/fuzz.py
  python tests/faults/fuzz.py --kind pictures pth --count 200 --seed 7
  python tests/faults/fuzz.py --kind pictures --only 123 --keep /tmp/hostile
  python tests/faults/fuzz.py --kind clips --container mxf

The files are seeded mutations of small valid files, and are read in a separate process with
limited memory. A reader must return a value or raise an InputError of one line that names the
file, within ten seconds. Anything else is a finding: it is printed, and the file is kept.
"""

import argparse
import collections
import contextlib
import importlib.util
import multiprocessing
import os
import pathlib
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

READ_SECONDS = 10  # limit for one file and one reader
START_SECONDS = 120  # limit for the imports of the reading process
# Limits in MB of memory that a reader may use beyond what the process has before it.
# 'pictures' are of all formats; the others are of one.
HEIF = ('heif',) if importlib.util.find_spec('pillow_heif') else ()
IMAGE_KINDS = ('pictures', 'jp2', 'jxl', 'avif', *HEIF)
# About 25 bytes per pixel of the largest image that is read.
MEGABYTES = dict.fromkeys(IMAGE_KINDS, 5000)
DEFAULT_MEGABYTES = 1000
KINDS = ('pictures', 'safetensors', 'pth', 'ncnn', 'configs', 'jsonl', 'csv', 'packed', 'clips',
         *IMAGE_KINDS[1:])
UNNAMED_KINDS = ('configs', 'packed')  # their messages name a key or a folder, not the file


def make(kind: str, folder: pathlib.Path, seed: int, index: int) -> pathlib.Path:
  """Writes hostile file number `index` of a kind into a folder; returns the path to read.

  The kind 'clips:mxf' is that of the clips in one container of `clips.CONTAINERS`.
  """
  from tests.faults import clips, pictures, texts, weights
  from tests.faults.mutation import rng_of
  rng = rng_of(seed, kind, index)
  kind, _, container = kind.partition(':')
  if kind in IMAGE_KINDS:
    name, data = pictures.make(rng, pictures.FAMILIES.get(kind, ()))
    contents = {f'{name}.png': data}
  else:
    makers = {'safetensors': ('a.safetensors', weights.make_safetensors),
              'pth': ('a.pth', weights.make_pth), 'jsonl': ('metrics.jsonl', texts.make_jsonl),
              'csv': ('a.csv', texts.make_csv),
              'clips': ('a.mp4', lambda rng: clips.make_video(rng, container)),
              'ncnn': ('', weights.make_ncnn), 'configs': ('', texts.make_config),
              'packed': ('', clips.make_packed)}
    name, maker = makers[kind]
    contents = {name: maker(rng)} if name else maker(rng)
  folder.mkdir(parents=True, exist_ok=True)
  for name, data in contents.items():
    (folder / name).write_bytes(data)
  return folder / next(iter(contents))


# The reading process -------------------------------------------------------------------------


class Result(NamedTuple):
  """What one reader did with one file."""

  reader: str
  outcome: str  # 'read', 'refused' or 'finding'
  message: str
  seconds: float
  megabytes: int  # peak memory beyond what the process had before
  stderr: str


def outcome(reader: Callable[[pathlib.Path], Any], path: pathlib.Path,
            named: bool = True) -> tuple[str, str]:
  """Returns ('read', 'refused' or 'finding', the message).

  Args:
    named: whether the message must be short and name the file.
  """
  from sr_jax.errors import InputError
  try:
    reader(path)
    return 'read', ''
  except InputError as error:
    message = str(error)
    names_file = any(name in message for name in (path.name, path.stem, str(path.parent)))
    fault = ('a refusal of several lines' if '\n' in message or '\r' in message else
             f'a refusal of {len(message)} characters' if named and len(message) > 1000 else
             'a refusal that does not name the file' if named and not names_file else
             'out of memory' if 'not enough memory' in message or message.endswith('()') else '')
    return ('finding', f'{fault}: {message[:300]}') if fault else ('refused', message)
  except BaseException as error:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f'{pathlib.Path(frame.filename).name}:{frame.lineno}' for frame in frames
            if 'sr_jax' in frame.filename]
    return 'finding', (f'{type(error).__name__}: {str(error)[:200]!r} at {" ".join(ours[-4:])} '
                       f'({pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno})')


def serve(kind: str, base: pathlib.Path, stderr: pathlib.Path, limit: int,
          pipe: Connection) -> None:
  """Reads files whose paths arrive through the pipe; sends a Result per reader, then None.

  Args:
    base: the working folder, for files that readers need and that hostile files may create.
    stderr: file to which stderr is redirected.
    limit: MB of address space beyond what the process has after its imports.
  """
  sys.stdout = open(os.devnull, 'w')  # noqa: SIM115, until the process ends
  from sr_jax.images import decoders
  from tests.faults import readers
  readers.isolate(base / 'cache')
  os.chdir(base)
  kind_readers = readers.of_kind(kind.partition(':')[0], base)
  warnings.simplefilter('always')
  warnings.simplefilter('ignore', DeprecationWarning)
  decoders.silence_libraries()
  os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
  size = _status_megabytes('VmSize') + limit
  resource.setrlimit(resource.RLIMIT_AS, (size << 20, size << 20))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  pipe.send('ready')
  while path := pipe.recv():
    for name, reader in kind_readers.items():
      pathlib.Path('/proc/self/clear_refs').write_text('5')  # resets the peak memory, VmHWM
      memory, started = _status_megabytes('VmRSS'), time.monotonic()
      stderr_size = stderr.stat().st_size
      result = outcome(reader, path, named=kind not in UNNAMED_KINDS)
      seconds, peak = time.monotonic() - started, _status_megabytes('VmHWM') - memory
      if list(base.glob('broken_in')):
        result = 'finding', 'code in the file was executed'
      printed = ''
      if stderr.stat().st_size > stderr_size:
        with open(stderr, 'rb') as file:
          file.seek(stderr_size)
          printed = file.read(2000).decode('utf-8', 'replace')
      pipe.send(Result(name, *result, seconds, peak, printed))
    pipe.send(None)


def _status_megabytes(field: str) -> int:
  text = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(rf'{field}:\s+(\d+)', text)[1]) >> 10


# The parent process --------------------------------------------------------------------------


class Child:
  """The reading process of a kind, restarted when it hangs or dies."""

  def __init__(self, kind: str, base: pathlib.Path) -> None:
    self.kind, self.base, self.process = kind, base, None

  def start(self) -> None:
    context = multiprocessing.get_context('spawn')
    self.pipe, child_pipe = context.Pipe()
    limit = 2 * MEGABYTES.get(self.kind, DEFAULT_MEGABYTES)
    self.process = context.Process(target=serve, daemon=True, args=(
        self.kind, self.base, self.base / 'noise', limit, child_pipe))
    self.process.start()
    child_pipe.close()
    if not self.pipe.poll(START_SECONDS) or self.pipe.recv() != 'ready':
      raise SystemExit(f'{self.kind}: the reading process does not start')

  def read(self, path: pathlib.Path) -> list[Result]:
    """Returns the results of all readers, up to one that hangs or kills the process."""
    if self.process is None or not self.process.is_alive():
      self.start()
    results = []
    self.pipe.send(path)
    while True:
      if not self.pipe.poll(READ_SECONDS):
        return [*results, self._lost(f'a hang of {READ_SECONDS} s', results)]
      try:
        result = self.pipe.recv()
      except EOFError:
        self.process.join()
        return [*results, self._lost(f'the process died ({self.process.exitcode})', results)]
      if result is None:
        return results
      results.append(result)

  def _lost(self, message: str, results: list[Result]) -> Result:
    self.end(hangs=True)
    return Result(f'reader {len(results)}', 'finding', message, READ_SECONDS, 0, '')

  def end(self, hangs: bool = False) -> None:
    if self.process:
      with contextlib.suppress(OSError):
        self.pipe.send(None)
      self.process.join(0 if hangs else 10)
      self.process.kill()
      self.process.join()
      self.process = None


def fuzz(kind: str, count: int, seed: int, keep: pathlib.Path,
         only: int | None = None) -> dict[str, Any]:
  """Reads `count` hostile files of a kind and prints findings as they occur.

  Args:
    keep: folder to which files with findings are copied.
    only: the number of the only file to read, with more output.

  Returns:
    Counts of 'files', 'read', 'refused', 'findings', their 'causes' and lines on stderr
    ('noise'); the 'kind', the 'slowest' (seconds, reader and file) and the 'peak' memory in MB.
  """
  counts = collections.Counter()
  causes, stderr_lines, slowest, peak = {}, collections.Counter(), (0.0, ''), 0
  with tempfile.TemporaryDirectory() as folder:
    base = pathlib.Path(folder)
    child = Child(kind, base)
    for index in [only] if only is not None else range(count):
      place = base / kind / f'{index:05}'
      results = child.read(make(kind, place, seed, index))
      outcomes = {result.outcome for result in results}
      counts['files'] += 1
      counts['read' if 'read' in outcomes else 'refused'] += 'finding' not in outcomes
      for result in results:
        slowest = max(slowest, (result.seconds, f'{result.reader} of {index}'))
        peak = max(peak, result.megabytes)
        if only is not None:
          print(result.reader, result.outcome, result.message,
                f'{result.seconds:.2f} s {result.megabytes} MB')
        if result.stderr:
          stderr_lines[_generalised(result.stderr.splitlines()[0], place)[:120]] += 1
      if findings := _findings(kind, results):
        counts['findings'] += 1
        shutil.rmtree(keep / kind / place.name, ignore_errors=True)
        shutil.copytree(place, keep / kind / place.name, symlinks=True)
        cause = _generalised(findings[0], place)[:100]
        if cause not in causes:
          line = f'{kind} {index}: {"; ".join(findings)[:700]}'
          print(line.encode('ascii', 'replace').decode(), flush=True)
        causes[cause] = causes.get(cause, 0) + 1
      shutil.rmtree(place)
    child.end()
  for line, times in stderr_lines.most_common(5):
    print(f'{kind}: printed on stderr {times} times: {line}')
  return dict(counts) | {'kind': kind, 'slowest': slowest, 'peak': peak, 'causes': len(causes),
                         'noise': sum(stderr_lines.values())}


def _findings(kind: str, results: list[Result]) -> list[str]:
  """Describes what was wrong about reading a file."""
  findings = []
  for result in results:
    if result.megabytes > MEGABYTES.get(kind, DEFAULT_MEGABYTES):
      findings.append(f'{result.reader}: {result.megabytes} MB')
    if result.outcome == 'finding':
      findings.append(f'{result.reader}: {result.message}')
  return findings


def _generalised(line: str, place: pathlib.Path) -> str:
  """Removes the file's path and all numbers, so that findings of one cause are equal."""
  return re.sub(r'[\d.]+', 'N', line.replace(str(place), ''))


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--count', type=int, default=1000, help='number of files of each kind')
  parser.add_argument('--seed', type=int, default=0, help='seed of the mutations')
  parser.add_argument('--kind', nargs='+', choices=KINDS, default=KINDS)
  parser.add_argument('--container', nargs='+', default=[],
                      help='for clips: suffixes such as mxf, each of which becomes a kind')
  parser.add_argument('--only', type=int, help='number of the only file to read')
  parser.add_argument('--keep', type=pathlib.Path, help='folder for files with findings')
  args = parser.parse_args()
  keep = args.keep or pathlib.Path(tempfile.mkdtemp(prefix='hostile-'))
  rows = []
  for kind in [f'clips:{suffix}' for suffix in args.container] or args.kind:
    with contextlib.suppress(KeyboardInterrupt):
      rows.append(fuzz(kind, args.count, args.seed, keep, args.only))
  if not args.keep:
    with contextlib.suppress(OSError):  # it has findings
      keep.rmdir()
  print(f'\n{"kind":12}  files  refused   read  findings  slowest  peak memory  on stderr')
  for row in rows:
    files, refused, read, findings = (row.get(key, 0) for key in (
        'files', 'refused', 'read', 'findings'))
    print(f'{row["kind"]:12}  {files:5}  {refused:7}  {read:5}  {findings:8}  '
          f'{row["slowest"][0]:5.1f} s  {row["peak"]:8} MB  {row["noise"]:9}  {row["slowest"][1]}')
  findings = sum(row.get('findings', 0) for row in rows)
  if findings:
    print(f'{findings} files with findings are in {keep}')
  return 1 if findings else 0


if __name__ == '__main__':
  sys.exit(main())
