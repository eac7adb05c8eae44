"""Writes generators as ONNX and ncnn files."""

import json
import pathlib
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util

import sr_jax
from sr_jax.errors import InputError, brief
from sr_jax.models import architecture
from sr_jax.pretrained.export import ncnn_files, onnx_file, tracing
from sr_jax.pretrained.generators import check_texts


def write(path: pathlib.Path, kind: str, generator: nn.Module, variables: dict[str, Any],
          half: bool, texts: dict[str, str]) -> str:
  """Writes a generator as 'onnx' or 'ncnn' and returns what was written, for a message.

  Args:
    path: of the `.onnx` or `.param`.
    half: whether the weights are in float16; an ONNX file is computed in it, too.
    texts: further metadata of an ONNX file.

  Raises:
    InputError: the network cannot be expressed, has non-finite weights, `path` has a name from
      which Upscayl reads another scale, or `texts` one of an entry of the file's own; or the
      package onnx is missing.
  """
  for name, array in traverse_util.flatten_dict(variables, sep='/').items():
    if not np.isfinite(np.asarray(array)).all():
      raise InputError(f'{path}: not written, because the weights {name} {list(array.shape)} have '
                       'non-finite values (NaN/Inf)')
  if kind == 'ncnn':
    ncnn_files.check_name(path, generator.scale)
    if texts:
      raise InputError(f'{path}: an ncnn file has no place for --metadata')
  else:
    onnx_file.import_onnx()
    check_texts(path, texts, own := _metadata(generator))
  try:
    graph = tracing.trace(generator, variables)
    if kind == 'onnx':
      nodes = onnx_file.write_onnx(path, graph, generator.scale, half, texts | own)
      return f'{nodes} nodes of opset {onnx_file.OPSET}'
    lacking = ncnn_files.write_ncnn(path, graph, half)
  except InputError as error:
    raise InputError(f'{path}: {brief(error)}') from None
  about = f'{len(graph.nodes)} operations'
  return about + f'; Upscayl lacks the layer {", ".join(lacking)}' if lacking else about


def _metadata(generator: nn.Module) -> dict[str, str]:
  fields = {field: value for field, value in architecture(generator).items() if value is not None}
  return {'network': str(fields.pop('network')), 'scale': str(generator.scale),
          'fields': json.dumps(fields, sort_keys=True, default=str),
          'sr_jax_version': sr_jax.__version__}
