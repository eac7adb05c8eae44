"""Pairs HR and LR files whose names do not match: by image content, or by a CSV table."""

import csv
import os
import pathlib

import numpy as np
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError, brief
from sr_jax.system import threads

THUMBNAIL_SIDE = 16
# Measured on 200 photographs of BSDS500 against their x4 LR (also as JPEG of quality 20, and with
# another aspect, brightness, gamma, colour cast or noise), their x16 LR, and squares of 128 pixels
# against 16: the correlation of right partners is 0.978 or more, the best correlation of wrong
# ones 0.898 or less, and 1 - correlation of the right partner is at most 0.1 of that of the best
# wrong one. With larger thumbnails, small LR images are no longer recognised.
MIN_CORRELATION = 0.97
MAX_DISTANCE_RATIO = 1 / 3
BLOCK_ROWS = 256  # rows of the correlation table computed at a time; 123,000 images need 126 MB

FilePair = tuple[pathlib.Path, pathlib.Path]


def match_by_content(hr: list[pathlib.Path],
                     lr: list[pathlib.Path]) -> tuple[list[FilePair], list[pathlib.Path]]:
  """Pairs images by the correlation of thumbnails; sizes, aspect and brightness may differ.

  The images of a pair must be similar, and each clearly more similar to the other than to any
  further image. An assignment that is globally optimal would not work: an image without a partner
  would take the partner of another image.

  Args:
    hr, lr: image files.

  Returns:
    (sorted pairs (HR file, LR file), files without a certain partner). The latter have no
    partner, or several that can hardly be distinguished, or show a single colour. Exact copies of
    an image are interchangeable: each gets one of the partners of the others.

  Raises:
    InputError: an image is damaged.
  """
  if not hr or not lr:
    return [], [*hr, *lr]
  hr_thumbnails, hr_copies = _thumbnails(hr)
  lr_thumbnails, lr_copies = _thumbnails(lr)
  to_lr, distance, second = _nearest(hr_thumbnails, lr_thumbnails)
  to_hr, _, lr_second = _nearest(lr_thumbnails, hr_thumbnails)
  pairs = []
  for i, j in enumerate(to_lr):
    if (distance[i] <= 1 - MIN_CORRELATION and to_hr[j] == i
        and distance[i] <= MAX_DISTANCE_RATIO * min(second[i], lr_second[j])):
      pairs += zip(hr_copies[i], lr_copies[j], strict=False)
  paired = {path for pair in pairs for path in pair}
  return sorted(pairs), [path for path in (*hr, *lr) if path not in paired]


def _thumbnails(paths: list[pathlib.Path]) -> tuple[np.ndarray, list[list[pathlib.Path]]]:
  """Returns the distinct thumbnails [n, THUMBNAIL_SIDE**2], and the files with each of them."""
  copies = {}
  for path, thumbnail in zip(paths, threads.on_all_cores(_thumbnail, paths), strict=True):
    copies.setdefault(thumbnail.tobytes(), (thumbnail, []))[1].append(path)
  thumbnails, files = zip(*copies.values(), strict=True)
  return np.stack(thumbnails), list(files)


def _thumbnail(path: pathlib.Path) -> np.ndarray:
  """Returns the thumbnail of an image of any aspect, normalised to mean 0 and norm 1.

  Returns:
    Luma, float32 [THUMBNAIL_SIDE**2]; zeros if the image shows a single colour.
  """
  image = Image.fromarray(images.as_rgb(images.read_image(path))).convert('L').convert('F')
  luma = np.asarray(image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR))
  luma = luma.ravel() - luma.mean()
  # A variation of less than half a level is rounding, which would look like a pattern.
  return luma / np.linalg.norm(luma) if luma.std() > 0.5 else np.zeros_like(luma)


def _nearest(thumbnails: np.ndarray,
             others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns for each thumbnail the index of the nearest other one, its distance, and the second.

  The distance is 1 - correlation. If there is only one other thumbnail, the second distance is 1,
  that of an unrelated image.
  """
  others = np.vstack([others, np.zeros_like(others[:1])])
  index, distances = [], []
  for start in range(0, len(thumbnails), BLOCK_ROWS):
    table = 1 - thumbnails[start:start + BLOCK_ROWS] @ others.T
    index.append(table.argmin(axis=1))
    distances.append(np.partition(table, 1, axis=1)[:, :2])
  return np.concatenate(index), *np.concatenate(distances).T


def match_by_csv(table: pathlib.Path, hr: pathlib.Path, lr: pathlib.Path) -> list[FilePair]:
  """Pairs files as listed in a CSV file of two columns.

  Args:
    table: each line has an HR file and an LR file. The first line may be 'hr,lr', or 'lr,hr' if
      the columns are in that order. The encoding is UTF-8; blank lines are ignored.
    hr, lr: folders that the names are relative to.

  Returns:
    Pairs (HR file, LR file) in the order of the table.

  Raises:
    InputError: a line does not have two columns, or a file in it does not exist or is listed
      twice (the message gives the line); the table cannot be read or has no pair.
  """
  lines, order = _lines(table), 1
  if lines and sorted(cell.lower() for cell in lines[0][1]) == ['hr', 'lr']:
    order = 1 if lines.pop(0)[1][0].lower() == 'hr' else -1
  pairs, line_of = [], {}
  for number, cells in lines:
    where = f'{table}, line {number}'
    if len(cells) != 2 or not all(cells):
      raise InputError(f'{where}: {brief(",".join(cells), 80)!r}, expected '
                       'HR_FILE,LR_FILE')
    pair = [folder / cell for folder, cell in zip((hr, lr)[::order], cells, strict=True)]
    for path in pair:
      if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise InputError(f'{where}: {brief(path)}: no such file')
      if first := line_of.get(path.resolve()):
        raise InputError(f'{where}: {path}: already listed in line {first}')
      line_of[path.resolve()] = number
    pairs.append(tuple(pair[::order]))
  if not pairs:
    raise InputError(f'{table}: contains no pair of files')
  return pairs


def _lines(table: pathlib.Path) -> list[tuple[int, list[str]]]:
  """Returns (line number, cells) of every line that is not blank."""
  try:
    with open(table, encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file, strict=True)
      rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
      return [(number, cells) for number, cells in rows if any(cells)]
  except OSError as error:
    raise InputError(f'{table}: {error.strerror.lower()}') from None
  except UnicodeDecodeError:
    raise InputError(f'{table}: not UTF-8') from None
  except csv.Error as error:
    raise InputError(f'{table}, line {reader.line_num}: {error}') from None
