"""Encodes the records of TensorBoard event files.

tensorboardX's own writer hands events to a thread, which ends when the disk is full, after which
further writes block for ever. Therefore this module only encodes records; the caller appends them
to the file.
"""

import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Mapping

import numpy as np

# If PyTorch is installed, tensorboardX imports it to get the name of a type. That takes three
# seconds and 180 MB per start, and Ctrl-C during the import crashes PyTorch.
_hide_torch = sys.modules.setdefault('torch', None) is None
try:
  from tensorboardX import summary
  from tensorboardX.proto import event_pb2, summary_pb2
  from tensorboardX.record_writer import masked_crc32c
finally:
  if _hide_torch:
    del sys.modules['torch']

FLOAT32_MAX = float(np.finfo(np.float32).max)


def new_file(folder: pathlib.Path) -> pathlib.Path:
  """Returns the name of a new event file, which sorts after those of earlier starts."""
  # wandb expects whole seconds in front of the host name.
  seconds, nanoseconds = divmod(time.time_ns(), 10**9)
  return folder / (f'events.out.tfevents.{seconds}.{socket.gethostname()}.'
                   f'{nanoseconds:09}.{os.getpid()}')


def opening(step: int) -> bytes:
  """Returns the first records of a file; they make TensorBoard hide earlier events from `step` on.

  A run that was killed may have logged steps after its last checkpoint.
  """
  return b''.join(_record(event, step) for event in (
      event_pb2.Event(file_version='brain.Event:2'),
      event_pb2.Event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))))


def scalars(step: int, metrics: Mapping[str, float]) -> bytes:
  """Returns a record with one point of each metric that is finite, as float32 too."""
  # Not tensorboardX.summary.scalar, which prints a warning for each NaN.
  points = [summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items() if abs(value) <= FLOAT32_MAX]  # not of NaN
  return _record(event_pb2.Event(summary=summary_pb2.Summary(value=points)), step)


def image(step: int, name: str, pixels: np.ndarray) -> bytes:
  """Returns a record with an image, uint8 [H, W, 3]."""
  return _record(event_pb2.Event(summary=summary.image(name, pixels, dataformats='HWC')), step)


def _record(event: event_pb2.Event, step: int) -> bytes:
  """Returns the length and the serialised event, each followed by its masked CRC-32C."""
  event.step, event.wall_time = step, time.time()
  data = event.SerializeToString()
  length = struct.pack('<Q', len(data))
  return b''.join((length, struct.pack('<I', masked_crc32c(length)),
                   data, struct.pack('<I', masked_crc32c(data))))
