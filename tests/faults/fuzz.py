"""Gives hostile files to everything that reads files; each has to be a value or one line.

  python tests/faults/fuzz.py
  python tests/faults/fuzz.py --kind pictures pth --count 200 --seed 7
  python tests/faults/fuzz.py --kind pictures --only 123 --keep /tmp/hostile

Files are made by seeded mutation of small valid ones, and read in a process of their own that
may take only so much memory. What is neither a value nor an InputError of one line that names
the file, or takes more than ten seconds, is a finding: it is printed, and the file kept.
"""

import argparse
import collections
import contextlib
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

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

SECONDS = 10  # for a file and a reader
START = 120  # for the imports
MEGABYTES = {'pictures': 5000}  # that a reader may take more than it began with; 25 a pixel
OTHERS = 1000


def make(kind: str, folder: pathlib.Path, seed: int, index: int) -> pathlib.Path:
  """Writes the hostile file `index` of a kind into the folder; what readers are given."""
  from tests.faults import clips, pictures, texts, weights
  from tests.faults.mutation import rng_of
  rng = rng_of(seed, kind, index)
  if kind == 'pictures':
    name, data = pictures.make(rng)
    found = {f'{name}.png': data}
  else:
    makers = {'safetensors': ('a.safetensors', weights.make_safetensors),
              'pth': ('a.pth', weights.make_pth), 'jsonl': ('metrics.jsonl', texts.make_jsonl),
              'csv': ('a.csv', texts.make_csv), 'clips': ('a.mp4', clips.make_clip),
              'ncnn': ('', weights.make_ncnn), 'configs': ('', texts.make_config),
              'packed': ('', clips.make_packed)}
    name, maker = makers[kind]
    found = {name: maker(rng)} if name else maker(rng)
  folder.mkdir(parents=True, exist_ok=True)
  for name, data in found.items():
    (folder / name).write_bytes(data)
  return folder / next(iter(found))


KINDS = ('pictures', 'safetensors', 'pth', 'ncnn', 'configs', 'jsonl', 'csv', 'packed', 'clips')


# The child -----------------------------------------------------------------------------------


def outcome(reader, path: pathlib.Path, named: bool = True) -> tuple[str, str]:
  """('read' or 'refused' or 'finding', what was said)."""
  from sr_jax.errors import InputError
  try:
    reader(path)
    return 'read', ''
  except InputError as error:
    said = str(error)
    known = any(name in said for name in (path.name, path.stem, str(path.parent)))
    wrong = ('a refusal of several lines' if '\n' in said or '\r' in said else
             f'a refusal of {len(said)} characters' if named and len(said) > 1000 else
             'a refusal that does not name the file' if named and not known else
             'no memory' if 'not enough memory' in said or said.endswith('()') else '')
    return ('finding', f'{wrong}: {said[:300]}') if wrong else ('refused', said)
  except BaseException as error:
    place = traceback.extract_tb(error.__traceback__)[-1]
    ours = [f'{pathlib.Path(frame.filename).name}:{frame.lineno}' for frame in
            traceback.extract_tb(error.__traceback__) if 'sr_jax' in frame.filename]
    return 'finding', (f'{type(error).__name__}: {str(error)[:200]!r} at {" ".join(ours[-4:])} '
                       f'({pathlib.Path(place.filename).name}:{place.lineno})')


def serve(kind: str, base: pathlib.Path, noise: pathlib.Path, limit: int, pipe) -> None:
  """Reads what comes through the pipe; (reader, outcome, words, seconds, megabytes, noise) back."""
  sys.stdout = open(os.devnull, 'w')  # noqa: SIM115, till the end
  from sr_jax.media import decoders
  from tests.faults import readers
  readers.alone(base / 'cache')
  os.chdir(base)  # what a pickle might make is found there
  found = readers.of_kind(kind, base)
  warnings.simplefilter('always')
  warnings.simplefilter('ignore', DeprecationWarning)
  decoders.quiet()
  os.dup2(os.open(noise, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
  size = _status('VmSize') + limit
  resource.setrlimit(resource.RLIMIT_AS, (size << 20, size << 20))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  pipe.send('ready')
  while path := pipe.recv():
    for name, reader in found.items():
      pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
      before, began, said = _status('VmRSS'), time.monotonic(), noise.stat().st_size
      result = outcome(reader, path, named=kind not in ('configs', 'packed'))
      seconds, peak = time.monotonic() - began, _status('VmHWM') - before
      if list(base.glob('broken_in')):
        result = 'finding', 'code in the file was run'
      loud = ''
      if noise.stat().st_size > said:
        with open(noise, 'rb') as file:
          file.seek(said)
          loud = file.read(2000).decode('utf-8', 'replace')
      pipe.send((name, *result, seconds, peak, loud))
    pipe.send(None)


def _status(field: str) -> int:
  """Megabytes."""
  text = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(rf'{field}:\s+(\d+)', text)[1]) >> 10


# The parent ----------------------------------------------------------------------------------


class Child:
  """A process that reads files; started anew when it hangs or dies."""

  def __init__(self, kind: str, base: pathlib.Path):
    self.kind, self.base, self.process = kind, base, None

  def start(self) -> None:
    context = multiprocessing.get_context('spawn')
    self.pipe, theirs = context.Pipe()
    limit = 2 * MEGABYTES.get(self.kind, OTHERS)
    self.process = context.Process(target=serve, daemon=True, args=(
        self.kind, self.base, self.base / 'noise', limit, theirs))
    self.process.start()
    theirs.close()
    if not self.pipe.poll(START) or self.pipe.recv() != 'ready':
      raise SystemExit(f'{self.kind}: the reading process does not start')

  def read(self, path) -> list[tuple]:
    """The outcomes of all readers, as far as one does not hang or die."""
    if self.process is None or not self.process.is_alive():
      self.start()
    results = []
    self.pipe.send(path)
    while True:
      if not self.pipe.poll(SECONDS):
        return [*results, self._lost(f'a hang of {SECONDS} s', results)]
      try:
        result = self.pipe.recv()
      except EOFError:
        self.process.join()
        return [*results, self._lost(f'the process died ({self.process.exitcode})', results)]
      if result is None:
        return results
      results.append(result)

  def _lost(self, words: str, results) -> tuple:
    self.end(hangs=True)
    return f'reader {len(results)}', 'finding', words, SECONDS, 0, ''

  def end(self, hangs: bool = False) -> None:
    if self.process:
      with contextlib.suppress(OSError):
        self.pipe.send(None)
      self.process.join(0 if hangs else 10)
      self.process.kill()
      self.process.join()
      self.process = None


def fuzz(kind: str, count: int, seed: int, keep: pathlib.Path, only: int | None = None) -> dict:
  """Figures of a kind; findings are printed as they come."""
  figures = collections.Counter()
  findings, loud, slowest, peak = {}, collections.Counter(), (0.0, ''), 0
  with tempfile.TemporaryDirectory() as folder:
    base = pathlib.Path(folder)
    child = Child(kind, base)
    for index in [only] if only is not None else range(count):
      place = base / kind / f'{index:05}'
      path = make(kind, place, seed, index)
      results = child.read(path)
      figures['files'] += 1
      kinds = {result[1] for result in results}
      figures['read' if 'read' in kinds else 'refused'] += 'finding' not in kinds
      wrong = []
      for name, result, words, seconds, megabytes, noise in results:
        slowest = max(slowest, (seconds, f'{name} of {index}'))
        peak = max(peak, megabytes)
        if megabytes > MEGABYTES.get(kind, OTHERS):
          wrong.append(f'{name}: {megabytes} MB')
        if result == 'finding':
          wrong.append(f'{name}: {words}')
        if only is not None:
          print(name, result, words, f'{seconds:.2f} s {megabytes} MB')
        if noise:
          loud[re.sub(r'[\d.]+', 'N', noise.splitlines()[0].replace(str(place), ''))[:120]] += 1
      if wrong:
        figures['findings'] += 1
        shutil.rmtree(keep / kind / place.name, ignore_errors=True)
        shutil.copytree(place, keep / kind / place.name, symlinks=True)
        cause = re.sub(r'[\d.]+', 'N', wrong[0].replace(str(place), ''))[:100]
        if cause not in findings:
          print(f'{kind} {index}: {"; ".join(wrong)[:700]}'.encode('ascii', 'replace').decode(),
                flush=True)
        findings[cause] = findings.get(cause, 0) + 1
      shutil.rmtree(place)
    child.end()
  for line, times in loud.most_common(5):
    print(f'{kind}: on stderr {times} times: {line}')
  return dict(figures) | {'kind': kind, 'slowest': slowest, 'peak': peak, 'causes': len(findings),
                          'noise': sum(loud.values())}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--count', type=int, default=1000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kind', nargs='+', choices=KINDS, default=KINDS)
  parser.add_argument('--only', type=int, help='the number of one file')
  parser.add_argument('--keep', type=pathlib.Path, help='for files that are findings')
  args = parser.parse_args()
  keep = args.keep or pathlib.Path(tempfile.mkdtemp(prefix='hostile-'))
  rows = []
  for kind in args.kind:
    with contextlib.suppress(KeyboardInterrupt):
      rows.append(fuzz(kind, args.count, args.seed, keep, args.only))
  print(f'\n{"kind":12}  files  refused   read  findings  slowest  peak memory  on stderr')
  for row in rows:
    files, refused, read, found = (row.get(key, 0) for key in (
        'files', 'refused', 'read', 'findings'))
    print(f'{row["kind"]:12}  {files:5}  {refused:7}  {read:5}  {found:8}  '
          f'{row["slowest"][0]:5.1f} s  {row["peak"]:8} MB  {row["noise"]:9}  {row["slowest"][1]}')
  found = sum(row.get('findings', 0) for row in rows)
  if found:
    print(f'{found} findings: {keep}')
  return 1 if found else 0


if __name__ == '__main__':
  sys.exit(main())
