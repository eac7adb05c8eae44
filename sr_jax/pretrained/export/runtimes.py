"""Runs exported files by the runtimes that they are for."""

import pathlib
from collections.abc import Callable

import numpy as np

from sr_jax.errors import InputError
from sr_jax.pretrained.export import ncnn_files, onnx_file

Run = Callable[[np.ndarray], np.ndarray]  # float32 [h, w, C] in [0, 1] to [h * s, w * s, C]


def import_onnxruntime() -> None:
  """Raises InputError if the package onnxruntime is not installed."""
  try:
    import onnxruntime  # noqa: F401
  except ImportError:
    raise InputError('--check of an ONNX file needs the package onnxruntime: '
                     'pip install onnxruntime') from None


def open_onnx(path: pathlib.Path) -> Run:
  """Returns a function that runs an ONNX file on the CPU."""
  import_onnxruntime()
  import onnxruntime
  session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])

  def run(lr: np.ndarray) -> np.ndarray:
    planes = lr[None].transpose(0, 3, 1, 2)
    return session.run(None, {onnx_file.INPUT: planes})[0][0].transpose(1, 2, 0)

  return run


def import_ncnn() -> None:
  """Raises InputError if the package ncnn is not installed."""
  try:
    import ncnn  # noqa: F401
  except ImportError:
    raise InputError('--check of an ncnn file needs the package ncnn: pip install ncnn') from None


def open_ncnn(path: pathlib.Path, packing: bool = True) -> Run:
  """Returns a function that runs an ncnn pair on the CPU, in float32.

  Args:
    path: of the `.param`.
    packing: whether ncnn may interleave channels.
  """
  import_ncnn()
  import ncnn
  net = ncnn.Net()
  for option in ('use_fp16_storage', 'use_fp16_arithmetic', 'use_fp16_packed', 'use_bf16_storage'):
    setattr(net.opt, option, False)
  net.opt.use_packing_layout = packing
  if net.load_param(str(path)) or net.load_model(str(path.with_suffix('.bin'))):
    raise InputError(f'{path}: ncnn cannot read it')

  def run(lr: np.ndarray) -> np.ndarray:
    # Kept in a variable: `ncnn.Mat` does not own the memory of its array.
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1))
    extractor = net.create_extractor()
    extractor.input(ncnn_files.INPUT, ncnn.Mat(planes).clone())
    status, result = extractor.extract(ncnn_files.OUTPUT)
    if status:
      raise InputError(f'{path}: ncnn cannot compute it (status {status})')
    return np.array(result).reshape(-1, result.h, result.w).transpose(1, 2, 0)

  return run
