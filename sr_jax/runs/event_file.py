"""TensorBoard's event files, record by record.

tensorboardX's own writer hands events to a thread, which a full disk ends, and whoever writes to it
afterwards waits for ever; so records are made here, and whoever has them writes them.
"""

import os
import pathlib
import socket
import struct
import sys
import time

import numpy as np

# Where PyTorch is installed tensorboardX imports it, for the name of a type: three seconds and
# 180 MB of each start, and a Ctrl-C meanwhile ends in a crash of its.
_hidden = sys.modules.setdefault('torch', None) is None
try:
  from tensorboardX import crc32c, summary
  from tensorboardX.proto import event_pb2, summary_pb2
finally:
  if _hidden:
    del sys.modules['torch']


def new_file(folder: pathlib.Path) -> pathlib.Path:
  """A name that no start has had, after those of earlier ones."""
  seconds, rest = divmod(time.time_ns(), 10**9)  # wandb reads whole seconds before the host alone
  return folder / f'events.out.tfevents.{seconds}.{socket.gethostname()}.{rest:09}.{os.getpid()}'


def opening(step: int) -> bytes:
  """What a file begins with; it hides what a lost piece of the run had logged from `step` on."""
  return b''.join(_record(event, step) for event in (
      event_pb2.Event(file_version='brain.Event:2'),
      event_pb2.Event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))))


def scalars(step: int, figures: dict[str, float]) -> bytes:
  """One point of each figure."""
  # Not by summary.scalar, which warns of each nan on the terminal.
  points = [summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in figures.items()]
  return _record(event_pb2.Event(summary=summary_pb2.Summary(value=points)), step)


def picture(step: int, name: str, image: np.ndarray) -> bytes:
  """uint8 [H, W, 3]."""
  return _record(event_pb2.Event(summary=summary.image(name, image, dataformats='HWC')), step)


def _record(event: event_pb2.Event, step: int) -> bytes:
  """Length and data, each with its masked CRC-32C."""
  event.step, event.wall_time = step, time.time()
  data = event.SerializeToString()
  length = struct.pack('<Q', len(data))
  return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
  crc = crc32c.crc32c(data)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff)
