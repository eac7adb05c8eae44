"""Records traces of jax.profiler, names their operations and reads the device's idle time.

TensorBoard with the XProf plugin opens a folder of traces (plugins/profile/TIME/*.xplane.pb);
ui.perfetto.dev opens `perfetto_trace.json.gz`.
"""

import gzip
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from sr_jax.profiling import hlo

# Prefixes of the device's threads that contain operations, for the tracers of NVIDIA and of Google.
# Other threads of the device repeat the same time spans under other names.
OPERATION_THREADS = 'Stream', 'XLA Ops'

Event = dict[str, Any]


def record(folder: os.PathLike | str, work: Callable[[], Any]) -> pathlib.Path:
  """Traces `work()` and returns the path of the perfetto_trace.json.gz, which is below `folder`."""
  with jax.profiler.trace(str(folder), create_perfetto_trace=True):
    work()
  return max(pathlib.Path(folder).rglob('perfetto_trace.json.gz'))


def read(path: os.PathLike | str) -> list[Event]:
  """Returns the events of a trace."""
  with gzip.open(path, 'rt', encoding='utf-8') as file:
    return json.load(file)['traceEvents']


def scopes(program: str) -> dict[str, str]:
  """Returns {operation: its scope in the code} from the text of a compiled program.

  The scopes are those of `hlo.readable_scope`.
  """
  found = re.findall(r'^ *(?:ROOT )?%?([\w.-]+) = .*?op_name="([^"]+)"', program, re.MULTILINE)
  return {name: hlo.readable_scope(scope) for name, scope in found}


def name_operations(path: os.PathLike | str, scope_of: Mapping[str, str]) -> None:
  """Prefixes each operation in a trace with its scope, such as 'generator/...: fusion.3'."""
  events = read(path)
  for event in events:
    scope = scope_of.get((event.get('args') or {}).get('hlo_op'))
    if scope:
      event['name'] = f'{scope}: {event["name"]}'
  with gzip.open(path, 'wt', encoding='utf-8') as file:
    json.dump({'displayTimeUnit': 'ns', 'traceEvents': events}, file)


def idle_share(events: Sequence[Event]) -> float | None:
  """Returns the share of the time, from its first to its last operation, in which a device is idle.

  A device is idle when none of its streams runs an operation. Of several devices the mean is
  returned; None if the trace contains no device, as on a CPU.
  """
  shares = []
  for operations in operations_by_device(events).values():
    spans = sorted((event['ts'], event['ts'] + event['dur']) for event in operations)
    busy, last_end = _union(spans)
    shares.append(1 - busy / (last_end - spans[0][0]))
  return sum(shares) / len(shares) if shares else None


def operations_by_device(events: Sequence[Event]) -> dict[int, list[Event]]:
  """Returns the operations that each device's streams ran, by the device's number in the trace.

  Devices without operations are missing, and the CPU is none.
  """
  names = {(event['name'], event['pid'], event.get('tid')): event['args']['name']
           for event in events if event.get('ph') == 'M' and 'name' in event.get('args', {})}
  devices = {pid for (kind, pid, _), name in names.items()
             if kind == 'process_name' and name.startswith('/device:')}
  operations = {}
  for event in events:  # the last one may be empty
    device = event.get('pid')
    thread = names.get(('thread_name', device, event.get('tid')), '')
    if event.get('ph') == 'X' and device in devices and thread.startswith(OPERATION_THREADS):
      operations.setdefault(device, []).append(event)
  return operations


def _union(spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
  """Returns (total length of the union, its end) of sorted, possibly overlapping spans."""
  length, last_end = 0.0, float('-inf')
  for start, end in spans:
    length += max(end - max(start, last_end), 0.0)
    last_end = max(last_end, end)
  return length, last_end


def count_operations(program: str) -> int:
  """Returns the number of operations that a compiled program starts, from its text.

  These are the instructions of its entry computation, without those that only name values.
  """
  parsed = hlo.Program(program)
  return sum(map(hlo.starts_work, parsed.instructions(parsed.entry).values()))
