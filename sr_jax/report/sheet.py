"""Draws images in rows, each row with lines of text, on one sheet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 216  # pixels of a smaller image's sides, about, when it is drawn
TEXT_SIZE, LINE = 15, 20  # pixels: size of the letters, distance of lines
TEXT_WIDTH, GAP = 400, 10  # at most, of a line beside images


class Row(NamedTuple):
  """A row of a sheet.

  Attributes:
    images: uint8 [H, W, 3] by heading; the larger ones are multiples of the smaller ones. All rows
      of a sheet have the same headings and sizes.
    lines: text beside them; a line that is too long is broken between words.
  """

  images: Mapping[str, np.ndarray]
  lines: Sequence[str]


def draw_sheet(title: str, rows: Sequence[Row]) -> np.ndarray:
  """Draws a sheet: a title, headings, and a row of images and text below one another.

  Pixels of images are repeated, so that all images of a row have one size, and small ones are
  enlarged to about 216 pixels.

  Returns:
    uint8 [H, W, 3].
  """
  font = ImageFont.load_default(TEXT_SIZE)
  height, width = _drawn_size(rows[0].images)
  left = GAP + len(rows[0].images) * (width + GAP)
  texts = [_broken(row.lines, font) for row in rows]
  right = left + round(max(font.getlength(line) for text in texts for line in text))
  heights = [max(height, len(text) * LINE) for text in texts]
  headings = [_broken([heading], font, width) for heading in rows[0].images]
  title_lines = _broken([title], font, right - GAP)
  top = GAP + len(title_lines) * LINE + GAP
  body = top + max(map(len, headings)) * LINE + 2
  page = Image.new('RGB', (right + GAP, body + sum(heights) + GAP * len(rows)), 'white')
  pen = ImageDraw.Draw(page)
  _write(pen, font, (GAP, GAP), title_lines)
  for column, heading in enumerate(headings):
    _write(pen, font, (GAP + column * (width + GAP), top), heading)
  for row, text, row_height in zip(rows, texts, heights, strict=True):
    for column, image in enumerate(row.images.values()):
      enlarged = image.repeat(height // image.shape[0], 0).repeat(width // image.shape[1], 1)
      page.paste(Image.fromarray(enlarged), (GAP + column * (width + GAP), body))
    _write(pen, font, (left, body), text)
    body += row_height + GAP
  return np.asarray(page)


def _drawn_size(images: Mapping[str, np.ndarray]) -> tuple[int, int]:
  height, width = (max(image.shape[axis] for image in images.values()) for axis in (0, 1))
  factor = max(1, round(SIDE / max(height, width)))
  return height * factor, width * factor


def _broken(lines: Iterable[str], font: ImageFont.FreeTypeFont,
            width: int = TEXT_WIDTH) -> list[str]:
  """Breaks lines between words where they are wider than `width`; a single word stays whole."""
  broken = []
  for line in lines:
    current, *rest = line.split(' ')
    for word in rest:
      if font.getlength(f'{current} {word}') <= width:
        current += f' {word}'
      else:
        broken.append(current)
        current = f'   {word}'
    broken.append(current)
  return broken


def _write(pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, place: tuple[int, int],
           lines: Sequence[str]) -> None:
  for number, line in enumerate(lines):
    pen.text((place[0], place[1] + number * LINE), line, 'black', font)
