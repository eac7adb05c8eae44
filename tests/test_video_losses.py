"""What an upscaled video loses is reported, and what it can keep is kept."""

import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sr_jax.errors import InputError
from sr_jax.media import clips, interlacing, segments
from sr_jax.media.clip_frames import timed_frames
from sr_jax.media.video import VideoOptions, upscale_video
from tests.test_video import make, moving, names_in, read, twice


def write(path: Path, frames: list[av.VideoFrame], codec: str, *, format: str | None = None,
          options: dict[str, str] | None = None, field_order: int = 0) -> Path:
  """Writes frames, which keep their pixel format, at 25 per second."""
  with av.open(str(path), 'w', format=format) as output:
    stream = output.add_stream(codec, rate=25, options=options or {})
    stream.width, stream.height = frames[0].width, frames[0].height
    stream.pix_fmt, stream.codec_context.field_order = frames[0].format.name, field_order
    for index, frame in enumerate(frames):
      frame.pts, frame.time_base = index, Fraction(1, 25)
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  return path


def transparent(pixels: str, opaque: bool = False) -> list[av.VideoFrame]:
  """Returns four frames of one colour; the left half is hidden, the top is half transparent."""
  rgba = np.full((48, 64, 4), (200, 40, 40, 255), np.uint8)
  if not opaque:
    rgba[:, :32, 3], rgba[:16, :, 3] = 0, 128
  return [av.VideoFrame.from_ndarray(rgba, 'rgba').reformat(format=pixels) for _ in range(4)]


@pytest.mark.parametrize(('name', 'codec', 'pixels', 'options'), [
    ('a.mov', 'qtrle', 'argb', {}), ('a.mov', 'png', 'rgba', {}),
    ('a.webm', 'libvpx-vp9', 'yuva420p', {}), ('a.webm', 'libvpx', 'yuva420p', {
        'auto-alt-ref': '0'}), ('a.avi', 'utvideo', 'gbrap', {}),
    ('a.mov', 'prores_ks', 'yuva444p10le', {}), ('a.mkv', 'ffv1', 'yuva420p', {})])
def test_alpha_is_composited_over_white_and_reported(name: str, codec: str, pixels: str,
                                                     options: dict[str, str],
                                                     tmp_path: Path) -> None:
  source = write(tmp_path / name, transparent(pixels), codec, options=options)
  seen = []
  words = upscale_video(lambda lr: (seen.append(lr), twice(lr))[1], 2, source, tmp_path / 'o.mp4')
  assert 'alpha composited over white' in words
  assert ('bits reduced to 8' in words) == ('10le' in pixels)
  lr = seen[0][0]
  assert lr.shape == (48, 64, 3)
  np.testing.assert_allclose(lr[32, 16], 255, atol=1)  # hidden
  np.testing.assert_allclose(lr[32, 48], (200, 40, 40), atol=3)
  np.testing.assert_allclose(lr[4, 48], (227, 147, 147), atol=3)  # half transparent


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
  source = write(tmp_path / 'a.mov', transparent('argb', opaque=True), 'qtrle')
  seen = []
  words = upscale_video(lambda lr: (seen.append(lr), twice(lr))[1], 2, source, tmp_path / 'o.mp4')
  assert 'alpha' not in words
  assert (seen[0][0] == (200, 40, 40)).all()


def fields(count: int, progressive: range = range(0)) -> Iterator[np.ndarray]:
  """Yields [48, 64, 3] with a bar that moves between the fields, or not in `progressive`."""
  for index in range(count):
    image = np.full((48, 64, 3), 60, np.uint8)
    image[0::2, 5 * index:5 * index + 12] = 220
    image[1::2, 5 * index + 3 * (index not in progressive):][:, :12] = 220
    yield image


def comb(gray: np.ndarray) -> float:
  """Returns the mean difference between neighbouring rows, away from the edges."""
  return float(np.abs(np.diff(gray[8:40].astype(int), axis=0)).mean())


@pytest.mark.parametrize(('name', 'codec', 'pixels', 'count'), [
    ('a.mpg', 'mpeg2video', 'yuv420p', 8), ('a.mp4', 'libx264', 'yuv420p', 8),
    ('a.mov', 'prores_ks', 'yuv422p10le', 3), ('a.mkv', 'libx264', 'yuv420p', 2)])
def test_interlaced_frames_are_deinterlaced(name: str, codec: str, pixels: str, count: int,
                                            tmp_path: Path) -> None:
  frames = [av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format=pixels)
            for image in fields(count)]
  source = write(tmp_path / name, frames, codec, options={
      'flags': '+ilme+ildct', **({'x264-params': 'tff=1'} if codec == 'libx264' else {})})
  seen = []
  words = upscale_video(lambda lr: (seen.extend(lr), twice(lr))[1], 2, source, tmp_path / 'o.mp4',
                        VideoOptions(batch=1))
  assert f'interlaced frames deinterlaced ({count})' in words
  times, before = read(source)
  after_times, after = read(tmp_path / 'o.mp4')
  assert len(times) == len(after_times) == len(seen) == count
  np.testing.assert_allclose(np.diff(np.float64(after_times)), np.diff(np.float64(times)),
                             atol=1e-4)
  assert all(comb(image[..., 0]) > 10 for image in before)
  assert all(comb(image[..., 0]) < 2 for image in seen)
  # Every frame shows the bar where its first field has it.
  for index, image in enumerate(seen):
    assert image[24, 5 * index + 6, 0] > 190
  with av.open(str(tmp_path / 'o.mp4')) as container:
    assert not any(frame.interlaced_frame for frame in container.decode(video=0))
  assert after.shape[1:] == (96, 128, 3)


def test_progressive_frames_pass_the_filter_unchanged(tmp_path: Path) -> None:
  """Two recordings in one stream, of which only the second is interlaced, and a third."""
  parts = []
  for number, interlaced in enumerate((False, True, False)):
    frames = [av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format='yuv420p')
              for image in fields(5, range(0) if interlaced else range(5))]
    parts.append(write(tmp_path / f'{number}.ts', frames, 'libx264', options={
        'flags': '+ilme+ildct', 'x264-params': 'tff=1'} if interlaced else {}))
  source = tmp_path / 'all.ts'
  source.write_bytes(b''.join(part.read_bytes() for part in parts))
  with clips.open_video(source) as video:
    marks = [frame.interlaced_frame for frame in video.container.decode(video=0)]
  assert marks == [False] * 5 + [True] * 5 + [False] * 5
  with clips.open_video(source) as video:
    before = [frame.to_ndarray() for frame in video.container.decode(video=0)]
  with clips.open_video(source) as video:
    timed = list(timed_frames(video))
  assert video.seen.interlaced == 5
  assert [time for time, _ in timed] == sorted({time for time, _ in timed})
  for index, (_, frame) in enumerate(timed):
    assert (frame.to_ndarray() == before[index]).all() == (not 5 <= index < 10)


def test_a_field_order_for_frames_without_marks() -> None:
  frames = [(index, av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format='yuv422p'))
            for index, image in enumerate(fields(6))]
  for _, frame in frames:
    frame.time_base, frame.pts = Fraction(1, 25), None
  for order, shift in (('tff', 0), ('bff', 3)):
    result = list(interlacing.deinterlaced(iter(frames), 'a.mov', order))
    assert [time for time, _ in result] == list(range(6))
    for index, (_, frame) in enumerate(result[1:-1], 1):
      gray = frame.to_ndarray(format='gray')
      assert comb(gray) < 2
      assert gray[24, 5 * index + shift + 1] > 190
      assert gray[24, 5 * index + shift + 10] > 190
  unchanged = list(interlacing.deinterlaced(iter(frames), 'a.mov'))
  assert [frame for _, frame in unchanged] == [frame for _, frame in frames]


@pytest.mark.parametrize(('name', 'codec', 'pixels', 'note'), [
    ('a.mkv', 'ffv1', 'yuv422p', 'interlaced frames deinterlaced (4)'),
    ('a.mov', 'qtrle', 'rgb24', 'interlaced frames used as they are (4)')])
def test_a_container_may_state_the_field_order(name: str, codec: str, pixels: str, note: str,
                                               tmp_path: Path) -> None:
  frames = [av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format=pixels)
            for image in fields(4)]
  source = write(tmp_path / name, frames, codec, field_order=2)
  assert note in upscale_video(twice, 2, source, tmp_path / 'o.mp4')


def test_rgb_and_tiny_frames_stay_interlaced() -> None:
  for width, height, pixels, expected in ((64, 48, 'yuv420p', True), (64, 48, 'rgb24', False),
                                          (2, 48, 'yuv420p', False), (64, 2, 'yuv420p', False)):
    assert interlacing.can_deinterlace(av.VideoFrame(width, height, pixels)) == expected


@pytest.mark.parametrize(('codec', 'pixels', 'note'), [
    ('libx264', 'yuv420p10le', '10 bits reduced to 8'), ('ffv1', 'yuv444p12le', '12 bits'),
    ('ffv1', 'gray16le', '16 bits'), ('libx264', 'yuv444p', '')])
def test_the_bit_depth_is_reported(codec: str, pixels: str, note: str, tmp_path: Path) -> None:
  frames = [av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format=pixels)
            for image in moving(3)]
  words = upscale_video(twice, 2, write(tmp_path / 'a.mkv', frames, codec), tmp_path / 'o.mp4')
  assert note in words
  assert ('bits' in words) == bool(note)


def with_extras(path: Path, source: Path) -> Path:
  """Copies a video with chapters, tags, a subtitle, an attachment, and a second video stream."""
  with av.open(str(source)) as old, av.open(str(path), 'w') as output:
    output.metadata.update(title='A title', creation_time='2020-01-02T03:04:05.000000Z',
                           director='A director')
    output.set_chapters([
        {'id': number + 1, 'start': 1000 * number, 'end': 1000 * (number + 1),
         'time_base': Fraction(1, 1000), 'metadata': {'title': name}}
        for number, name in enumerate(('One', 'Two'))])
    streams = [output.add_stream_from_template(old.streams.video[0], opaque=True)
               for _ in range(2)]
    sound = output.add_stream_from_template(old.streams.audio[0], opaque=True)
    for stream in (*streams, sound):
      stream.metadata.update(language='deu', title='A track')
    output.add_attachment('font.ttf', 'font/ttf', bytes(100))
    words = output.add_stream('srt')
    words.codec_context.subtitle_header = b'[Script Info]\nScriptType: v4.00+\n'
    for packet in old.demux(video=0, audio=0):
      if packet.size:
        packet.stream = sound if packet.stream.type == 'audio' else streams[0]
        output.mux(packet)
    packet = av.Packet(b'a subtitle')
    packet.stream, packet.pts, packet.dts, packet.duration = words, 0, 0, 500
    packet.time_base = Fraction(1, 1000)
    output.mux(packet)
  return path


@pytest.mark.parametrize('target', ['o.mp4', 'o.mkv'])
def test_chapters_titles_and_languages_are_kept(target: str, tmp_path: Path) -> None:
  source = with_extras(tmp_path / 'a.mkv', make(tmp_path / 'clip.mp4'))
  words = upscale_video(twice, 2, source, tmp_path / target)
  assert 'chapters dropped' not in words
  assert 'further video streams dropped' in words
  assert 'attachments dropped' in words
  assert 'subtitles dropped' in words
  assert ('metadata dropped (DIRECTOR)' in words) == (target == 'o.mp4')
  with av.open(str(tmp_path / target)) as result:
    assert [(chapter['start'] * chapter['time_base'], chapter['end'] * chapter['time_base'],
             chapter['metadata']['title']) for chapter in result.chapters()] == [
                 (0, 1, 'One'), (1, 2, 'Two')]
    assert result.metadata['title'] == 'A title'
    assert result.metadata['creation_time'].startswith('2020-01-02T03:04:05')
    for stream in (result.streams.video[0], result.streams.audio[0]):
      assert stream.metadata['language'] == 'deu'
  # An MP4 with chapters has a data stream of their titles, which is not a loss.
  words = upscale_video(twice, 2, tmp_path / target, tmp_path / 'again.mp4')
  assert 'data streams' not in words
  assert 'chapters' not in words
  with av.open(str(tmp_path / 'again.mp4')) as result:
    assert len(result.chapters()) == 2


def test_hdr_metadata_is_reported_and_the_tags_are_kept(tmp_path: Path) -> None:
  frames = [av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format='yuv420p10le')
            for image in moving(3, 48, 64)]
  source = write(tmp_path / 'a.mp4', frames, 'libx265', options={'x265-params': (
      'log-level=none:pools=1:frame-threads=1:hdr10=1:colorprim=bt2020:transfer=smpte2084:'
      'colormatrix=bt2020nc:max-cll=1000,400:master-display=G(13250,34500)B(7500,3000)'
      'R(34000,16000)WP(15635,16450)L(10000000,1)')})
  words = upscale_video(twice, 2, source, tmp_path / 'o.mp4')
  assert 'HDR metadata dropped' in words
  assert '10 bits reduced to 8' in words
  with av.open(str(tmp_path / 'o.mp4')) as result:
    frame = next(result.decode(video=0))
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, 16, 9)


def test_frames_of_another_size_are_reported(tmp_path: Path) -> None:
  make(tmp_path / 'a.ts', moving(6), sound='')
  make(tmp_path / 'b.ts', moving(6, 48, 64), sound='')
  (tmp_path / 'c.ts').write_bytes(b''.join((tmp_path / name).read_bytes()
                                           for name in ('a.ts', 'b.ts')))
  words = upscale_video(twice, 2, tmp_path / 'c.ts', tmp_path / 'o.mp4')
  assert '6 frames of another size resized' in words


def test_a_late_start_is_not_taken_for_a_truncated_file(tmp_path: Path) -> None:
  source = make(tmp_path / 'a.mkv', moving(10), sound='',
                times=[5000 + 40 * index for index in range(10)])
  assert 'truncated' not in upscale_video(twice, 2, source, tmp_path / 'o.mp4')
  assert read(tmp_path / 'o.mp4')[0] == read(source)[0]


def test_a_result_that_the_encoder_cannot_store_is_refused_first(tmp_path: Path) -> None:
  source = make(tmp_path / 'wide.mp4', [np.zeros((16, 4200, 3), np.uint8)], sound='')

  def never(frames: np.ndarray) -> np.ndarray:
    raise AssertionError

  with pytest.raises(InputError, match=r'wide\.mp4: .*16800x64 .*16384'):
    upscale_video(never, 4, source, tmp_path / 'out' / 'o.mp4')
  assert names_in(tmp_path) == ['wide.mp4']
  segments.check_size(source, 16384, 64)
  segments.check_size(source, 2160, 16383)
  with pytest.raises(InputError, match=r'wide\.mp4: .*16384x16384.* 268 '):
    segments.check_size(source, 16384, 16384)  # which FFmpeg refuses


def test_nothing_remains_after_a_refusal(tmp_path: Path) -> None:
  source = make(tmp_path / 'a.mp4', moving(4), sound='')

  def full(frames: np.ndarray) -> np.ndarray:
    raise MemoryError

  with pytest.raises(MemoryError):
    upscale_video(full, 2, source, tmp_path / 'o.mp4')
  assert names_in(tmp_path) == ['a.mp4']


def test_a_second_call_is_refused(tmp_path: Path) -> None:
  source, target = make(tmp_path / 'a.mp4', moving(4), sound=''), tmp_path / 'o.mp4'
  messages = []

  def upscale(frames: np.ndarray) -> np.ndarray:
    with pytest.raises(InputError) as caught:
      upscale_video(twice, 2, source, target)
    messages.append(str(caught.value))
    return twice(frames)

  upscale_video(upscale, 2, source, target)
  assert re.match(rf'{target}: another process', messages[0])
  assert names_in(tmp_path) == ['a.mp4', 'o.mp4']
  upscale_video(twice, 2, source, target)  # the lock is free again


@pytest.mark.parametrize('size', [251, 255])
def test_a_name_of_255_bytes(size: int, tmp_path: Path) -> None:
  source = make(tmp_path / 'a.mp4', moving(4), sound='')
  target = tmp_path / ('n' * (size - 4) + '.mp4')
  upscale_video(twice, 2, source, target)
  assert names_in(tmp_path) == ['a.mp4', target.name]


def test_a_longer_name_is_refused(tmp_path: Path) -> None:
  source = make(tmp_path / 'a.mp4', moving(4), sound='')
  with pytest.raises(InputError, match=r'256 bytes.* 255'):
    upscale_video(twice, 2, source, tmp_path / ('n' * 252 + '.mp4'))


def test_a_frame_rate_of_nearly_zero(tmp_path: Path) -> None:
  source = make(tmp_path / 'a.avi', moving(3), codec='mpeg4', sound='')
  data = bytearray(source.read_bytes())
  start = data.index(b'strh') + 8 + 20  # dwScale and dwRate of the stream
  data[start:start + 8] = struct.pack('<II', 1_000_000_000, 1)
  source.write_bytes(data)
  with pytest.raises(InputError, match=r'a\.avi: .*1e-09 .*1/65535'):
    upscale_video(twice, 2, source, tmp_path / 'o.mp4')
  assert names_in(tmp_path) == ['a.avi']
