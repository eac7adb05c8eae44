"""Which files an upscale command reads, and where it writes their results."""

import os
import pathlib
import re
from collections.abc import Callable

import av
import numpy as np
import pytest
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.inference import upscale_jobs
from sr_jax.inference.upscale_jobs import Job
from sr_jax.media import clips
from tests.test_video import make, moving


def write_clip(path: pathlib.Path, format: str, codec: str = 'mpeg2video') -> pathlib.Path:
  """Writes three frames in a container that is independent of the suffix."""
  with av.open(str(path), 'w', format=format) as output:
    stream = output.add_stream(codec, rate=25, width=64, height=48)
    for image in moving(3, 48, 64):
      output.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
    output.mux(stream.encode(None))
  return path


@pytest.fixture
def mixed(tmp_path: pathlib.Path, picture: Callable) -> pathlib.Path:
  """A folder of images, videos in several containers, and files that are neither."""
  folder = tmp_path / 'in'
  images.write_image(folder / 'photo.png', picture(8, 9))
  write_clip(folder / 'clip.ts', 'mpegts')
  write_clip(folder / 'CLIP.MXF', 'mxf')
  write_clip(folder / 'dvd.vob', 'vob')
  (folder / 'index.ts').write_text('export const scale = 4;\n')
  (folder / 'scan.tga').write_bytes(bytes(30))
  return folder


def test_a_folder_of_containers(mixed: pathlib.Path, tmp_path: pathlib.Path) -> None:
  plan = upscale_jobs.plan([mixed], tmp_path / 'out')
  assert plan.errors == []
  assert {job.source.name: (job.target.name, job.format) for job in plan.jobs} == {
      'photo.png': ('photo.png', 'png'), 'clip.ts': ('clip.mp4', 'video'),
      'CLIP.MXF': ('CLIP.mp4', 'video'), 'dvd.vob': ('dvd.mp4', 'video')}
  note, = plan.notes
  assert re.search(r'2 files.*: index\.ts, scan\.tga', note)


def test_suffixes_of_videos_are_no_suffixes_of_images() -> None:
  assert set(clips.SUFFIXES).isdisjoint(images.SUFFIXES)
  assert len(set(upscale_jobs.READABLE)) == len(upscale_jobs.READABLE)


def test_an_unknown_suffix_is_decided_by_the_content(tmp_path: pathlib.Path,
                                                     picture: Callable) -> None:
  Image.fromarray(picture(8, 9)).save(tmp_path / 'photo.download', 'JPEG')
  write_clip(tmp_path / 'clip.dat', 'mpeg')
  write_clip(tmp_path / 'clip', 'matroska', 'libx264')
  (tmp_path / 'text.dat').write_text('dear diary')
  (tmp_path / 'empty').write_bytes(b'')
  names = ['photo.download', 'clip.dat', 'clip', 'text.dat', 'empty', 'missing']
  plan = upscale_jobs.plan([tmp_path / name for name in names], tmp_path / 'out')
  assert [(job.source.name, job.format) for job in plan.jobs] == [
      ('photo.download', 'png'), ('clip.dat', 'video'), ('clip', 'video')]
  assert len(plan.errors) == 3
  for name, error in zip(names[3:], plan.errors, strict=True):
    assert error.startswith(f'{tmp_path / name}: ')
    assert '\n' not in error


@pytest.mark.parametrize(('source', 'output', 'format', 'expected'), [
    ('a.png', 'b.png', None, 'png'), ('a.png', 'b.JPG', None, 'jpeg'),
    ('a.png', 'new/b.tif', 'tiff', 'tiff'), ('a.png', 'b.webp', 'webp', 'webp'),
    ('a.png', 'b.png', 'same', 'png'), ('clip.mp4', 'b.mp4', None, 'video'),
    ('clip.mp4', 'b.mkv', None, 'video'), ('*.png', 'b.png', None, 'png')])
def test_output_may_be_a_file(source: str, output: str, format: str | None, expected: str,
                              tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  (tmp_path / 'clip.mp4').touch()
  plan = upscale_jobs.plan([tmp_path / source], tmp_path / output, format)
  name = 'a.png' if source == '*.png' else source
  assert plan.jobs == [Job(tmp_path / name, tmp_path / output, expected)]


@pytest.mark.parametrize(('sources', 'output', 'format', 'message'), [
    (['a.png', 'b.png'], 'x.png', None, r'x\.png: .*2 files.*folder'),
    (['*.png'], 'x.png', None, r'x\.png: .*2 files.*folder'),
    (['in'], 'x.png', None, r'x\.png: .*/in is a folder'),
    (['a.png'], 'x.png', 'jpeg', r'x\.png: .*png.*--format .*jpeg'),
    (['a.png'], 'x.jpg', 'same', r'x\.jpg: .*jpeg.*--format .*png'),
    (['a.png'], 'x.gif', None, r'x\.gif: .*\.gif.*\.png'),
    (['a.png'], 'x.mp4', None, r'x\.mp4: .*a\.png is an image.*\.png'),
    (['clip.mp4'], 'x.png', None, r'x\.png: .*clip\.mp4 is a video.*\.mp4, \.mkv'),
    (['clip.mp4'], 'x.mov', None, r'x\.mov: .*\.mp4, \.mkv'),
    (['a.png'], 'x.xyz', None, r'x\.xyz: .*\.png.*folder'),
    (['clip.mp4'], 'x.MP3', None, r'x\.MP3: .*\.mp4, \.mkv'),
    (['a.png'], 'a.png', None, r'a\.png: .*overwrite')])
def test_an_output_file_that_does_not_fit_is_refused(
    sources: list[str], output: str, format: str | None, message: str, tmp_path: pathlib.Path,
    picture: Callable) -> None:
  for name in ('a.png', 'b.png', 'in/c.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  (tmp_path / 'clip.mp4').touch()
  with pytest.raises(InputError, match=message):
    upscale_jobs.plan([tmp_path / name for name in sources], tmp_path / output, format)
  assert not (tmp_path / output).exists() or output == 'a.png'


@pytest.mark.parametrize(('sources', 'output'), [
    (['a.png'], 'out.x4'), (['a.png'], 'out.2024'), (['a.png'], 'v1.0'), (['a.png'], 'out'),
    (['a.png', 'b.png'], 'out.xyz'), (['in'], 'out.xyz'), (['a.png'], 'made.xyz')])
def test_an_output_folder_may_have_a_dot(sources: list[str], output: str, tmp_path: pathlib.Path,
                                         picture: Callable) -> None:
  for name in ('a.png', 'b.png', 'in/a.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  (tmp_path / 'made.xyz').mkdir()
  plan = upscale_jobs.plan([tmp_path / name for name in sources], tmp_path / output)
  assert plan.jobs[0].target == tmp_path / output / 'a.png'


def test_entries_of_a_folder_that_cannot_be_read_are_errors(tmp_path: pathlib.Path,
                                                            picture: Callable) -> None:
  for name in ('in/a.png', 'in/deep/b.png'):
    images.write_image(tmp_path / name, picture(8, 9))
  (tmp_path / 'in' / 'deep' / 'link.mp4').symlink_to('nowhere.mp4')
  os.mkfifo(tmp_path / 'in' / 'pipe.jpg')
  plan = upscale_jobs.plan([tmp_path / 'in', tmp_path / 'in' / 'deep'], tmp_path / 'out')
  assert sorted(plan.errors) == [f'{tmp_path}/in/deep/link.mp4: broken link',
                                 f'{tmp_path}/in/pipe.jpg: not a regular file']
  assert plan.notes == []


def test_a_folder_may_be_called_like_a_file(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  (tmp_path / 'x.png').mkdir()
  plan = upscale_jobs.plan([tmp_path / 'a.png'], tmp_path / 'x.png')
  assert plan.jobs == [Job(tmp_path / 'a.png', tmp_path / 'x.png' / 'a.png', 'png')]


def test_a_result_name_that_is_too_long_is_refused(tmp_path: pathlib.Path,
                                                   picture: Callable) -> None:
  long = tmp_path / ('n' * 252 + '.ts')  # its result would have 256 bytes
  long.touch()
  images.write_image(tmp_path / 'a.png', picture(8, 9))
  plan = upscale_jobs.plan([long, tmp_path / 'a.png'], tmp_path / 'out')
  assert [job.source.name for job in plan.jobs] == ['a.png']
  assert re.search(r'256 bytes.* 255 ', plan.errors[0])
  assert upscale_jobs.plan([long], tmp_path / 'short.mp4').errors == []


def test_a_heic_file_is_not_taken_for_a_video(tmp_path: pathlib.Path) -> None:
  """FFmpeg reads the tiles of HEIC as video streams."""
  assert not upscale_jobs.is_video(tmp_path / 'a.heic')
  source = make(tmp_path / 'a.mp4', [np.zeros((16, 16, 3), np.uint8)], sound='')
  data = source.read_bytes()
  source.write_bytes(data.replace(b'ftypisom', b'ftypheic', 1))
  with pytest.raises(InputError, match='image'), clips.open_video(source):
    pass
  os.rename(source, tmp_path / 'a')
  with pytest.raises(InputError, match=f'{tmp_path / "a"}: '):
    upscale_jobs.is_video(tmp_path / 'a')
