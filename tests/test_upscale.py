"""The command that makes pictures larger, and `sr_jax.load` from Python."""

import re

import jax
import numpy as np
import pytest

import sr_jax
from sr_jax import images, restore, upscale
from sr_jax.errors import InputError
from sr_jax.models import Compact
from sr_jax.weights import generators
from tests.conftest import filled


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A Compact of scale 2 in a file."""
  model = Compact(4, 1, scale=2)
  path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  generators.write_generator(path, 'basicsr', 'compact', model, variables)
  return path


def test_a_model_is_a_function_of_pictures(weights, picture):
  model = sr_jax.load(weights)
  assert model.scale == 2
  lr = picture(9, 7)
  sr = model(lr)
  expected = model.generator.apply(model.variables, np.float32(lr)[None] / 255)[0]
  np.testing.assert_array_equal(sr, np.uint8(np.clip(np.asarray(expected), 0, 1) * 255 + 0.5))
  grey = model(lr[..., :1])
  assert (grey.dtype, grey.shape) == (np.uint8, (18, 14, 1))
  np.testing.assert_array_equal(model(lr[..., 0]), grey[..., 0])
  for wrong in (np.float32(lr), lr[None], np.zeros((3, 3, 4), np.uint8), lr[:0], [1, 2], lr[0, 0]):
    with pytest.raises(InputError, match='expected as NumPy uint8'):
      model(wrong)


def test_pictures_and_folders(weights, tmp_path, picture, call):
  for name in ('one.jpg', 'in/a.png', 'in/below/b.bmp'):
    images.write_image(tmp_path / f'{name}.png', picture(12, 9))
    (tmp_path / f'{name}.png').rename(tmp_path / name)
  images.write_image(tmp_path / 'in' / 'grey.png', picture(12, 9)[..., :1])
  (tmp_path / 'in' / 'broken.png').write_bytes(b'nothing')
  status, out, err = call(upscale.main, 'one.jpg', 'in', '--output', 'out', '--weights',
                          str(weights))
  assert status == 1  # for the broken one; the others are there
  assert err.startswith('sr_jax: 1 not upscaled: in/broken.png')
  assert err.count('\n') == 1
  assert out == f'4 of 5 upscaled x2 to out by {weights} (safetensors)\n'
  found = sorted(str(path.relative_to(tmp_path / 'out'))
                 for path in (tmp_path / 'out').rglob('*') if path.is_file())
  assert found == ['a.png', 'below/b.png', 'grey.png', 'one.png']
  sr = images.read_image(tmp_path / 'out' / 'below' / 'b.png')
  np.testing.assert_array_equal(sr, sr_jax.load(weights)(picture(12, 9)))
  assert images.read_image(tmp_path / 'out' / 'grey.png').shape == (24, 18, 1)


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'required: IN, --output'),
    (['in', '--output', 'out'], 'one of the arguments --workdir --weights is required'),
    (['in', '--output', 'out', '--weights', 'W', '--workdir', '.'], 'not allowed with'),
    (['in', '--output', 'out', '--weights', 'none.pth'], 'none.pth: no run, no weight file'),
    (['in', '--output', 'out', '--weights', 'in/a.png'], 'in/a.png: not a readable weight file'),
    (['in', '--output', 'out', '--workdir', 'none'], 'none: no run there'),
    (['in', '--output', 'out', '--workdir', 'in'], 'in: no run there'),
    (['in', '--output', 'out', '--weights', 'in'], 'in: no run there'),
    (['in', '--output', 'out', '--weights', 'W', '--step', '7'], 'is no run: it has no steps'),
    (['in', '--output', 'out', '--weights', ''], 'empty name'),
    (['in', '--output', 'out', '--weights', 'x' * 300], 'File name too long'),
    (['in', '--output', 'out', '--weights', 'W', '--set', 'step=3'], 'step: compact has no such'),
    (['in', '--output', 'out', '--weights', 'W', '--set', 'x'], 'expected FIELD=VALUE'),
    (['in', '--output', 'out', '--weights', 'W', '--set', 'scale=3'],
     r'body\.4\.bias is \[12\], expected \[27\] of compact'),
    (['nowhere', '--output', 'out', '--weights', 'W'], 'nowhere: no such file or folder'),
    (['in', '--output', 'in/out', '--weights', 'W'], 'in/out: lies in in'),
    (['in/a.png', '--output', 'in', '--weights', 'W'], 'in/a.png: would overwrite an original'),
    (['in', '--output', 'in/a.png', '--weights', 'W'], 'lies in in'),
    (['in/a.png', '--output', 'in/a.png', '--weights', 'W'], 'is a file; pictures need a folder'),
    (['in', 'more', '--output', 'out', '--weights', 'W'], 'several pictures of one name.*more/a'),
    (['', '--output', 'out', '--weights', 'W'], 'empty name')])
def test_wrong_input_is_one_line(weights, tmp_path, picture, call, arguments, message):
  for name in ('in', 'more'):
    images.write_image(tmp_path / name / 'a.png', picture(8, 8))
  arguments = [str(weights) if argument == 'W' else argument for argument in arguments]
  status, out, err = call(upscale.main, *arguments)
  assert (status, out) == (1, '')
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1
  assert re.search(message, err), err
  assert not (tmp_path / 'out').exists()


def test_too_large_for_the_memory_is_said_of_the_picture(weights, tmp_path, picture, call,
                                                         monkeypatch):
  for name in ('a', 'b'):
    images.write_image(tmp_path / 'in' / f'{name}.png', picture(8, 8))
  plain = restore.Model.__call__
  errors = [jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 byte'), None]

  def full(model, image):
    error = errors.pop(0)
    if error:
      raise error
    return plain(model, image)

  monkeypatch.setattr(restore.Model, '__call__', full)
  status, out, err = call(upscale.main, 'in', '--output', 'out', '--weights', str(weights))
  assert (status, err) == (1, 'sr_jax: 1 not upscaled: in/a.png: 8x8 is too large for the memory\n')
  assert out.startswith('1 of 2 upscaled')
