"""The command that makes pictures larger, and `sr_jax.load` from Python."""

import os
import pathlib
import re
import struct

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

import sr_jax
from sr_jax import images, upscale
from sr_jax.errors import InputError
from sr_jax.inference import upscaler
from sr_jax.inference.strategies import PlanRunner
from tests.conftest import interrupt


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
  for wrong in (np.float64(lr), lr[None], np.zeros((3, 3, 4), np.uint8), lr[:0], [1, 2], lr[0, 0]):
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
    (['in', '--output', 'out', '--weights', 'none.pth'], 'none.pth: .*realsr-df2k'),
    (['in', '--output', 'out', '--weights', 'in/a.png'], 'in/a.png: .*weight file'),
    (['in', '--output', 'out', '--workdir', 'none'], 'none: no run there'),
    (['in', '--output', 'out', '--workdir', 'in'], 'in: no run there'),
    (['in', '--output', 'out', '--weights', 'in'], 'in: no run there'),
    (['in', '--output', 'out', '--weights', 'W', '--step', '7'], r'small\.safetensors.*step=7'),
    (['in', '--output', 'out', '--weights', ''], 'name.* empty|empty name'),
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
  def full(*_):
    raise MemoryError

  monkeypatch.setattr(PlanRunner, 'bands', full)
  monkeypatch.setattr(upscaler, 'LEAST_BYTES', 1 << 62)
  status, out, err = call(upscale.main, 'in', '--output', 'out', '--weights', str(weights))
  assert status == 1
  assert err.splitlines() == [
      *(f'sr_jax: in/{name}.png: 8x8 is too large for the memory, even in tiles' for name in 'ab'),
      'sr_jax: 2 not upscaled']
  assert out == ''
  assert not list((tmp_path / 'out').glob('*'))


def test_each_way_to_name_pictures(weights, tmp_path, picture, call):
  """Files, folders and globs, whose paths are kept from where they begin; one of a name keeps its
  suffix where another has the same.
  """
  for name in ('in/a.png', 'in/a.bmp', 'in/b.png', 'deep/down/c.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  status, out, err = call(upscale.main, 'in', 'de*/**/*.png', '--output', 'out',
                          '--weights', str(weights), '--format', 'same')
  assert (status, err) == (0, '')
  assert out == f'4 of 4 upscaled x2 to out by {weights} (safetensors)\n'
  assert sorted(str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*.*')
                ) == ['a.bmp.bmp', 'a.png.png', 'b.png', 'deep/down/c.png']


def test_a_glob_of_folders_keeps_them_apart(weights, tmp_path, picture, call):
  """As benchmark sets lie, whose pictures have one name; a link in a circle is no new picture."""
  for name in ('data/Set5/LR/1.png', 'data/Set14/LR/1.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  (tmp_path / 'data' / 'Set5' / 'again').symlink_to(tmp_path / 'data')
  for pattern in ('data/*/LR', 'data/**/*.png'):
    status, out, _ = call(upscale.main, pattern, '--output', 'out', '--weights', str(weights),
                          '--overwrite')
    assert (status, out[:6]) == (0, '2 of 2')
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('out/**/*.png')) == [
        'out/Set14/LR/1.png', 'out/Set5/LR/1.png']


def test_what_is_there_is_left_alone(weights, tmp_path, picture, call):
  for name in ('a', 'b'):
    images.write_image(tmp_path / 'in' / f'{name}.png', picture(8, 9))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'a.png').write_bytes(b'mine')
  arguments = ('in', '--output', 'out', '--weights', str(weights))
  status, out, _ = call(upscale.main, *arguments)
  assert status == 0
  assert out.splitlines() == [f'1 of 2 upscaled x2 to out by {weights} (safetensors)',
                              '1 of 2 left alone, for there is a file of their name (--overwrite '
                              'makes it again)']
  assert (tmp_path / 'out' / 'a.png').read_bytes() == b'mine'
  status, out, _ = call(upscale.main, *arguments, '--overwrite')
  assert (status, out.count('\n')) == (0, 1)
  assert images.read_image(tmp_path / 'out' / 'a.png').shape == (16, 18, 3)


def test_the_rest_goes_on(weights, tmp_path, picture, call):
  """Of all that can be wrong with one picture, each is a part of one line."""
  images.write_image(tmp_path / 'good.png', picture(8, 9))
  images.write_image(tmp_path / 'cut.jpg', picture(64, 64))
  (tmp_path / 'cut.jpg').write_bytes((tmp_path / 'cut.jpg').read_bytes()[:900])
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'notes.png').write_text('dear diary')
  header = b'BM' + bytes(8) + struct.pack('<IIiiHHIIiiII', 54, 40, 50000, 50000, 1, 24, *[0] * 6)
  (tmp_path / 'huge.bmp').write_bytes(header + bytes(100))
  (tmp_path / 'out' / 'dir.png').mkdir(parents=True)
  (tmp_path / 'dir.png').write_bytes((tmp_path / 'good.png').read_bytes())
  (tmp_path / 'clip.mp4').write_bytes(bytes(100))
  status, out, err = call(
      upscale.main, 'nowhere.png', 'cut.jpg', 'empty', 'notes.png', 'huge.bmp', 'dir.png', '*.gif',
      'clip.mp4', 'good.png', '--output', 'out', '--weights', str(weights), '--overwrite')
  assert status == 1
  lines = err.splitlines()
  for start in ('nowhere.png: no such file or folder', 'cut.jpg: damaged picture',
                'empty: no picture in it', 'notes.png: not a picture that can be read',
                'huge.bmp: 50000x50000 is 2,500,000,000 pixels, more than --max-pixels 200,000,000',
                'dir.png: can not be written', '*.gif: no such file', 'clip.mp4: '):
    start = f'out/{start}' if start.startswith('dir') else start
    assert len([line for line in lines if line.startswith(f'sr_jax: {start}')]) == 1
  assert lines[-1] == 'sr_jax: 8 not upscaled'
  assert len(lines) == 9
  assert out == f'1 of 6 upscaled x2 to out by {weights} (safetensors)\n'
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['dir.png', 'good.png']


def test_max_pixels_lifts_the_limit_and_lowers_it(weights, tmp_path, picture, call):
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  arguments = ('a.png', '--output', 'out', '--weights', str(weights), '--max-pixels')
  status, _, err = call(upscale.main, *arguments, '71')
  assert (status, err) == (1, 'sr_jax: 1 not upscaled: a.png: 9x8 is 72 pixels, more than '
                           '--max-pixels 71\n')
  assert call(upscale.main, *arguments, '72')[0] == 0


def test_a_photo_keeps_what_its_file_says(weights, tmp_path, picture, call):
  """A turned JPEG with EXIF and a profile, as 16-bit TIFF's and WebP's neighbours."""
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = 6, 'maker'
  icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  Image.fromarray(picture(12, 20)).save(tmp_path / 'a.jpg', exif=exif, icc_profile=icc)
  for format in ('jpeg', 'png', 'tiff', 'webp'):
    assert call(upscale.main, 'a.jpg', '--output', format, '--weights', str(weights), '--format',
                format)[0] == 0
    path, = (tmp_path / format).iterdir()
    with Image.open(path) as found:
      assert found.size == (24, 40)  # upright: 12 wide and 20 high
      assert found.info['icc_profile'] == icc
      assert found.getexif().get(0x0112, 1) == 1
      assert found.getexif()[0x010F] == 'maker'


def test_a_clip_comes_out_larger_with_its_sound(weights, tmp_path, call):
  """Two seconds with sound; `test_video` has the rest."""
  with av.open(tmp_path / 'clip.mp4', 'w') as clip:
    frames, sound = clip.add_stream('libx264', rate=12), clip.add_stream('aac', rate=8000)
    frames.width, frames.height, frames.pix_fmt = 32, 24, 'yuv420p'
    for index in range(24):
      frame = np.full((24, 32, 3), 8 * index, np.uint8)
      clip.mux(frames.encode(av.VideoFrame.from_ndarray(frame)))
    tone = np.sin(np.arange(16000, dtype=np.float32) / 3)[None]
    samples = av.AudioFrame.from_ndarray(tone, 'fltp', 'mono')
    samples.rate = 8000
    clip.mux(sound.encode(samples))
    for stream in (frames, sound):
      clip.mux(stream.encode())
  status, out, _ = call(upscale.main, 'clip.mp4', '--output', 'out', '--weights', str(weights))
  assert status == 0
  assert out.splitlines()[-1] == f'1 of 1 upscaled x2 to out by {weights} (safetensors)'
  with av.open(tmp_path / 'out' / 'clip.mp4') as clip:
    assert len(clip.streams.audio) == 1
    assert [frame.to_ndarray().shape[1] for frame in clip.decode(video=0)] == [64] * 24


@pytest.mark.slow
def test_ctrl_c_ends_it_in_a_line_and_the_rest_can_go_on(weights, tmp_path, picture):
  """In the middle of a folder: what is there is whole, nothing else is, and it does not crash."""
  for name in range(40):
    images.write_image(tmp_path / 'in' / f'{name:02d}.png', picture(200 + name, 300))
  out = tmp_path / 'out'
  root = pathlib.Path(__file__).parent.parent
  arguments = ['-m', 'sr_jax.upscale', 'in', '--output', 'out', '--weights', str(weights)]
  status, err = interrupt(arguments, tmp_path, lambda: len(list(out.glob('*.png'))) > 2,
                          os.environ | {'PYTHONPATH': str(root)})
  assert (status, err.splitlines()[-1]) == (130, 'sr_jax: interrupted')
  made = sorted(out.iterdir())
  assert 0 < len(made) < 40  # a hidden one, in the making, may have been counted above
  assert all(images.read_image(path).shape[1] == 600 for path in made)
