"""Clips: every frame at its time, with its colours and the sound; stopped, resumed, refused."""

import re
import resource
import struct
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from sr_jax.errors import InputError
from sr_jax.media import clips, remux
from sr_jax.media.video import upscale_video

PATCHES = np.uint8([[200, 40, 40], [40, 180, 60], [50, 60, 210], [128, 128, 128], [235, 220, 60],
                    [16, 16, 16], [250, 250, 250], [180, 60, 190]])


def twice(frames):
  """What stands for a network: uint8 [B, h, w, 3] to [B, 2h, 2w, 3]."""
  return frames.repeat(2, 1).repeat(2, 2)


def thrice(frames):
  return frames.repeat(3, 1).repeat(3, 2)


def moving(count, height=24, width=32):
  """uint8 frames that all differ, smooth enough for 4:2:0."""
  y, x = np.mgrid[:height, :width]
  for i in range(count):
    yield np.uint8(np.stack([127 + 100 * np.sin(x / 9 + i / 3), 20 + 200 * y / height,
                             np.full_like(x, 8 * i % 256)], -1))


def make(path, frames=None, *, times=None, base=Fraction(1, 12), codec='libx264', sound='aac',
         seconds=2.0, pixels='yuv420p', matrix=5, full=False, aspect=None, options=None):
  """A clip of 24 frames at 12 a second, or of `frames` at `times` in units of `base`."""
  frames = list(moving(24) if frames is None else frames)
  with av.open(str(path), 'w') as output:
    height, width = frames[0].shape[:2]
    video = output.add_stream(codec, rate=12, options=options or {}, width=width, height=height)
    video.pix_fmt, video.codec_context.time_base = pixels, base
    video.codec_context.colorspace, video.codec_context.color_range = matrix, 2 if full else 1
    if aspect:
      video.codec_context.sample_aspect_ratio = aspect
    if sound:
      audio = output.add_stream(sound, rate=48000, layout='mono')
    for i, picture in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(picture, 'rgb24').reformat(
          format=pixels, dst_colorspace=matrix, dst_color_range=2 if full else 1)
      frame.pts, frame.time_base = times[i] if times else i, base
      output.mux(video.encode(frame))
    output.mux(video.encode(None))
    if sound:
      wave = np.float32(0.3 * np.sin(np.arange(int(48000 * seconds)) / 20))[None]
      for start in range(0, wave.shape[1], 960):
        frame = av.AudioFrame.from_ndarray(wave[:, start:start + 960], 'fltp', 'mono')
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        output.mux(audio.encode(frame))
      output.mux(audio.encode(None))
  return path


def read(path):
  """(times in seconds, frames [N, h, w, 3] by FFmpeg's own conversion) of a clip."""
  with av.open(str(path)) as container:
    frames = list(container.decode(video=0))
    return ([frame.pts * frame.time_base for frame in frames],
            np.stack([frame.to_ndarray(format='rgb24') for frame in frames]))


def sound_packets(path):
  """[(time, bytes), ...] of the first stream of sound."""
  with av.open(str(path)) as container:
    return [(packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(audio=0) if packet.size]


def sound_seconds(path):
  with av.open(str(path)) as container:
    return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  return make(tmp_path_factory.mktemp('clips') / 'clip.mp4')


def leftovers(folder):
  return sorted(path.name for path in folder.iterdir())


def test_frames_times_and_sound_are_kept(clip, tmp_path, capfd):
  shapes, calls = set(), []

  def upscale(frames):
    shapes.add(frames.shape)
    return twice(frames)

  words = upscale_video(upscale, 2, clip, tmp_path / 'out.mp4', batch=5, segment=7,
                        progress=lambda *counts: calls.append(counts))
  assert words == '24 frames of 64x48 (from 32x24), sound copied (aac)'
  assert shapes == {(5, 24, 32, 3)}  # the last batch too: compiled once
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
  assert leftovers(tmp_path) == ['out.mp4']
  assert capfd.readouterr() == ('', '')


def test_a_variable_rate_is_kept(tmp_path):
  gaps = np.array([33, 34, 33, 200, 17, 1000, 40, 5, 70, 41])
  times = [0, *np.cumsum(gaps).tolist()]
  source = make(tmp_path / 'variable.mkv', moving(11), times=times, base=Fraction(1, 1000))
  for name in ('a.mp4', 'b.mkv'):
    upscale_video(twice, 2, source, tmp_path / name, segment=4)
    assert read(tmp_path / name)[0] == read(source)[0] == [Fraction(t, 1000) for t in times]


def test_an_odd_size_is_padded_by_its_edge(tmp_path):
  # 4:4:4 has odd sides too; times 3 they stay odd
  source = make(tmp_path / 'odd.mkv', [np.tile(PATCHES[:1], (23, 31, 1))] * 3, pixels='yuv444p',
                sound='')
  words = upscale_video(thrice, 3, source, tmp_path / 'out.mp4')
  assert words == ('3 frames of 93x69 (from 31x23), no sound, made even by repeating the last '
                   'row or column')
  sr = read(tmp_path / 'out.mp4')[1]
  assert sr.shape == (3, 70, 94, 3)
  np.testing.assert_allclose(sr, np.broadcast_to(PATCHES[0], sr.shape), atol=4)


@pytest.mark.parametrize(('codec', 'sound', 'target', 'fate'), [
    ('libvpx', 'libopus', 'out.mp4', 'copied (opus)'),
    ('libvpx', 'libopus', 'out.mkv', 'copied (opus)'),
    ('mpeg4', 'pcm_s16le', 'out.mkv', 'copied (pcm_s16le)'),
    ('mpeg4', 'pcm_s16le', 'out.mp4', 'encoded to AAC (was pcm_s16le)')])
def test_other_codecs(codec, sound, target, fate, tmp_path):
  source = make(tmp_path / ('in.webm' if codec == 'libvpx' else 'in.mkv'), codec=codec,
                sound=sound)
  words = upscale_video(twice, 2, source, tmp_path / target)
  assert words.endswith(f'sound {fate}')
  # A webm counts in milliseconds
  assert read(tmp_path / target)[0] == pytest.approx(read(source)[0], abs=1e-9)
  assert sound_seconds(tmp_path / target) == pytest.approx(sound_seconds(source), abs=0.03)
  if 'copied' in fate:
    new, old = sound_packets(tmp_path / target), sound_packets(source)
    assert [data for _, data in new] == [data for _, data in old]
    assert [t for t, _ in new] == pytest.approx([t for t, _ in old], abs=2e-3)


def interrupted(after, error=KeyboardInterrupt):
  """`twice`, which raises at call number `after`."""
  calls = iter(range(after + 1))

  def upscale(frames):
    if next(calls) == after:
      raise error
    return twice(frames)
  return upscale


def test_stopped_anywhere_it_goes_on_to_the_same_frames(clip, tmp_path):
  settings = {'batch': 2, 'segment': 6}
  upscale_video(twice, 2, clip, tmp_path / 'whole.mp4', **settings)
  target = tmp_path / 'out.mp4'
  for calls in range(12):  # each call ends in another batch of another segment
    with pytest.raises(KeyboardInterrupt):
      upscale_video(interrupted(calls % 4), 2, clip, target, **settings)
    parts = leftovers(tmp_path / '.out.mp4.parts')
    assert all(name == 'job.json' or not name.startswith('.') for name in parts)
    assert not target.exists()
    if len(parts) == 4:
      break
  (tmp_path / '.out.mp4.parts' / '.half.mp4').write_bytes(b'left by SIGKILL')
  words = upscale_video(twice, 2, clip, target, **settings)
  assert words.endswith('18 of the frames were there')
  times, frames = read(target)
  whole_times, whole = read(tmp_path / 'whole.mp4')
  assert times == whole_times
  np.testing.assert_array_equal(frames, whole)
  assert sound_packets(target) == sound_packets(clip)
  assert leftovers(tmp_path) == ['out.mp4', 'whole.mp4']


def test_another_network_or_clip_begins_anew(clip, tmp_path):
  source, target = tmp_path / 'clip.mp4', tmp_path / 'out.mp4'
  source.write_bytes(clip.read_bytes())

  def stop_in_the_second_segment(identity):
    with pytest.raises(KeyboardInterrupt):
      upscale_video(interrupted(3), 2, source, target, segment=8, identity=identity)
    assert (tmp_path / '.out.mp4.parts' / '000000.mp4').exists()

  stop_in_the_second_segment('a')
  words = upscale_video(lambda frames: 255 - twice(frames), 2, source, target, segment=8,
                        identity='b')
  assert words.endswith('begun anew (what was there had another network)')
  negative = read(target)[1]
  assert np.abs(255 - np.int16(negative) - twice(read(source)[1])).mean() < 4

  target.unlink()
  stop_in_the_second_segment('b')
  make(source, list(moving(12)))
  words = upscale_video(twice, 2, source, target, segment=8, identity='b')
  assert words.startswith('12 frames')
  assert words.endswith('begun anew (what was there had another clip)')


def test_names_with_a_colon_are_files(clip, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'part 1:2.mp4').write_bytes(clip.read_bytes())
  upscale_video(twice, 2, 'part 1:2.mp4', 'out:b.mp4', segment=12)
  upscale_video(twice, 2, 'part 1:2.mp4', 'new/out:b.MKV', segment=12)
  for path in (tmp_path / 'out:b.mp4', tmp_path / 'new' / 'out:b.MKV'):
    assert len(read(path)[0]) == 24


@pytest.mark.parametrize('part', ['000000.mp4', '000001.mp4'])
def test_a_damaged_part_is_made_again(part, clip, tmp_path):
  target, path = tmp_path / 'out.mp4', tmp_path / '.out.mp4.parts' / part
  with pytest.raises(KeyboardInterrupt):
    upscale_video(interrupted(5), 2, clip, target, segment=8)
  path.write_bytes(b'' if part == '000000.mp4' else path.read_bytes()[:-100])
  with pytest.raises(InputError, match=f'{part}: was damaged and is removed'):
    upscale_video(twice, 2, clip, target, segment=8)
  assert not target.exists()
  words = upscale_video(twice, 2, clip, target, segment=8)
  assert words.endswith('16 of the frames were there')
  assert len(read(target)[0]) == 24


# Kr, Kb of ITU-T H.273's matrices
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def to_yuv(rgb, matrix, full):
  """[..., 3] in 0..255 both ways; the definition, in float."""
  kr, kb = WEIGHTS[matrix]
  r, g, b = np.moveaxis(np.float64(rgb) / 255, -1, 0)
  luma = kr * r + (1 - kr - kb) * g + kb * b
  yuv = np.stack([luma, (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)], -1)
  return yuv * (255 if full else (219, 224, 224)) + ((0, 128, 128) if full else (16, 128, 128))


def to_rgb(yuv, matrix, full):
  kr, kb = WEIGHTS[matrix]
  luma, u, v = np.moveaxis((np.float64(yuv) - ((0, 128, 128) if full else (16, 128, 128)))
                           / (255 if full else (219, 224, 224)), -1, 0)
  r, b = luma + (2 - 2 * kr) * v, luma + (2 - 2 * kb) * u
  return 255 * np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], -1)


def patches_clip(path, patch, matrix, full, tagged):
  """Two frames of PATCHES, each 16 high and `patch` wide, 4:2:0 by the definition."""
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
    (16, 5, False, True, 6), (16, 1, False, True, 6), (16, 1, True, True, 6),
    (16, 6, False, False, 6), (80, 5, False, True, 1), (160, 1, False, False, 1),
    (16, 9, False, True, 9)])
def test_colours_do_not_shift(patch, matrix, full, tagged, new_matrix, tmp_path):
  """Tagged or, without a tag, BT.709 where it is large; 80 is small and becomes large."""
  source = patches_clip(tmp_path / 'in.mp4', patch, matrix, full, tagged)
  seen = []
  upscale_video(lambda frames: (seen.append(frames), twice(frames))[1], 2, source,
                tmp_path / 'out.mp4', crf=1)
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


@pytest.mark.parametrize(('matrix', 'shown'), [
    ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),  # a telephone held upright
    ((0, -1, 1, 0), np.rot90),
    ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    ((-1, 0, 0, 1), np.fliplr),
    ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1))])
def test_a_turned_clip_is_made_upright(matrix, shown, tmp_path):
  corner = np.zeros((24, 32, 3), np.uint8)
  corner[:8, :8] = 255
  source = make(tmp_path / 'in.mp4', [corner] * 3, sound='', aspect=Fraction(4, 3))
  # The matrix a b u c d v x y w lies behind 40 bytes of the track header's payload.
  data = bytearray(source.read_bytes())
  start = data.index(b'tkhd') + 4 + 40
  a, b, c, d = (value << 16 for value in matrix)
  data[start:start + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  source.write_bytes(data)
  upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  sr = read(tmp_path / 'out.mp4')[1][0]
  assert np.abs(np.int16(sr) - twice(shown(corner)[None])[0]).max() < 60  # at the corner's edge
  with av.open(str(tmp_path / 'out.mp4')) as container:
    assert next(container.decode(video=0)).rotation == 0
    aspect = container.streams.video[0].sample_aspect_ratio
  assert aspect == (Fraction(4, 3) if sr.shape[1] > sr.shape[0] else Fraction(3, 4))


def test_bad_input_is_named_in_one_line(clip, tmp_path, capfd):
  (tmp_path / 'text.mp4').write_text('no clip')
  (tmp_path / 'empty.mp4').write_bytes(b'')
  whole = clip.read_bytes()
  (tmp_path / 'cut.mp4').write_bytes(whole[:whole.index(b'moov') - 4])  # the index is at the end
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
  for name, words in {
      'missing.mp4': 'no video that can be read (No such file', 'text.mp4': 'no video that can',
      'empty.mp4': 'no video that can be read', 'cut.mp4': 'no video that can be read',
      'sound.mp4': 'holds no video', 'none.mkv': 'holds no frame'}.items():
    with pytest.raises(InputError) as caught:
      upscale_video(twice, 2, tmp_path / name, target)
    assert str(caught.value).startswith(f'{tmp_path / name}: {words}')
    assert '\n' not in str(caught.value)
  for bad, words in {'out.gif': 'a clip is written as one of .mp4, .mkv',
                     'file/out.mp4': 'can not be written'}.items():
    with pytest.raises(InputError, match=f'{bad}: {words}'):
      upscale_video(twice, 2, clip, tmp_path / bad)
  with pytest.raises(InputError, match='or the clip itself'):
    upscale_video(twice, 2, clip, clip)
  with pytest.raises(InputError, match=r'clip\.mp4: frames of 32x24 have more than 700 pixels'):
    upscale_video(twice, 2, clip, target, max_pixels=700)
  assert not [name for name in leftovers(tmp_path) if 'out' in name]
  assert capfd.readouterr() == ('', '')


def test_a_full_disk_is_named(clip, tmp_path):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
  try:
    with pytest.raises(InputError, match=r'000000\.mp4: can not be written \(File too large\)'):
      upscale_video(twice, 2, clip, tmp_path / 'out.mp4')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert leftovers(tmp_path / '.out.mp4.parts') == ['job.json']
  upscale_video(twice, 2, clip, tmp_path / 'out.mp4')
  assert len(read(tmp_path / 'out.mp4')[0]) == 24


def test_sound_that_can_not_be_kept_is_no_reason_to_lose_the_pictures(clip, tmp_path, monkeypatch):
  def damaged(*_):
    raise av.error.InvalidDataError(1, 'Invalid data')
    yield
  monkeypatch.setattr(remux, '_sound', damaged)
  words = upscale_video(twice, 2, clip, tmp_path / 'out.mp4')
  assert words.endswith('sound lost, which can not be read (Invalid data)')
  assert len(read(tmp_path / 'out.mp4')[0]) == 24


def test_a_clip_that_breaks_off_is_made_up_to_there(tmp_path):
  source = make(tmp_path / 'in.mkv')
  source.write_bytes(source.read_bytes()[:source.stat().st_size * 2 // 3])
  words = upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  assert re.search(r'ends after 1\.\d of 2\.0 s and may be cut off$', words), words
  assert read(tmp_path / 'out.mp4')[0] == read(source)[0]


def test_without_x264_it_is_mpeg4(clip, tmp_path, monkeypatch):
  monkeypatch.setattr(clips, 'ENCODERS', ('x', 'mpeg4'))
  upscale_video(twice, 2, clip, tmp_path / 'out.mp4', segment=9)
  times, sr = read(tmp_path / 'out.mp4')
  assert times == read(clip)[0]
  assert np.abs(np.int16(sr) - twice(read(clip)[1])).mean() < 4
  monkeypatch.setattr(clips, 'ENCODERS', ('x', 'y'))
  with pytest.raises(InputError, match='no encoder of x or y'):
    upscale_video(twice, 2, clip, tmp_path / 'out.mp4')


KILLED = """
import sys, time
from sr_jax.media.video import upscale_video
def twice(frames):
  time.sleep(0.1)
  return frames.repeat(2, 1).repeat(2, 2)
upscale_video(twice, 2, sys.argv[1], sys.argv[2], batch=2, segment=6)
"""


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_frames(clip, tmp_path):
  target = tmp_path / 'out.mp4'
  with subprocess.Popen([sys.executable, '-c', KILLED, clip, target]) as process:
    while not (tmp_path / '.out.mp4.parts' / '000001.mp4').exists():
      assert process.poll() is None
      time.sleep(0.01)
    time.sleep(0.15)  # into the next
    process.kill()
  assert not target.exists()
  words = upscale_video(twice, 2, clip, target, batch=2, segment=6)
  assert words.endswith('12 of the frames were there')
  upscale_video(twice, 2, clip, tmp_path / 'whole.mp4', batch=2, segment=6)
  np.testing.assert_array_equal(read(target)[1], read(tmp_path / 'whole.mp4')[1])
  assert leftovers(tmp_path) == ['out.mp4', 'whole.mp4']


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'codec', 'sound'), [
    ('in.avi', 'mpeg4', 'libmp3lame'), ('in.avi', 'libx264', 'libmp3lame'),
    ('in.ts', 'libx264', 'aac'), ('in.mpg', 'mpeg2video', 'mp2'), ('in.mov', 'mjpeg', 'pcm_s16le'),
    ('in.flv', 'libx264', 'aac')])
def test_other_containers_keep_a_constant_rate(name, codec, sound, tmp_path):
  """With frames out of order in the file; a transport stream's clock is set to zero."""
  options = {'bf': '2'} if codec in ('mpeg4', 'libx264') else {}
  source = make(tmp_path / name, codec=codec, sound=sound, options=options,
                pixels='yuvj420p' if codec == 'mjpeg' else 'yuv420p', full=codec == 'mjpeg')
  upscale_video(twice, 2, source, tmp_path / 'out.mp4')
  times, frames = read(tmp_path / 'out.mp4')
  assert len(times) == 24
  np.testing.assert_allclose(np.diff(np.float64(times)), 1 / 12, atol=1e-3)
  assert 0 <= times[0] < 0.2
  assert np.abs(np.int16(frames) - twice(read(source)[1])).mean() < 5
  assert sound_seconds(tmp_path / 'out.mp4') == pytest.approx(sound_seconds(source), abs=0.05)


@pytest.mark.slow
def test_recordings_end_to_end(tmp_path):
  """The second one's clock starts anew and its pictures are larger; all have the first's size."""
  make(tmp_path / 'a.ts', list(moving(36)), seconds=3)
  make(tmp_path / 'b.ts', list(moving(36, 48, 64)), seconds=3)
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
def test_memory_does_not_grow_with_the_clip(tmp_path):
  """Peaks of processes; 250 frames more would be 220 MB more."""
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
