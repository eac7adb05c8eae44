"""Tests of the upscale command, and of `sr_jax.load` from Python."""

import os
import pathlib
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageCms

import sr_jax
from sr_jax import images, upscale
from sr_jax.errors import InputError
from sr_jax.inference import upscale_run, upscaler
from sr_jax.inference.strategies import PlanRunner
from sr_jax.system import files, progress
from tests.conftest import interrupt


def test_a_model_is_a_function_of_images(weights: pathlib.Path, picture: Callable) -> None:
  model = sr_jax.load(weights)
  assert model.scale == 2
  lr = picture(9, 7)
  sr = model(lr)
  expected = model.generator.apply(model.variables, np.float32(lr)[None] / 255)[0]
  np.testing.assert_array_equal(sr, np.uint8(np.clip(np.asarray(expected), 0, 1) * 255 + 0.5))
  grey = model(lr[..., :1])
  assert (grey.dtype, grey.shape) == (np.uint8, (18, 14, 1))
  np.testing.assert_array_equal(model(lr[..., 0]), grey[..., 0])
  for wrong, message in ((np.zeros((3, 3, 4), np.uint8), r'\[3, 3, 4\].*alpha.*sr-jax upscale'),
                         (np.zeros((2, 3, 3, 4), np.float32), r'\[2, 3, 3, 4\].*alpha'),
                         (lr[:0], r'uint8 \[0, 7, 3\]'), (lr[0, 0], r'\[3\].*\[B, h, w, 1 or 3\]'),
                         (np.int64(lr), 'int64.*uint8, uint16'), ([1, 2], 'array.* list'),
                         (lr.transpose(2, 0, 1), r'\[3, 9, 7\].*\[h, w')):
    with pytest.raises(InputError, match=message):
      model(wrong)


def test_a_model_takes_jax_arrays_other_floats_and_batches(weights: pathlib.Path,
                                                           picture: Callable) -> None:
  model = sr_jax.load(weights)
  lr = picture(9, 7)
  sr = model(lr)
  floats = np.float32(lr) / 255
  want = model(floats)
  np.testing.assert_array_equal(model(jnp.asarray(lr)), sr)
  for given in (jnp.asarray(floats), np.float64(floats), floats.astype('>f8')):
    got = model(given)
    assert (type(got), got.dtype) == (np.ndarray, np.float32)
    np.testing.assert_array_equal(got, want)
  assert model(jnp.bfloat16(floats)).dtype == np.float32
  batch = model(np.stack([lr, lr[::-1]]))
  np.testing.assert_array_equal(batch[0], sr)
  assert model(lr[None, ..., :1]).shape == (1, 18, 14, 1)
  with pytest.raises(InputError, match=r'jit.*model\.generator\.apply\(model\.variables'):
    jax.grad(lambda lr: model(lr).sum())(floats)
  assert jax.grad(lambda lr: model.generator.apply(model.variables, lr).sum())(floats[None]).any()


def test_image_files_and_folders(weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable,
                                 call: Callable) -> None:
  for name in ('one.jpg', 'in/a.png', 'in/below/b.bmp'):
    images.write_image(tmp_path / f'{name}.png', picture(12, 9))
    (tmp_path / f'{name}.png').rename(tmp_path / name)
  images.write_image(tmp_path / 'in' / 'grey.png', picture(12, 9)[..., :1])
  (tmp_path / 'in' / 'broken.png').write_bytes(b'nothing')
  status, out, err = call(upscale.main, 'one.jpg', 'in', '--output', 'out', '--weights',
                          str(weights))
  assert status == 1  # because of the broken image; the others are written
  assert re.match(r'sr_jax: 1 .*: in/broken\.png', err)
  assert err.count('\n') == 1
  assert re.fullmatch(rf'.*4 of 5 x2 .*out .*{weights} \(safetensors\)\n', out)
  written = sorted(str(path.relative_to(tmp_path / 'out'))
                   for path in (tmp_path / 'out').rglob('*') if path.is_file())
  assert written == ['a.png', 'below/b.png', 'grey.png', 'one.png']
  sr = images.read_image(tmp_path / 'out' / 'below' / 'b.png')
  np.testing.assert_array_equal(sr, sr_jax.load(weights)(picture(12, 9)))
  assert images.read_image(tmp_path / 'out' / 'grey.png').shape == (24, 18, 1)


@pytest.mark.parametrize(('text', 'name'), [
    ('jpg', 'a.jpg'), ('TIF', 'a.tif'), ('jpeg', 'a.jpg'), ('WebP', 'a.webp'), ('same', 'a.bmp')])
def test_a_format_may_be_named_by_a_suffix(weights: pathlib.Path, tmp_path: pathlib.Path,
                                           picture: Callable, call: Callable, text: str,
                                           name: str) -> None:
  Image.fromarray(picture(12, 9)).save(tmp_path / 'a.bmp')
  assert call(upscale.main, 'a.bmp', '--output', 'out', '--weights', str(weights), '--format',
              text)[0] == 0
  assert [path.name for path in (tmp_path / 'out').iterdir()] == [name]


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'IN, --output'),
    (['in', '--output', 'out', '--weights', 'W', '--format', 'gif'], "--format: .*'gif'.*tiff"),
    (['in', '--output', 'out', '--weigths', 'W'], '--weigths: .*--weights'),
    (['in', '--output', 'out'], '--workdir --weights'),
    (['in', '--output', 'out', '--weights', 'W', '--workdir', '.'], '--workdir: .*--weights'),
    (['in', '--output', 'out', '--weights', 'none.pth'], 'none.pth: .*realsr-df2k'),
    (['in', '--output', 'out', '--weights', 'in/a.png'], 'in/a.png: .*weight file'),
    (['in', '--output', 'out', '--workdir', 'none'], '--workdir none: '),
    (['in', '--output', 'out', '--workdir', 'in'], 'in: .*config.json'),
    (['in', '--output', 'out', '--weights', 'in'], 'in: .*config.json'),
    (['in', '--output', 'out', '--weights', 'W', '--step', '7'], r'small\.safetensors.*step=7'),
    (['in', '--output', 'out', '--weights', ''], 'name.* empty|empty name'),
    (['in', '--output', 'out', '--weights', 'x' * 300], 'File name too long'),
    (['in', '--output', 'out', '--weights', 'W', '--set', 'step=3'], 'step: .*compact'),
    (['in', '--output', 'out', '--weights', 'W', '--set', 'x'], '--set x: .*FIELD=VALUE'),
    (['in', '--output', 'out', '--weights', 'W', '--set', 'scale=3'],
     r'body\.4\.bias .*\[12\].*\[27\].*compact'),
    (['nowhere', '--output', 'out', '--weights', 'W'], 'nowhere: no such'),
    (['in', '--output', 'in/out', '--weights', 'W'], 'in/out: .*folder'),
    (['in/a.png', '--output', 'in', '--weights', 'W'], 'in/a.png: .*overwrite'),
    (['in', '--output', 'in/a.png', '--weights', 'W'], 'in/a.png: .*folder'),
    (['in/a.png', '--output', 'in/a.png', '--weights', 'W'], 'in/a.png: .*overwrite'),
    (['in', 'more', '--output', 'out', '--weights', 'W'], 'in/a.*more/a'),
    (['in', '--output', 'out', '--weights', 'W', '--quality', '50'], '--quality 50: .*--format'),
    (['in/a.png', '--output', 'out', '--weights', 'W', '--quality', '50', '--format', 'same'],
     '--quality 50: .*--format'),
    (['in/a.png', '--output', 'out.png', '--weights', 'W', '--quality', '50'], '--quality 50: '),
    (['in/a.png', '--output', 'out', '--weights', 'W', '--crf', '0'], '--crf 0: .*videos'),
    (['clip.mp4', '--output', 'out', '--weights', 'W', '--format', 'png'], '--format png: .*video'),
    (['clip.mp4', '--output', 'out', '--weights', 'W', '--quality', '9'], '--quality 9: .*--crf'),
    (['in', '--output', 'out', '--weights', 'W', '--format', 'mkv'], "--format: 'mkv'.*--output"),
    (['in', '--output', 'out', '--weights', 'W', '--output', 'b'], '--output: '),
    (['in/a.png', '--output', 'out.xyz', '--weights', 'W'], r'out\.xyz: .*\.png'),
    (['', '--output', 'out', '--weights', 'W'], 'IN.*empty')])
def test_wrong_input_is_one_line(weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable,
                                 call: Callable, arguments: list[str], message: str) -> None:
  for name in ('in', 'more'):
    images.write_image(tmp_path / name / 'a.png', picture(8, 8))
  (tmp_path / 'clip.mp4').touch()
  arguments = [str(weights) if argument == 'W' else argument for argument in arguments]
  status, out, err = call(upscale.main, *arguments)
  assert (status, out) == (1, '')
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1
  assert re.search(message, err), err
  assert not (tmp_path / 'out').exists()


def test_an_image_too_large_for_memory_is_named(weights: pathlib.Path, tmp_path: pathlib.Path,
                                                picture: Callable, call: Callable,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
  for name in ('a', 'b'):
    images.write_image(tmp_path / 'in' / f'{name}.png', picture(8, 8))
  def full(*_: Any) -> None:
    raise MemoryError

  monkeypatch.setattr(PlanRunner, 'bands', full)
  monkeypatch.setattr(upscaler, 'MIN_BYTES', 1 << 62)
  status, out, err = call(upscale.main, 'in', '--output', 'out', '--weights', str(weights))
  assert status == 1
  *lines, last = err.splitlines()
  assert all(re.fullmatch(rf'sr_jax: in/{name}\.png: .*8x8 .*memory.*', line)
             for name, line in zip('ab', lines, strict=True))
  assert last == 'sr_jax: 2 not upscaled'
  assert out == ''
  assert not list((tmp_path / 'out').glob('*'))


def test_files_folders_and_glob_patterns(weights: pathlib.Path, tmp_path: pathlib.Path,
                                         picture: Callable, call: Callable) -> None:
  """Paths below a folder or a pattern's fixed part are kept; files whose names differ only in the
  suffix keep it.
  """
  for name in ('in/a.png', 'in/a.bmp', 'in/b.png', 'deep/down/c.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  status, out, err = call(upscale.main, 'in', 'de*/**/*.png', '--output', 'out',
                          '--weights', str(weights), '--format', 'same')
  assert (status, err) == (0, '')
  assert re.fullmatch(rf'.*4 of 4 x2 .*out .*{weights} \(safetensors\)\n', out)
  assert sorted(str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*.*')
                ) == ['a.bmp.bmp', 'a.png.png', 'b.png', 'deep/down/c.png']


def test_a_glob_of_folders_keeps_them_apart(weights: pathlib.Path, tmp_path: pathlib.Path,
                                            picture: Callable, call: Callable) -> None:
  """Benchmark sets have images of the same name; a cycle of links adds no image."""
  for name in ('data/Set5/LR/1.png', 'data/Set14/LR/1.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  (tmp_path / 'data' / 'Set5' / 'again').symlink_to(tmp_path / 'data')
  for pattern in ('data/*/LR', 'data/**/*.png'):
    status, out, _ = call(upscale.main, pattern, '--output', 'out', '--weights', str(weights),
                          '--overwrite')
    assert (status, '2 of 2 ' in out) == (0, True)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('out/**/*.png')) == [
        'out/Set14/LR/1.png', 'out/Set5/LR/1.png']


def test_existing_results_are_skipped(weights: pathlib.Path, tmp_path: pathlib.Path,
                                      picture: Callable, call: Callable) -> None:
  for name in ('a', 'b'):
    images.write_image(tmp_path / 'in' / f'{name}.png', picture(8, 9))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'a.png').write_bytes(b'mine')
  arguments = ('in', '--output', 'out', '--weights', str(weights))
  status, out, _ = call(upscale.main, *arguments)
  assert status == 0
  upscaled, skipped = out.splitlines()
  assert re.fullmatch(rf'Upscaled 1 of 2 x2 .*out .*{weights} \(safetensors\)', upscaled)
  assert re.match(r'Skipped 1 of 2: .*--overwrite', skipped)
  assert (tmp_path / 'out' / 'a.png').read_bytes() == b'mine'
  status, out, _ = call(upscale.main, *arguments, '--overwrite')
  assert (status, out.count('\n')) == (0, 1)
  assert images.read_image(tmp_path / 'out' / 'a.png').shape == (16, 18, 3)


def test_one_bad_input_does_not_stop_the_others(weights: pathlib.Path, tmp_path: pathlib.Path,
                                                picture: Callable, call: Callable) -> None:
  """Each input that cannot be upscaled is one line of the error output."""
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
  for pattern in (r'nowhere\.png: no such', r'cut\.jpg: damaged', r'empty: .*no images or videos',
                  r'notes\.png: not ', r'huge\.bmp: 50000x50000 .*2,500,000,000.*200,000,000',
                  r'out/dir\.png: ', r'\*\.gif: no such', r'clip\.mp4: '):
    assert len([line for line in lines if re.match(f'sr_jax: {pattern}', line)]) == 1, pattern
  assert lines[-1] == 'sr_jax: 8 not upscaled'
  assert len(lines) == 9
  assert re.fullmatch(rf'.*1 of 6 x2 .*out .*{weights} \(safetensors\)\n', out)
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['dir.png', 'good.png']


def test_max_pixels_sets_the_limit(weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable,
                                   call: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  arguments = ('a.png', '--output', 'out', '--weights', str(weights), '--max-pixels')
  status, _, err = call(upscale.main, *arguments, '71')
  assert status == 1
  assert re.fullmatch(r'sr_jax: 1 .*: a\.png: 9x8 .*72.*--max-pixels.*71.*\n', err)
  assert call(upscale.main, *arguments, '72')[0] == 0


def test_a_photo_keeps_its_metadata(weights: pathlib.Path, tmp_path: pathlib.Path,
                                    picture: Callable, call: Callable) -> None:
  """A rotated JPEG keeps its EXIF and its colour profile in every format."""
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = 6, 'maker'
  icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  Image.fromarray(picture(12, 20)).save(tmp_path / 'a.jpg', exif=exif, icc_profile=icc)
  for format in ('jpeg', 'png', 'tiff', 'webp'):
    assert call(upscale.main, 'a.jpg', '--output', format, '--weights', str(weights), '--format',
                format)[0] == 0
    path, = (tmp_path / format).iterdir()
    with Image.open(path) as sr:
      assert sr.size == (24, 40)  # the upright input is 12 wide and 20 high
      assert sr.info['icc_profile'] == icc
      assert sr.getexif().get(0x0112, 1) == 1
      assert sr.getexif()[0x010F] == 'maker'


def test_a_video_is_upscaled_with_its_sound(weights: pathlib.Path, tmp_path: pathlib.Path,
                                            call: Callable) -> None:
  """Two seconds with sound; `test_video` tests the other properties of videos."""
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
  assert re.fullmatch(rf'.*1 of 1 x2 .*out .*{weights} \(safetensors\)', out.splitlines()[-1])
  with av.open(tmp_path / 'out' / 'clip.mp4') as clip:
    assert len(clip.streams.audio) == 1
    assert [frame.to_ndarray().shape[1] for frame in clip.decode(video=0)] == [64] * 24


def test_output_may_be_a_file(weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable,
                              call: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  arguments = ('a.png', '--output', 'new/b.jpg', '--weights', str(weights))
  status, out, err = call(upscale.main, *arguments)
  assert (status, err) == (0, '')
  assert '1 of 1 x2 to new/b.jpg' in out
  with Image.open(tmp_path / 'new' / 'b.jpg') as sr:
    assert (sr.format, sr.size) == ('JPEG', (18, 16))
  before = (tmp_path / 'new' / 'b.jpg').read_bytes()
  images.write_image(tmp_path / 'a.png', picture(9, 8))
  assert 'Skipped 1 of 1' in call(upscale.main, *arguments)[1]
  assert (tmp_path / 'new' / 'b.jpg').read_bytes() == before
  assert call(upscale.main, *arguments, '--overwrite')[0] == 0
  assert (tmp_path / 'new' / 'b.jpg').read_bytes() != before
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['b.jpg']


def test_skipped_files_are_named_and_leftovers_removed(
    weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable, call: Callable) -> None:
  images.write_image(tmp_path / 'in' / 'a.png', picture(8, 9))
  (tmp_path / 'in' / 'scan.tga').write_bytes(bytes(30))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / f'{files.UNFINISHED}1.png').write_bytes(b'of a killed call')
  status, out, _ = call(upscale.main, 'in', '--output', 'out', '--weights', str(weights))
  assert status == 0
  assert re.search(r'^in: skipped 1 file .*scan\.tga$', out.splitlines()[0])
  assert [path.name for path in (tmp_path / 'out').iterdir()] == ['a.png']
  (tmp_path / 'out' / f'{files.UNFINISHED}1.png').write_bytes(b'of a killed call')
  call(upscale.main, 'in', '--output', 'out', '--weights', str(weights))  # all results exist
  assert [path.name for path in (tmp_path / 'out').iterdir()] == ['a.png']


def test_an_option_that_another_content_of_a_folder_would_use_is_named(
    weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable, call: Callable) -> None:
  images.write_image(tmp_path / 'in' / 'a.png', picture(8, 9))
  status, out, _ = call(upscale.main, 'in', '--output', 'out', '--weights', str(weights), '--crf',
                        '20', '--quality', '50', '--format', 'same')
  assert status == 0
  assert [line.partition(':')[0] for line in out.splitlines()[:2]] == ['--quality 50', '--crf 20']


def test_a_result_that_appears_meanwhile_is_skipped(
    weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable, call: Callable,
    monkeypatch: pytest.MonkeyPatch) -> None:
  """Two calls may work on one folder."""
  for name in ('a', 'b'):
    images.write_image(tmp_path / 'in' / f'{name}.png', picture(8, 9))
  original = upscale_run.upscale_file

  def upscale_and_add(*args: Any) -> str:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'b.png').write_bytes(b'by another call')
    return original(*args)

  monkeypatch.setattr(upscale_run, 'upscale_file', upscale_and_add)
  status, out, _ = call(upscale.main, 'in', '--output', 'out', '--weights', str(weights))
  assert status == 0
  assert out.startswith('Upscaled 1 of 2 x2')
  assert 'Skipped 1 of 2' in out
  assert (tmp_path / 'out' / 'b.png').read_bytes() == b'by another call'


def test_progress_lines_without_a_terminal(
    weights: pathlib.Path, tmp_path: pathlib.Path, picture: Callable, call: Callable,
    monkeypatch: pytest.MonkeyPatch) -> None:
  """Also during a single long image."""
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  monkeypatch.setattr(progress, 'FIRST_SECONDS', 0.05)
  monkeypatch.setattr(progress, 'SECONDS', 0.05)
  original = upscale_run.upscale_file

  def slow(*args: Any) -> str:
    time.sleep(0.2)
    return original(*args)

  monkeypatch.setattr(upscale_run, 'upscale_file', slow)
  status, out, err = call(upscale.main, 'a.png', '--output', 'out', '--weights', str(weights))
  assert (status, err) == (0, '')
  assert re.match(r'a\.png: 0% \(0 of 72 pixels\), 00:00 elapsed\n', out)


@pytest.mark.slow
def test_ctrl_c_leaves_only_complete_results(weights: pathlib.Path, tmp_path: pathlib.Path,
                                             picture: Callable) -> None:
  """Ctrl-C in the middle of a folder exits with one line; the written images are complete."""
  for name in range(40):
    images.write_image(tmp_path / 'in' / f'{name:02d}.png', picture(200 + name, 300))
  out = tmp_path / 'out'
  root = pathlib.Path(__file__).parent.parent
  arguments = ['-m', 'sr_jax.upscale', 'in', '--output', 'out', '--weights', str(weights)]
  status, err = interrupt(arguments, tmp_path, lambda: len(list(out.glob('*.png'))) > 2,
                          os.environ | {'PYTHONPATH': str(root)})
  assert (status, err.splitlines()[-1]) == (130, 'sr_jax: interrupted')
  written = sorted(out.iterdir())
  assert 0 < len(written) < 40  # a hidden, incomplete file may have been counted above
  assert all(images.read_image(path).shape[1] == 600 for path in written)
