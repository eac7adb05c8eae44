"""Pairs by image content and by a CSV table."""

import io
import pathlib
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from sr_jax import images
from sr_jax.data.pairing import match_by_content, match_by_csv
from sr_jax.errors import InputError


def write(folder: pathlib.Path, pictures: Sequence[np.ndarray]) -> list[pathlib.Path]:
  """Writes the images to files with random names; returns the paths in the order of the images."""
  numbers = random.Random(len(pictures)).sample(range(1000), len(pictures))
  paths = [folder / f'{number:03}.png' for number in numbers]
  for path, picture in zip(paths, pictures, strict=True):
    images.write_image(path, picture)
  return paths


def smaller(picture: np.ndarray, scale: int = 4) -> np.ndarray:
  return images.imresize(images.crop_to_multiple(picture, scale), Fraction(1, scale))


@pytest.fixture
def pictures(picture: Callable) -> list[np.ndarray]:
  """Six images, portrait and landscape, upscaled because photographs are coarser."""
  return [images.imresize(picture(16 + seed, 22 - seed, seed), 5) for seed in range(6)]


def matched(tmp_path: pathlib.Path, hr: Sequence[np.ndarray],
            lr: Sequence[np.ndarray]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
  """(pairs of indices, unpaired indices in hr, in lr) of shuffled images."""
  hr_files, lr_files = write(tmp_path / 'HR', hr), write(tmp_path / 'LR', lr)
  pairs, alone = match_by_content(sorted(hr_files), sorted(lr_files))
  assert pairs == sorted(pairs)
  assert sorted([path for pair in pairs for path in pair] + alone) == sorted(hr_files + lr_files)
  return (sorted((hr_files.index(first), lr_files.index(second)) for first, second in pairs),
          [i for i, path in enumerate(hr_files) if path in alone],
          [j for j, path in enumerate(lr_files) if path in alone])


def test_each_image_finds_its_partner(tmp_path: pathlib.Path, pictures: list[np.ndarray]) -> None:
  lr = [smaller(picture) for picture in pictures]
  assert matched(tmp_path, pictures, lr) == ([(i, i) for i in range(6)], [], [])


def test_partners_with_other_brightness_contrast_and_colour(tmp_path: pathlib.Path,
                                                            pictures: list[np.ndarray]) -> None:
  lr = [smaller(picture) // 2 + 60 for picture in pictures]
  lr[0] = images.to_uint8(images.luma(images.to_float(lr[0])))
  assert matched(tmp_path, pictures, lr) == ([(i, i) for i in range(6)], [], [])


def test_images_without_a_partner_stay_unpaired(tmp_path: pathlib.Path,
                                                pictures: list[np.ndarray]) -> None:
  lr = [smaller(picture) for picture in pictures]
  assert matched(tmp_path, pictures[:4], lr[2:]) == ([(2, 0), (3, 1)], [0, 1], [2, 3])


def test_one_pair_and_none(tmp_path: pathlib.Path, pictures: list[np.ndarray]) -> None:
  assert matched(tmp_path, pictures[:1], [smaller(pictures[0])]) == ([(0, 0)], [], [])
  hr, = (tmp_path / 'HR').iterdir()
  assert match_by_content([hr], []) == ([], [hr])
  assert match_by_content([], [hr]) == ([], [hr])


def test_images_of_a_single_colour_stay_unpaired(tmp_path: pathlib.Path,
                                                 pictures: list[np.ndarray]) -> None:
  flat = [np.full((40, 40, 3), level, np.uint8) for level in (0, 127, 254)]
  flat[2][::2] += 1  # almost a single colour
  hr, lr = [*flat, pictures[0]], [smaller(picture) for picture in (*flat, pictures[0])]
  assert matched(tmp_path, hr, lr) == ([(3, 3)], [0, 1, 2], [0, 1, 2])


def test_copies_are_interchangeable(tmp_path: pathlib.Path, pictures: list[np.ndarray]) -> None:
  hr = [pictures[0]] * 3 + pictures[1:]
  lr = [smaller(picture) for picture in hr[1:]]
  pairs, alone, alone_lr = matched(tmp_path, hr, lr)
  assert len(alone) == 1
  assert alone[0] in (0, 1, 2)
  assert alone_lr == []
  assert {j for i, j in pairs if i < 3} == {0, 1}
  assert [(i, j) for i, j in pairs if i >= 3] == [(i, i - 1) for i in range(3, 8)]


def test_near_copies_stay_unpaired(tmp_path: pathlib.Path, pictures: list[np.ndarray]) -> None:
  rng = np.random.default_rng(0)
  noisy = [np.uint8(np.clip(pictures[0] + rng.normal(0, 3, pictures[0].shape), 0, 255))
           for _ in range(2)]
  lr = [smaller(picture) for picture in (pictures[0], pictures[1])]
  assert matched(tmp_path / 'a', [*noisy, pictures[1]], lr) == ([(2, 1)], [0, 1], [0])
  assert matched(tmp_path / 'b', [noisy[0], pictures[1]], lr) == ([(0, 0), (1, 1)], [], [])


def test_a_damaged_image_is_named(tmp_path: pathlib.Path, pictures: list[np.ndarray]) -> None:
  path, = write(tmp_path, pictures[:1])
  damaged = tmp_path / 'damaged.png'
  damaged.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(InputError, match=r'/damaged\.png: .*damaged'):
    match_by_content([path, damaged], [path])


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'JPEG', quality=quality)
  return np.asarray(Image.open(file))


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
  return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize('change', [
    smaller, lambda picture: jpeg(smaller(picture), 30),
    lambda picture: resized(picture, picture.shape[1] // 4 + 6, picture.shape[0] // 4 - 3),
    lambda picture: np.uint8(np.minimum(smaller(picture) + 40.0, 255)),
    lambda picture: resized(picture, 64, 64)],
    ids=['bicubic', 'jpeg', 'aspect', 'brighter', 'square'])
def test_photographs(tmp_path: pathlib.Path, assets: pathlib.Path, change: Callable) -> None:
  hr = [images.read_image(path)
        for path in sorted((assets / 'BSDS500' / 'train').iterdir())[:14]]
  lr = [change(picture) for picture in hr]
  if lr[0].shape[:2] == (64, 64):
    hr = [resized(picture, 256, 256) for picture in hr]
  assert matched(tmp_path, hr[:12], lr[2:]) == (
      [(i, i - 2) for i in range(2, 12)], [0, 1], [10, 11])


# Tables ------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: pathlib.Path) -> Callable:
  """table(text or bytes) -> names of the pairs; HR contains a, b, c and LR contains 1, 2, 3."""
  for folder, names in (('HR', 'abc'), ('LR', '123')):
    (tmp_path / folder / 'deep').mkdir(parents=True)
    for name in names:
      (tmp_path / folder / f'{name}.png').touch()
      (tmp_path / folder / 'deep' / f'{name}.png').touch()

  def read(text: str | bytes) -> list[tuple[str, str]]:
    path = tmp_path / 'pairs.csv'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(hr.relative_to(tmp_path / 'HR').as_posix(), lr.relative_to(tmp_path / 'LR').as_posix())
            for hr, lr in match_by_csv(path, tmp_path / 'HR', tmp_path / 'LR')]
  return read


@pytest.mark.parametrize('text', [
    'b.png,1.png\na.png,deep/3.png\n', 'hr,lr\nb.png,1.png\na.png,deep/3.png',
    'LR, HR\r\n1.png, b.png\r\n\r\ndeep/3.png,a.png\r\n', '\n \n,\nb.png,1.png\n\na.png,deep/3.png',
    '\ufefflr,hr\n1.png,b.png\n"deep/3.png","a.png"\n'])
def test_tables(table: Callable, text: str | bytes) -> None:
  assert table(text) == [('b.png', '1.png'), ('a.png', 'deep/3.png')]


def test_absolute_names(table: Callable, tmp_path: pathlib.Path) -> None:
  assert table(f'lr,hr\n1.png,{tmp_path}/HR/a.png\n') == [('a.png', '1.png')]


@pytest.mark.parametrize(('text', 'complaint'), [
    ('', 'no pair'), ('\n\n', 'no pair'), ('hr,lr\n', 'no pair'),
    ('hr,lr\n\na.png\n', "line 3: 'a.png', expected"),
    ('a.png;1.png\n', 'line 1: .*a.png;1.png.*expected'),
    ('a.png,1.png,2.png\n', 'line 1: .*expected'), ('a.png,\n', 'line 1: .*expected'),
    ('a.png,1.png\nx.png,2.png\n', r'line 2: .*HR/x\.png: no such file'),
    ('1.png,a.png\n', r'line 1: .*HR/1\.png: no such file'),
    ('a.png,deep\n', r'line 1: .*LR/deep: no such file'),
    ('a.png,1.png\n\nb.png,deep/../1.png\n', r'line 3: .*1\.png: .*line 1'),
    ('a.png,1.png\na.png,2.png\n', r'line 2: .*a\.png: .*line 1'),
    (b'a\xff.png,1.png\n', 'not UTF-8'),
    ('a.png,1.png\n"b.png,2.png\n', 'line 2: unexpected end of data'),
    ('a\0.png,1.png\n', 'line 1: .*(no such file|NUL)')])
def test_wrong_tables(table: Callable, text: str | bytes, complaint: str) -> None:
  with pytest.raises(InputError, match=rf'pairs\.csv.*{complaint}'):
    table(text)


def test_a_missing_table(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'long.csv').write_text('a' * 100_000 + ',b')
  with pytest.raises(InputError, match=r'long\.csv, line 1: .*a\.\.\.: no such file'):
    match_by_csv(tmp_path / 'long.csv', tmp_path, tmp_path)
  for path, complaint in ((tmp_path / 'no.csv', 'no such file'), (tmp_path, 'is a directory')):
    with pytest.raises(InputError, match=complaint):
      match_by_csv(path, tmp_path, tmp_path)
