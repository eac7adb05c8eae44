"""Traces of jax.profiler: recorded, their rows named, the device's idle time read from them.

A folder of them opens in TensorBoard with the plugin XProf (plugins/profile/TIME/*.xplane.pb),
`perfetto_trace.json.gz` in ui.perfetto.dev.
"""

import gzip
import json
import pathlib
import re
from collections.abc import Callable

import jax

# The threads of a device on which its operations lie, by NVIDIA's and by Google's tracer; the
# others of it say the same in other words.
ROWS = 'Stream', 'XLA Ops'


def record(folder, work: Callable[[], None]) -> pathlib.Path:
  """The perfetto_trace.json.gz of `work()`, below folder."""
  with jax.profiler.trace(str(folder), create_perfetto_trace=True):
    work()
  return max(pathlib.Path(folder).rglob('perfetto_trace.json.gz'))


def read(path) -> list[dict]:
  """The events of a trace."""
  with gzip.open(path, 'rt', encoding='utf-8') as file:
    return json.load(file)['traceEvents']


def scopes(program: str) -> dict[str, str]:
  """{operation: where in the code it is from} of a compiled program's text.

  'jit(one_step)/transpose(jvp(generator))/SRResNet/...' is 'generator backward/SRResNet/...',
  and so it is in the device's loop, 'jit(train_steps)/while/body/...'.
  """
  found = re.findall(r'^ *(?:ROOT )?%?([\w.-]+) = .*?op_name="([^"]+)"', program, re.MULTILINE)
  return {name: _plain(scope) for name, scope in found}


def _plain(scope: str) -> str:
  for pattern, words in ((r'^jit\(\w+\)/(?:while/body/(?:closed_call/)?)?', ''),
                         (r'transpose\(jvp\((\w+)\)\)', r'\1 backward'),
                         (r'jvp\((\w+)\)', r'\1 forward')):
    scope = re.sub(pattern, words, scope)
  return scope


def name_rows(path, named: dict[str, str]) -> None:
  """Puts before each operation of a trace what it is part of: 'generator/...: fusion.3'."""
  events = read(path)
  for event in events:
    scope = named.get((event.get('args') or {}).get('hlo_op'))
    if scope:
      event['name'] = f'{scope}: {event["name"]}'
  with gzip.open(path, 'wt', encoding='utf-8') as file:
    json.dump({'displayTimeUnit': 'ns', 'traceEvents': events}, file)


def idle_share(events: list[dict]) -> float | None:
  """The share of the time from its first operation to its last in which a device runs none.

  Operations of all streams of a device count; of several devices it is the mean. None where
  a trace has no device, as on a CPU.
  """
  named = {(event['name'], event['pid'], event.get('tid')): event['args']['name']
           for event in events if event.get('ph') == 'M' and 'name' in event.get('args', {})}
  devices = {pid for (kind, pid, _), name in named.items()
             if kind == 'process_name' and name.startswith('/device:')}
  shares = []
  for device in devices:
    spans = sorted((event['ts'], event['ts'] + event['dur']) for event in events
                   if event.get('ph') == 'X' and event['pid'] == device
                   and named.get(('thread_name', device, event.get('tid')), '').startswith(ROWS))
    if spans:
      busy, until = 0.0, spans[0][0]
      for begin, end in spans:
        busy += max(end - max(begin, until), 0.0)
        until = max(until, end)
      shares.append(1 - busy / (until - spans[0][0]))
  return sum(shares) / len(shares) if shares else None


def operations(program: str) -> int:
  """How many operations a compiled program starts: what its entry has but names of values."""
  entry = program[program.index('ENTRY '):]
  names = r'(?:parameter|constant|tuple|get-tuple-element|bitcast)\('
  return sum(' = ' in line and not re.search(rf' {names}', line) for line in entry.splitlines())
