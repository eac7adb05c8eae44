"""The command that resizes images."""

import functools
import os
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sr_jax import images, resize
from sr_jax.system import files
from tests.conftest import interrupt
from tests.test_video import make

MakeImage = Callable[..., np.ndarray]  # the fixture `picture`
RunCommand = Callable[..., tuple[int, str, str]]  # arguments -> (exit status, stdout, stderr)


@pytest.fixture
def run(call: RunCommand) -> RunCommand:
  """Returns run('IN', 'OUT', ...) -> (exit status, stdout, stderr)."""
  return functools.partial(call, resize.main)


def test_a_folder_keeps_its_structure(run: RunCommand, tmp_path: Path, picture: MakeImage) -> None:
  originals = {'a.png': picture(40, 52), 'deep/b.bmp': picture(24, 32, 1),
               'deep/er/c.png': picture(28, 36, 2)[..., :1]}
  for name, image in originals.items():
    images.write_image(tmp_path / 'hr' / name, image)
  status, out, err = run('hr', 'lr', '--scale', '1/4')
  assert (status, err) == (0, '')
  assert re.fullmatch(r'3 of 3 .* lr\n', out)
  assert len([path for path in (tmp_path / 'lr').rglob('*') if path.is_file()]) == 3
  for name, image in originals.items():
    lr = images.read_image((tmp_path / 'lr' / name).with_suffix('.png'))
    np.testing.assert_array_equal(lr, images.imresize(image, Fraction(1, 4)), err_msg=name)


def test_cropping_is_reported(run: RunCommand, tmp_path: Path, picture: MakeImage) -> None:
  images.write_image(tmp_path / 'a.png', picture(41, 50))
  status, out, _ = run('a.png', 'lr.png', '--scale', '1/4', '--method', 'bilinear')
  assert status == 0
  assert re.fullmatch(r'1 cropped .* 4: a\.png\n1 of 1 .* lr\.png\n', out)
  np.testing.assert_array_equal(images.read_image(tmp_path / 'lr.png'), images.imresize(
      picture(41, 50)[:40, :48], Fraction(1, 4), 'bilinear'))


def test_upscaling_a_file_into_a_folder(run: RunCommand, tmp_path: Path,
                                        picture: MakeImage) -> None:
  images.write_image(tmp_path / 'a.bmp', picture(9, 7))
  assert run('a.bmp', 'out', '--scale', '2', '--method', 'nearest')[0] == 0
  np.testing.assert_array_equal(images.read_image(tmp_path / 'out' / 'a.png'),
                                picture(9, 7).repeat(2, 0).repeat(2, 1))
  assert run('a.bmp', 'half.png', '--scale', '1.5')[0] == 0
  assert images.image_size(tmp_path / 'half.png') == (12, 9)  # cropped to 8x6, then 1.5 times


def test_leftovers_of_killed_calls_are_removed(run: RunCommand, tmp_path: Path,
                                               picture: MakeImage) -> None:
  images.write_image(tmp_path / 'hr' / 'a.png', picture(8, 8))
  (tmp_path / 'lr').mkdir()
  (tmp_path / 'lr' / f'{files.UNFINISHED}1.png').write_bytes(b'half')
  assert run('hr', 'lr', '--scale', '1/4')[0] == 0
  assert [path.name for path in (tmp_path / 'lr').iterdir()] == ['a.png']


def test_one_bad_file_does_not_stop_the_rest(run: RunCommand, tmp_path: Path,
                                             picture: MakeImage) -> None:
  for name in 'abc':
    images.write_image(tmp_path / 'hr' / f'{name}.png', picture(20, 20))
  (tmp_path / 'hr' / 'b.png').write_text('not an image')
  images.write_image(tmp_path / 'hr' / 'd.png', picture(3, 20))
  status, out, err = run('hr', 'lr', '--scale', '1/4')
  assert status == 1
  assert re.fullmatch(r'2 of 4 .* lr\n', out)
  assert re.fullmatch(r'sr_jax: 2 .*: hr/b\.png: not .*, hr/d\.png: 3x20 .* 1/4\n', err)
  assert sorted(path.name for path in (tmp_path / 'lr').iterdir()) == ['a.png', 'c.png']


@pytest.mark.parametrize(('arguments', 'message'), [
    (['hr'], 'OUT'),
    (['hr', 'lr'], '--scale'),
    (['hr', 'lr', '--scale', 'half'], '--scale half'),
    (['hr', 'lr', '--scale', '0'], '--scale 0'),
    (['hr', 'lr', '--scale', '1/0'], '--scale 1/0'),
    (['hr', 'lr', '--scale', '0.33'], '--scale 0.33.*fraction'),
    (['hr', 'lr', '--scale', '-2'], '--scale'),
    (['hr', 'lr', '--scale', '1/2', '--method', 'lanczos'], 'lanczos.*bicubic'),
    (['hr', 'lr', 'more', '--scale', '1/2'], 'more'),
    (['nowhere', 'lr', '--scale', '1/2'], 'nowhere: no such file or folder'),
    (['empty', 'lr', '--scale', '1/2'], r'empty: .*no image'),
    (['hr', 'hr', '--scale', '1/2'], 'hr: .*hr'),
    (['hr', 'hr/lr', '--scale', '1/2'], 'hr/lr: .*hr'),
    (['hr', 'hr/a.png', '--scale', '1/2'], 'hr/a.png: .*hr'),
    (['hr/a.png', 'hr', '--scale', '1/2'], 'hr/a.png: .*overwrite'),
    (['below', 'top', '--scale', '1/2'], 'top/below/a.png: .*overwrite'),
    (['hr', '', '--scale', '1/2'], 'OUT.*empty'),
    (['~nobody_here/x', 'lr', '--scale', '1/2'], 'nobody_here/x: no such file'),
    (['n' * 300, 'lr', '--scale', '1/2'], 'nnn: File name too long'),
    (['hr/a.png', 'lr.jpg', '--scale', '1/2'], r'lr\.jpg: .*PNG'),
    (['hr', 'file.png', '--scale', '1/2'], 'file.png: is a file'),
    (['hr/a.png', '/proc/none/lr.png', '--scale', '1/2'], r'/proc/none/lr\.png: .*\(No such file'),
])
def test_invalid_input_is_one_line_and_a_status(run: RunCommand, tmp_path: Path, picture: MakeImage,
                                                arguments: list[str], message: str) -> None:
  for name in ('hr/a.png', 'file.png'):
    images.write_image(tmp_path / name, picture(20, 20))
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'top').mkdir()
  images.write_image(tmp_path / 'top' / 'below' / 'below' / 'a.png', picture(20, 20))
  images.write_image(tmp_path / 'top' / 'below' / 'a.png', picture(20, 20))
  (tmp_path / 'below').symlink_to(tmp_path / 'top' / 'below')
  status, out, err = run(*arguments)
  assert (status, out) == (1, '')
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1
  assert re.search(message, err), err
  assert not (tmp_path / 'lr').exists()


def test_entries_that_cannot_be_read_are_errors(run: RunCommand, tmp_path: Path,
                                                picture: MakeImage) -> None:
  images.write_image(tmp_path / 'hr' / 'a.png', picture(20, 20))
  (tmp_path / 'hr' / 'link.png').symlink_to('nowhere.png')
  os.mkfifo(tmp_path / 'hr' / 'pipe.png')
  status, out, err = run('hr', 'lr', '--scale', '1/2')
  assert (status, out) == (1, '1 of 1 written to lr\n')
  assert re.fullmatch(r'sr_jax: 2 .*: hr/link\.png: broken link, hr/pipe\.png: not .*\n', err)


def test_a_video_is_called_so(run: RunCommand, tmp_path: Path) -> None:
  source = make(tmp_path / 'a.mov', [np.zeros((16, 16, 3), np.uint8)], sound='')
  (tmp_path / 'clip').write_bytes(source.read_bytes())
  (tmp_path / 'cut.MOV').write_bytes(source.read_bytes()[:50])
  (tmp_path / 'text').write_text('dear diary')
  for name in ('a.mov', 'clip', 'cut.MOV'):
    status, _, err = run(name, 'lr', '--scale', '1/2')
    assert (status, f'{name}: is a video' in err) == (1, True), err
  assert 'video' not in run('text', 'lr', '--scale', '1/2')[2]


def test_help_has_two_examples(run: RunCommand, capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(SystemExit) as stop:
    run('--help')
  assert stop.value.code == 0
  assert capsys.readouterr().out.count('sr-jax resize ') == 3  # one is the usage line


@pytest.mark.slow
def test_ctrl_c_leaves_no_incomplete_file(tmp_path: Path, picture: MakeImage) -> None:
  count = 12 * os.cpu_count()  # more than are processed at a time
  images.write_image(tmp_path / 'hr' / '000.bmp', picture(1200, 1600))
  for index in range(1, count):
    os.link(tmp_path / 'hr' / '000.bmp', tmp_path / 'hr' / f'{index:03}.bmp')
  environment = os.environ | {'PYTHONPATH': str(Path(resize.__file__).parents[1])}
  status, err = interrupt(['-m', 'sr_jax.resize', 'hr', 'lr', '--scale', '1/2'], tmp_path,
                          lambda: list(tmp_path.glob('lr/0*.png')), environment)
  assert status == 130
  assert err == 'sr_jax: interrupted\n'
  written = list((tmp_path / 'lr').iterdir())
  assert 0 < len(written) < count
  for path in written:
    assert images.read_image(path).shape == (600, 800, 3)


def test_metadata_is_kept_and_losses_are_reported(run: RunCommand, tmp_path: Path,
                                                  picture: MakeImage) -> None:
  rgb = picture(24, 32)
  (tmp_path / 'in').mkdir()
  deep = np.concatenate([np.uint16(rgb) * 257, np.full((24, 32, 1), 30000, np.uint16)], -1)
  (tmp_path / 'in' / 'deep.png').write_bytes(imagecodecs.png_encode(deep))
  exif = Image.Exif()
  exif[271] = 'Maker'
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  Image.fromarray(rgb).save(tmp_path / 'in' / 'tagged.png', exif=exif, icc_profile=profile,
                            dpi=(300, 300))
  tifffile.imwrite(tmp_path / 'in' / 'float.tif', np.float32(rgb) / 255, photometric='rgb')
  status, out, err = run('in', 'out', '--scale', '1/2')
  assert (status, err) == (0, '')
  assert re.search(r'alpha composited over white: 1 of 3 images \(in/deep\.png\)', out)
  assert re.search(r'16 bits reduced to 8: 1 of 3 images \(in/deep\.png\)', out)
  assert re.search(r'32 bits reduced to 8: 1 of 3 images \(in/float\.tif\)', out)
  assert 'tagged' not in out
  with Image.open(tmp_path / 'out' / 'tagged.png') as image:
    assert image.getexif()[271] == 'Maker'
    assert image.info['icc_profile'] == profile
    assert image.info['dpi'] == pytest.approx((300, 300), abs=0.1)
  for name in ('tagged', 'float'):
    np.testing.assert_array_equal(images.read_image(tmp_path / 'out' / f'{name}.png'),
                                  images.imresize(rgb, Fraction(1, 2)))


def test_samples_without_a_range_are_refused(run: RunCommand, tmp_path: Path,
                                             picture: MakeImage) -> None:
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in' / 'a.jxl').write_bytes(imagecodecs.jpegxl_encode(picture(8, 8), lossless=True))
  tifffile.imwrite(tmp_path / 'in' / 'b.tif', np.zeros((8, 8), np.int16))
  status, out, err = run('in', 'out', '--scale', '1/2')
  assert status == 1
  assert '1 of 2' in out
  assert re.search(r'1 .*b\.tif: unsupported: .*int16', err)
