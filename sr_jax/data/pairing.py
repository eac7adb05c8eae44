"""Partners for sets whose names say nothing: by what the pictures show, or by a table."""

import csv
import os
import pathlib

import numpy as np
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError, brief
from sr_jax.system import threads

SIDE = 16  # of a thumbnail
# Of 200 photographs of BSDS500 against their x4 LR (also as JPEG of quality 20, and with another
# aspect, brightness, gamma, colour cast or noise), x16 LR, and squares of 128 against 16: the
# right correlation is 0.978 or more, the best wrong one 0.898 or less, and 1 - correlation for
# the right one at most 0.1 of that for the wrong one. Larger thumbnails lose the small LR.
ALIKE = 0.97
CLEARLY = 1 / 3
ROWS = 256  # of the table of correlations at a time: 123,000 pictures take 126 MB


def match_by_content(hr: list[pathlib.Path], lr: list[pathlib.Path]):
  """Partners by the correlation of thumbnails; sizes, aspect and brightness may differ.

  A pair has to be alike, and each of the two clearly more like the other than like any
  other picture. An assignment that is optimal as a whole would not do: a picture without
  a partner takes one from those that have theirs.

  Args:
    hr, lr: picture files.

  Returns:
    (sorted pairs (HR file, LR file), files that have none for sure: those without a partner
    or with several that can hardly be told apart, flat pictures). Of exact copies each takes
    any partner that another could.

  Raises:
    InputError: a damaged picture.
  """
  if not hr or not lr:
    return [], [*hr, *lr]
  hr_thumbnails, hr_copies = _thumbnails(hr)
  lr_thumbnails, lr_copies = _thumbnails(lr)
  to_lr, distance, second = _nearest(hr_thumbnails, lr_thumbnails)
  to_hr, _, lr_second = _nearest(lr_thumbnails, hr_thumbnails)
  pairs = []
  for i, j in enumerate(to_lr):
    if (distance[i] <= 1 - ALIKE and to_hr[j] == i
        and distance[i] <= CLEARLY * min(second[i], lr_second[j])):
      pairs += zip(hr_copies[i], lr_copies[j], strict=False)
  taken = {path for pair in pairs for path in pair}
  return sorted(pairs), [path for path in (*hr, *lr) if path not in taken]


def _thumbnails(paths: list[pathlib.Path]) -> tuple[np.ndarray, list[list[pathlib.Path]]]:
  """Thumbnails [n, SIDE * SIDE], each once, and the files that each stands for."""
  copies = {}
  for path, thumbnail in zip(paths, threads.on_all_cores(_thumbnail, paths), strict=True):
    copies.setdefault(thumbnail.tobytes(), (thumbnail, []))[1].append(path)
  thumbnails, files = zip(*copies.values(), strict=True)
  return np.stack(thumbnails), list(files)


def _thumbnail(path: pathlib.Path) -> np.ndarray:
  """Luma, square whatever the aspect, float32 [SIDE * SIDE] of mean 0 and norm 1 (flat: 0)."""
  picture = Image.fromarray(images.as_rgb(images.read_image(path))).convert('L').convert('F')
  small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
  small = small.ravel() - small.mean()
  # What varies by less than half a level is rounding, which would look like a pattern.
  return small / np.linalg.norm(small) if small.std() > 0.5 else np.zeros_like(small)


def _nearest(thumbnails: np.ndarray, others: np.ndarray):
  """For each thumbnail: the index of the other nearest to it, that distance, the second.

  The distance is 1 - correlation; one of nothing, 1, stands for a second where there is none.
  """
  others = np.vstack([others, np.zeros_like(others[:1])])
  index, distances = [], []
  for start in range(0, len(thumbnails), ROWS):
    table = 1 - thumbnails[start:start + ROWS] @ others.T
    index.append(table.argmin(axis=1))
    distances.append(np.partition(table, 1, axis=1)[:, :2])
  return np.concatenate(index), *np.concatenate(distances).T


def match_by_csv(table: pathlib.Path, hr: pathlib.Path,
                 lr: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Partners by a CSV file of two columns.

  Args:
    table: HR file, LR file in each line; a first line 'lr,hr' turns that round, 'hr,lr' may
      stand there too. UTF-8; blank lines don't count.
    hr, lr: the folders that its names are relative to.

  Returns:
    Pairs (HR file, LR file) in the table's order.

  Raises:
    InputError: naming the line: other than two columns, a file that is not there or stands in
      the table twice; a table that can not be read or has no pair.
  """
  lines, order = _lines(table), 1
  if lines and sorted(cell.lower() for cell in lines[0][1]) == ['hr', 'lr']:
    order = 1 if lines.pop(0)[1][0].lower() == 'hr' else -1
  pairs, seen = [], {}
  for number, cells in lines:
    where = f'{table}, line {number}'
    if len(cells) != 2 or not all(cells):
      raise InputError(f'{where}: {brief(",".join(cells), 80)!r}, expected an HR file, a comma, '
                       'an LR file')
    pair = [folder / cell for folder, cell in zip((hr, lr)[::order], cells, strict=True)]
    for path in pair:
      if not os.path.isfile(path):  # also where the name is none
        raise InputError(f'{where}: {brief(path)}: no such file')
      if first := seen.get(path.resolve()):
        raise InputError(f'{where}: {path}: stands in line {first} already')
      seen[path.resolve()] = number
    pairs.append(tuple(pair[::order]))
  if not pairs:
    raise InputError(f'{table}: no pair of files in it')
  return pairs


def _lines(table: pathlib.Path) -> list[tuple[int, list[str]]]:
  """(number, cells) of every line with something in it."""
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
