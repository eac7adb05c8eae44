"""Upscaled videos: timestamps, colours and sound; interruption, resuming and invalid input."""

import re
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sr_jax.errors import InputError
from sr_jax.media import clip_frames, clips, remux, segments
from sr_jax.media.video import VideoOptions, upscale_video

PATCHES = np.uint8([[200, 40, 40], [40, 180, 60], [50, 60, 210], [128, 128, 128], [235, 220, 60],
                    [16, 16, 16], [250, 250, 250], [180, 60, 190]])


def twice(frames: np.ndarray) -> np.ndarray:
  """Replaces a network: uint8 [B, h, w, 3] to [B, 2h, 2w, 3]."""
  return frames.repeat(2, 1).repeat(2, 2)


def thrice(frames: np.ndarray) -> np.ndarray:
  return frames.repeat(3, 1).repeat(3, 2)


def moving(count: int, height: int = 24, width: int = 32) -> Iterator[np.ndarray]:
  """Yields uint8 frames that all differ, smooth enough for 4:2:0."""
  y, x = np.mgrid[:height, :width]
  for i in range(count):
    yield np.uint8(np.stack([127 + 100 * np.sin(x / 9 + i / 3), 20 + 200 * y / height,
                             np.full_like(x, 8 * i % 256)], -1))


def make(path: Path, frames: Iterable[np.ndarray] | None = None, *, times: list[int] | None = None,
         codec: str = 'libx264', sound: str = 'aac', pixels: str = 'yuv420p',
         aspect: Fraction | None = None, options: dict[str, str] | None = None) -> Path:
  """Writes a video of `frames` (default: 24) at 12 per second, or at `times` in milliseconds."""
  frames = list(moving(24) if frames is None else frames)
  base = Fraction(1, 1000) if times else Fraction(1, 12)
  color_range = 2 if pixels.startswith('yuvj') else 1  # full or limited range
  with av.open(str(path), 'w') as output:
    height, width = frames[0].shape[:2]
    video = output.add_stream(codec, rate=12, options=options or {}, width=width, height=height)
    video.pix_fmt, video.codec_context.time_base = pixels, base
    video.codec_context.colorspace, video.codec_context.color_range = 5, color_range
    if aspect:
      video.codec_context.sample_aspect_ratio = aspect
    if sound:
      audio = output.add_stream(sound, rate=48000, layout='mono')
    for i, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(image, 'rgb24').reformat(
          format=pixels, dst_colorspace=5, dst_color_range=color_range)
      frame.pts, frame.time_base = times[i] if times else i, base
      output.mux(video.encode(frame))
    output.mux(video.encode(None))
    if sound:
      wave = np.float32(0.3 * np.sin(np.arange(48000 * len(frames) // 12) / 20))[None]
      for start in range(0, wave.shape[1], 960):
        frame = av.AudioFrame.from_ndarray(wave[:, start:start + 960], 'fltp', 'mono')
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        output.mux(audio.encode(frame))
      output.mux(audio.encode(None))
  return path


def read(path: Path) -> tuple[list[Fraction], np.ndarray]:
  """Returns (times in seconds, frames [N, h, w, 3] by FFmpeg's own conversion)."""
  with av.open(str(path)) as container:
    frames = list(container.decode(video=0))
    return ([frame.pts * frame.time_base for frame in frames],
            np.stack([frame.to_ndarray(format='rgb24') for frame in frames]))


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
  """Returns [(time, bytes), ...] of the first sound stream."""
  with av.open(str(path)) as container:
    return [(packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(audio=0) if packet.size]


def sound_seconds(path: Path) -> float:
  with av.open(str(path)) as container:
    return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.fixture(scope='module')
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A video of 24 frames with sound."""
  return make(tmp_path_factory.mktemp('clips') / 'clip.mp4')


def names_in(folder: Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir())


def test_frames_timestamps_and_sound_are_kept(clip: Path, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]) -> None:
  shapes, calls = set(), []

  def upscale(frames: np.ndarray) -> np.ndarray:
    shapes.add(frames.shape)
    return twice(frames)

  words = upscale_video(upscale, 2, clip, tmp_path / 'out.mp4', VideoOptions(batch=5, segment=7),
                        lambda *counts: calls.append(counts))
  assert words == '24 frames of 64x48 (from 32x24), sound copied (aac)'
  assert shapes == {(5, 24, 32, 3)}  # the last batch too, so that the network is compiled once
  assert calls[-1] == (24, 24)
  assert calls == sorted(set(calls))
  (times, lr), (new_times, sr) = read(clip), read(tmp_path / 'out.mp4')
  assert new_times == times == [Fraction(i, 12) for i in range(24)]
  assert sr.shape == (24, 48, 64, 3)
  assert np.abs(np.int16(sr) - twice(lr)).mean() < 4
  assert sound_packets(tmp_path / 'out.mp4') == sound_packets(clip)
  with av.open(str(tmp_path / 'out.mp4')) as container:
    stream = container.streams.video[0]
    assert (stream.average_rate, stream.frames, stream.codec_context.name) == (12, 24, 'h264')
    assert container.duration == pytest.approx(2e6, abs=5e4)
  assert names_in(tmp_path) == ['out.mp4']
  assert capfd.readouterr() == ('', '')


@pytest.mark.slow
def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
  gaps = np.array([33, 34, 33, 200, 17, 1000, 40, 5, 70, 41])
  times = [0, *np.cumsum(gaps).tolist()]
  source = make(tmp_path / 'variable.mkv', moving(11), times=times)
  for name in ('a.mp4', 'b.mkv'):
    upscale_video(twice, 2, source, tmp_path / name, VideoOptions(segment=4))
    assert read(tmp_path / name)[0] == read(source)[0] == [Fraction(t, 1000) for t in times]


@pytest.mark.slow
def test_an_odd_size_is_padded_by_repeating_the_edge(tmp_path: Path) -> None:
  # 4:4:4 supports odd sides, and three times an odd side is odd.
  source = make(tmp_path / 'odd.mkv', [np.tile(PATCHES[:1], (23, 31, 1))] * 3, pixels='yuv444p',
                sound='')
  words = upscale_video(thrice, 3, source, tmp_path / 'out.mp4')
  assert re.match(r'3 frames of 93x69 \(from 31x23\), no sound, .*last row or column$', words)
  sr = read(tmp_path / 'out.mp4')[1]
  assert sr.shape == (3, 70, 94, 3)
  np.testing.assert_allclose(sr, np.broadcast_to(PATCHES[0], sr.shape), atol=4)


@pytest.mark.slow
@pytest.mark.parametrize(('codec', 'sound', 'target', 'expected'), [
    ('libvpx', 'libopus', 'out.mp4', 'copied (opus)'),
    ('libvpx', 'libopus', 'out.mkv', 'copied (opus)'),
    ('mpeg4', 'pcm_s16le', 'out.mkv', 'copied (pcm_s16le)'),
    ('mpeg4', 'pcm_s16le', 'out.mp4', 'encoded to AAC (was pcm_s16le)')])
def test_other_codecs(codec: str, sound: str, target: str, expected: str, tmp_path: Path) -> None:
  source = make(tmp_path / ('in.webm' if codec == 'libvpx' else 'in.mkv'), codec=codec,
                sound=sound)
  words = upscale_video(twice, 2, source, tmp_path / target)
  assert words.endswith(f'sound {expected}')
  # WebM timestamps are in milliseconds.
  assert read(tmp_path / target)[0] == pytest.approx(read(source)[0], abs=1e-9)
  assert sound_seconds(tmp_path / target) == pytest.approx(sound_seconds(source), abs=0.03)
  if 'copied' in expected:
    new, old = sound_packets(tmp_path / target), sound_packets(source)
    assert [data for _, data in new] == [data for _, data in old]
    assert [t for t, _ in new] == pytest.approx([t for t, _ in old], abs=2e-3)


def interrupted(after: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns `twice`, changed to raise KeyboardInterrupt in call number `after`."""
  calls = iter(range(after + 1))

  def upscale(frames: np.ndarray) -> np.ndarray:
    if next(calls) == after:
      raise KeyboardInterrupt
    return twice(frames)
  return upscale


@pytest.mark.slow
def test_an_interrupted_call_resumes_with_the_same_frames(clip: Path, tmp_path: Path) -> None:
  options = VideoOptions(batch=2, segment=6)
  upscale_video(twice, 2, clip, tmp_path / 'reference.mp4', options)
  target = tmp_path / 'out.mp4'
  for calls in range(12):  # each call ends in a different batch of a different segment
    with pytest.raises(KeyboardInterrupt):
      upscale_video(interrupted(calls % 4), 2, clip, target, options)
    parts = names_in(tmp_path / '.out.mp4.parts')
    assert all(name == 'job.json' or not name.startswith('.') for name in parts)
    assert not target.exists()
    if len(parts) == 5:  # with the lock and the description of the job
      break
  (tmp_path / '.out.mp4.parts' / '.half.mp4').write_bytes(b'left by SIGKILL')
  words = upscale_video(twice, 2, clip, target, options)
  assert re.search(r'reused 18 frames', words), words
  times, frames = read(target)
  expected_times, expected = read(tmp_path / 'reference.mp4')
  assert times == expected_times
  np.testing.assert_array_equal(frames, expected)
  assert sound_packets(target) == sound_packets(clip)
  assert names_in(tmp_path) == ['out.mp4', 'reference.mp4']


@pytest.mark.slow
def test_another_network_or_video_starts_over(clip: Path, tmp_path: Path) -> None:
  source, target = tmp_path / 'clip.mp4', tmp_path / 'out.mp4'
  source.write_bytes(clip.read_bytes())

  def options(identity: str) -> VideoOptions:
    return VideoOptions(segment=8, identity=identity)

  def stop_in_the_second_segment(identity: str) -> None:
    with pytest.raises(KeyboardInterrupt):
      upscale_video(interrupted(3), 2, source, target, options(identity))
    assert (tmp_path / '.out.mp4.parts' / '000000.mp4').exists()

  stop_in_the_second_segment('a')
  words = upscale_video(lambda frames: 255 - twice(frames), 2, source, target, options('b'))
  assert re.search(r'\(.*: network\)$', words), words
  assert 'reused' not in words
  negative = read(target)[1]
  assert np.abs(255 - np.int16(negative) - twice(read(source)[1])).mean() < 4

  target.unlink()
  stop_in_the_second_segment('b')
  make(source, list(moving(12)))
  words = upscale_video(twice, 2, source, target, options('b'))
  assert words.startswith('12 frames')
  assert re.search(r'\(.*: video\)$', words), words
  assert 'reused' not in words


@pytest.mark.slow
def test_names_with_a_colon_are_files(clip: Path, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'part 1:2.mp4').write_bytes(clip.read_bytes())
  upscale_video(twice, 2, 'part 1:2.mp4', 'out:b.mp4', VideoOptions(segment=12))
  upscale_video(twice, 2, 'part 1:2.mp4', 'new/out:b.MKV', VideoOptions(segment=12))
  for path in (tmp_path / 'out:b.mp4', tmp_path / 'new' / 'out:b.MKV'):
    assert len(read(path)[0]) == 24


@pytest.mark.slow
@pytest.mark.parametrize('part', ['000000.mp4', '000001.mp4'])
def test_a_damaged_segment_is_made_again(part: str, clip: Path, tmp_path: Path) -> None:
  target, path = tmp_path / 'out.mp4', tmp_path / '.out.mp4.parts' / part
  options = VideoOptions(segment=8)
  with pytest.raises(KeyboardInterrupt):
    upscale_video(interrupted(5), 2, clip, target, options)
  path.write_bytes(b'' if part == '000000.mp4' else path.read_bytes()[:-100])
  with pytest.raises(InputError, match=f'{part}: .*damaged'):
    upscale_video(twice, 2, clip, target, options)
  assert not path.exists()
  assert not target.exists()
  words = upscale_video(twice, 2, clip, target, options)
  assert re.search(r'reused 16 frames', words), words
  assert len(read(target)[0]) == 24


# Kr, Kb of the matrices of ITU-T H.273.
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def to_yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
  """Converts [..., 3] from 0..255 to 0..255 by the definition, in float."""
  kr, kb = WEIGHTS[matrix]
  r, g, b = np.moveaxis(np.float64(rgb) / 255, -1, 0)
  luma = kr * r + (1 - kr - kb) * g + kb * b
  yuv = np.stack([luma, (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)], -1)
  return yuv * (255 if full else (219, 224, 224)) + ((0, 128, 128) if full else (16, 128, 128))


def to_rgb(yuv: np.ndarray, matrix: int, full: bool) -> np.ndarray:
  """Inverts `to_yuv`."""
  kr, kb = WEIGHTS[matrix]
  luma, u, v = np.moveaxis((np.float64(yuv) - ((0, 128, 128) if full else (16, 128, 128)))
                           / (255 if full else (219, 224, 224)), -1, 0)
  r, b = luma + (2 - 2 * kr) * v, luma + (2 - 2 * kb) * u
  return 255 * np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], -1)


def patches_clip(path: Path, patch: int, matrix: int, full: bool, tagged: bool) -> Path:
  """Writes two frames of PATCHES, each 16 high and `patch` wide, 4:2:0 by the definition."""
  flat = np.uint8(np.round(to_yuv(PATCHES, matrix, full))).repeat(patch, 0)
  planes = [np.broadcast_to(flat[:, 0], (16, 8 * patch)),
            *(np.broadcast_to(flat[::2, i], (8, 4 * patch)) for i in (1, 2))]
  frame = av.VideoFrame.from_ndarray(
      np.concatenate([plane.reshape(-1, 8 * patch) for plane in planes]), 'yuv420p')
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=10, options={'qp': '0'}, width=8 * patch, height=16)
    if tagged:
      context = stream.codec_context
      context.colorspace, context.color_range = matrix, 2 if full else 1
      context.color_primaries, context.color_trc = (9, 16) if matrix == 9 else (1, 1)
    for frame.pts in range(2):
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  return path


@pytest.mark.parametrize(('patch', 'matrix', 'full', 'tagged', 'new_matrix'), [
    (80, 5, False, True, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in [
        (16, 5, False, True, 6), (16, 1, False, True, 6), (16, 1, True, True, 6),
        (16, 6, False, False, 6), (160, 1, False, False, 1), (16, 9, False, True, 9)])])
def test_colours_do_not_shift(patch: int, matrix: int, full: bool, tagged: bool, new_matrix: int,
                              tmp_path: Path) -> None:
  """Also without a tag, where BT.709 is assumed for HD; patches of 80 become HD by upscaling."""
  source = patches_clip(tmp_path / 'in.mp4', patch, matrix, full, tagged)
  seen = []
  upscale_video(lambda frames: (seen.append(frames), twice(frames))[1], 2, source,
                tmp_path / 'out.mp4', VideoOptions(crf=1))
  middle = np.s_[patch // 2::patch]
  np.testing.assert_allclose(seen[0][0, 8, middle], PATCHES, atol=3)
  with av.open(str(tmp_path / 'out.mp4')) as container:
    frame = next(container.decode(video=0))
  assert (frame.format.name, frame.colorspace, frame.color_range) == ('yuv420p', new_matrix, 1)
  assert (frame.color_primaries, frame.color_trc) == (
      (2, 2) if not tagged else (9, 16) if matrix == 9 else (1, 1))
  y, u, v = (np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
             for plane in frame.planes)
  yuv = np.stack([y[16, patch:frame.width:2 * patch], u[8, patch // 2:frame.width // 2:patch],
                  v[8, patch // 2:frame.width // 2:patch]], -1)
  np.testing.assert_allclose(to_rgb(yuv, new_matrix, False), PATCHES, atol=4)


ROTATIONS = pytest.mark.parametrize(('matrix', 'to_upright'), [
    ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),  # a phone held upright
    ((0, -1, 1, 0), np.rot90),
    ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    ((-1, 0, 0, 1), np.fliplr),
    ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1))])


@ROTATIONS
def test_display_matrix(matrix: tuple[int, ...],
                        to_upright: Callable[[np.ndarray], np.ndarray]) -> None:
  image = np.arange(24).reshape(2, 4, 3)
  a, b, c, d = matrix
  upright = clips.apply_display_matrix(image, (a, b, 0, c, d, 0, 0, 0, 1))
  np.testing.assert_array_equal(upright, to_upright(image))
  assert clips.swaps_axes((a, b, 0, c, d, 0, 0, 0, 1)) == (upright.shape[:2] == (4, 2))


def test_a_clock_that_restarts_is_shifted() -> None:
  unit = Fraction(1, 1000)
  clock_shift = clip_frames.clock_shift
  assert clock_shift(5000, -100, None, 40, unit) == -100  # the first timestamp
  assert clock_shift(4500, 0, 5000, 40, unit) == 0  # half a second early: out of order
  assert clock_shift(3000, 0, 5000, 40, unit) == 5040 - 3000  # two seconds early: restarted


@pytest.mark.slow
@ROTATIONS
def test_a_rotated_video_becomes_upright(matrix: tuple[int, ...],
                                         to_upright: Callable[[np.ndarray], np.ndarray],
                                         tmp_path: Path) -> None:
  corner = np.zeros((24, 32, 3), np.uint8)
  corner[:8, :8] = 255
  source = make(tmp_path / 'in.mp4', [corner] * 3, sound='', aspect=Fraction(4, 3))
  # The matrix a b u c d v x y w follows 40 bytes of the track header's payload.
  data = bytearray(source.read_bytes())
  start = data.index(b'tkhd') + 4 + 40
  a, b, c, d = (value << 16 for value in matrix)
  data[start:start + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  source.write_bytes(data)
  upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  sr = read(tmp_path / 'out.mp4')[1][0]
  assert np.abs(np.int16(sr) - twice(to_upright(corner)[None])[0]).max() < 60  # at its edge
  with av.open(str(tmp_path / 'out.mp4')) as container:
    assert next(container.decode(video=0)).rotation == 0
    aspect = container.streams.video[0].sample_aspect_ratio
  assert aspect == (Fraction(4, 3) if sr.shape[1] > sr.shape[0] else Fraction(3, 4))


def test_invalid_input_is_named_in_one_line(clip: Path, tmp_path: Path,
                                            capfd: pytest.CaptureFixture[str]) -> None:
  (tmp_path / 'text.mp4').write_text('not a video')
  (tmp_path / 'empty.mp4').write_bytes(b'')
  data = clip.read_bytes()
  (tmp_path / 'cut.mp4').write_bytes(data[:data.index(b'moov') - 4])  # the index is at the end
  with av.open(str(tmp_path / 'sound.mp4'), 'w') as output:
    stream = output.add_stream('aac', rate=48000, layout='mono')
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), 'fltp', 'mono')
    frame.sample_rate = 48000
    output.mux([*stream.encode(frame), *stream.encode(None)])
  with av.open(str(tmp_path / 'none.mkv'), 'w') as output:
    packet = av.Packet(bytes(50))
    packet.stream = output.add_stream('mpeg4', rate=12, width=32, height=24)
    packet.pts = packet.dts = 0
    output.mux(packet)
  (tmp_path / 'file').write_text('')
  target = tmp_path / 'out.mp4'
  for name, reason in {
      'missing.mp4': r'\(No such file', 'text.mp4': r'\(Invalid data',
      'empty.mp4': r'\(Invalid data',
      'cut.mp4': r'\(Invalid data', 'sound.mp4': 'no video', 'none.mkv': 'no frame'}.items():
    with pytest.raises(InputError) as caught:
      upscale_video(twice, 2, tmp_path / name, target)
    assert re.match(f'{tmp_path / name}: .*{reason}', str(caught.value)), caught.value
    assert '\n' not in str(caught.value)
  for bad, reason in {'out.gif': '.mp4, .mkv', 'file/out.mp4': r'\(Not a directory'}.items():
    with pytest.raises(InputError, match=f'{bad}: .*{reason}'):
      upscale_video(twice, 2, clip, tmp_path / bad)
  with pytest.raises(InputError, match=r'clip\.mp4: .*source'):
    upscale_video(twice, 2, clip, clip)
  with pytest.raises(InputError, match=r'clip\.mp4: .*32x24.* 700 '):
    upscale_video(twice, 2, clip, target, VideoOptions(max_pixels=700))
  assert not [name for name in names_in(tmp_path) if 'out' in name]
  assert capfd.readouterr() == ('', '')


@pytest.mark.slow
def test_a_full_disk_is_named(clip: Path, tmp_path: Path) -> None:
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
  try:
    with pytest.raises(InputError, match=r'000000\.mp4: .*File too large'):
      upscale_video(twice, 2, clip, tmp_path / 'out.mp4')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert names_in(tmp_path) == []
  upscale_video(twice, 2, clip, tmp_path / 'out.mp4')
  assert len(read(tmp_path / 'out.mp4')[0]) == 24


@pytest.mark.slow
def test_unreadable_sound_is_dropped(clip: Path, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
  def damaged(*_: object) -> Iterator[av.Packet]:
    raise av.error.InvalidDataError(1, 'Invalid data')
    yield
  monkeypatch.setattr(remux, '_sound', damaged)
  words = upscale_video(twice, 2, clip, tmp_path / 'out.mp4')
  assert re.search(r'sound .*\(Invalid data\)$', words), words
  assert len(read(tmp_path / 'out.mp4')[0]) == 24


@pytest.mark.slow
def test_a_truncated_video_is_upscaled_up_to_its_end(tmp_path: Path) -> None:
  source = make(tmp_path / 'in.mkv')
  source.write_bytes(source.read_bytes()[:source.stat().st_size * 2 // 3])
  words = upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  assert re.search(r' 1\.\d of 2\.0 s', words), words
  assert read(tmp_path / 'out.mp4')[0] == read(source)[0]


@pytest.mark.slow
def test_without_x264_mpeg4_is_used(clip: Path, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(segments, 'ENCODERS', ('x', 'mpeg4'))
  upscale_video(twice, 2, clip, tmp_path / 'out.mp4', VideoOptions(segment=9))
  times, sr = read(tmp_path / 'out.mp4')
  assert times == read(clip)[0]
  assert np.abs(np.int16(sr) - twice(read(clip)[1])).mean() < 4
  monkeypatch.setattr(segments, 'ENCODERS', ('x', 'y'))
  with pytest.raises(InputError, match=r'encoder.*x or y'):
    upscale_video(twice, 2, clip, tmp_path / 'out.mp4')


KILLED = """
import sys, time
from sr_jax.media.video import VideoOptions, upscale_video
def twice(frames):
  time.sleep(0.1)
  return frames.repeat(2, 1).repeat(2, 2)
upscale_video(twice, 2, sys.argv[1], sys.argv[2], VideoOptions(batch=2, segment=6))
"""


@pytest.mark.slow
def test_a_killed_call_resumes_with_the_same_frames(clip: Path, tmp_path: Path) -> None:
  target = tmp_path / 'out.mp4'
  with subprocess.Popen([sys.executable, '-c', KILLED, clip, target]) as process:
    while not (tmp_path / '.out.mp4.parts' / '000001.mp4').exists():
      assert process.poll() is None
      time.sleep(0.01)
    time.sleep(0.15)  # until the next segment has begun
    process.kill()
  assert not target.exists()
  words = upscale_video(twice, 2, clip, target, VideoOptions(batch=2, segment=6))
  assert re.search(r'reused 12 frames', words), words
  upscale_video(twice, 2, clip, tmp_path / 'reference.mp4', VideoOptions(batch=2, segment=6))
  np.testing.assert_array_equal(read(target)[1], read(tmp_path / 'reference.mp4')[1])
  assert names_in(tmp_path) == ['out.mp4', 'reference.mp4']


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'codec', 'sound'), [
    ('in.avi', 'mpeg4', 'libmp3lame'), ('in.avi', 'libx264', 'libmp3lame'),
    ('in.ts', 'libx264', 'aac'), ('in.mpg', 'mpeg2video', 'mp2'), ('in.mov', 'mjpeg', 'pcm_s16le'),
    ('in.flv', 'libx264', 'aac'), ('in.vob', 'mpeg2video', 'mp2'), ('in.3gp', 'libx264', 'aac'),
    ('in.m2ts', 'libx264', 'ac3'), ('in.ogv', 'libvpx', 'libopus')])
def test_other_containers_keep_a_constant_rate(name: str, codec: str, sound: str,
                                               tmp_path: Path) -> None:
  """Also with B-frames, which are stored out of order; a transport stream starts at zero."""
  options = {'bf': '2'} if codec in ('mpeg4', 'libx264') else {}
  source = make(tmp_path / name, codec=codec, sound=sound, options=options,
                pixels='yuvj420p' if codec == 'mjpeg' else 'yuv420p')
  upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  times, frames = read(tmp_path / 'out.mp4')
  assert len(times) == 24
  np.testing.assert_allclose(np.diff(np.float64(times)), 1 / 12, atol=1e-3)
  assert 0 <= times[0] < 0.2
  assert np.abs(np.int16(frames) - twice(read(source)[1])).mean() < 5
  assert sound_seconds(tmp_path / 'out.mp4') == pytest.approx(sound_seconds(source), abs=0.05)


@pytest.mark.slow
def test_concatenated_recordings(tmp_path: Path) -> None:
  """The clock of the second restarts, and its larger frames are resized to those of the first."""
  make(tmp_path / 'a.ts', moving(36))
  make(tmp_path / 'b.ts', moving(36, 48, 64))
  source = tmp_path / 'both.ts'
  source.write_bytes((tmp_path / 'a.ts').read_bytes() + (tmp_path / 'b.ts').read_bytes())
  upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  times, frames = read(tmp_path / 'out.mp4')
  assert frames.shape == (72, 48, 64, 3)
  np.testing.assert_allclose(np.diff(np.float64(times)), 1 / 12, atol=0.01)
  blue = frames[..., 2].mean((1, 2))
  np.testing.assert_allclose(blue[36:], blue[:36], atol=8)
  heard = [float(time) for time, _ in sound_packets(tmp_path / 'out.mp4')]
  np.testing.assert_allclose(np.diff(heard), 1024 / 48000, atol=0.01)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
  """Compares peaks of processes; holding 250 more frames would take 220 MB."""
  peaks = []
  for count in (50, 300):
    frames = list(moving(2, 240, 320)) * (count // 2)
    source = make(tmp_path / f'{count}.mp4', frames, sound='', options={'preset': 'ultrafast'})
    script = KILLED.replace('0.1', '0').replace('segment=6', 'segment=50') + (
        'print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])')
    out = subprocess.run([sys.executable, '-c', script, source, tmp_path / 'out.mp4'],
                         capture_output=True, text=True, check=True).stdout
    peaks.append(int(out) / 1024)
  assert peaks[1] < peaks[0] + 40
