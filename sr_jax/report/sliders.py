"""The HTML of images: a wide slider at the top, and three folded images a row below the curves."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from sr_jax.report.gallery import Comparison
from sr_jax.report.html import anchor, score_text

Encoded = tuple[Comparison, dict[str, str]]  # an image, and {label: data URI}


class Shown(NamedTuple):
  """The images of a page.

  Attributes:
    progress: validation images.
    upscaled: images without HR.
    evaluated: images of sets that were evaluated.
    left: the number of images that do not fit on the page.
  """

  progress: Sequence[Encoded]
  upscaled: Sequence[Encoded]
  evaluated: Sequence[Encoded]
  left: int

  @property
  def by_key(self) -> dict[str, Encoded]:
    """The images by the prefix of the ids of their <img> elements."""
    return {f'{prefix}{index}': entry
            for prefix, entries in (('p', self.progress), ('u', self.upscaled),
                                    ('e', self.evaluated))
            for index, entry in enumerate(entries)}


def top_slider(shown: Shown) -> str:
  """Returns a slider as wide as the page, or '' without images.

  It shows the first validation image, or else the evaluated image with the largest gain, or else
  the first image without HR. Its layers are those of `articles`, which page.js copies.
  """
  by_key = shown.by_key
  for key in ('p0', f'e{len(shown.evaluated) - 1}', 'u0'):
    if key in by_key:
      break
  else:
    return ''
  image, uris = by_key[key]
  layers = {label: f'data-of="{key}-{index}"' for index, label in enumerate(uris)}
  return f'<h3>{_title(image)}</h3>{_slider(image, layers, "top")}'


def articles(shown: Shown) -> str:
  """Returns the section of the images, each folded below its crops."""
  parts = [_article(key, *entry) for key, entry in shown.by_key.items()]
  text = f'<div class="images">{"".join(parts)}</div>' if parts else ''
  if shown.left:
    text += f'<p>{shown.left} more images do not fit on this page; see the folders of the runs.</p>'
  return text


def _article(key: str, image: Comparison, uris: Mapping[str, str]) -> str:
  """Returns the centre crops of each version, and a folded slider between two full versions.

  Args:
    key: prefix of the ids of the <img> elements.
    uris: {label: data URI}.
  """
  strip = ''.join(
      f'<figure><img data-of="{key}-{index}" alt="{escape(label)}"><figcaption>{escape(label)}'
      f'{_score_caption(image.scores.get(label))}</figcaption></figure>'
      for index, label in enumerate(uris))
  layers = {label: f'id="{key}-{index}" src="{uri}"'
            for index, (label, uri) in enumerate(uris.items())}
  return (f'<article id="{escape(anchor(image.group, image.name))}"><details><summary>'
          f'<h3>{_title(image)}</h3><div class="strip">{strip}</div></summary>'
          f'{_slider(image, layers)}</details></article>')


def _title(image: Comparison) -> str:
  return escape(f'{image.name} ({image.group})')


def _slider(image: Comparison, layers: Mapping[str, str], css_class: str = '') -> str:
  """Returns a slider between two versions that a reader chooses.

  Args:
    layers: {label: attributes of its <img>}.
  """
  height, width = next(iter(image.layers.values())).shape[:2]
  labels = list(layers)
  images = ''.join(f'<img {attributes} alt="{escape(label)}" hidden>'
                   for label, attributes in layers.items())

  def choice(side: str, chosen: str) -> str:
    options = ''.join(f'<option value="{index}"{" selected" if label == chosen else ""}>'
                      f'{escape(label)}</option>' for index, label in enumerate(labels))
    return f'<select class="{side}" aria-label="image on the {side}">{options}</select>'

  left = 'bicubic' if 'bicubic' in labels else labels[0]
  right = ([label for label in labels[1:] if label != 'original'] or labels)[-1]
  return (f'<div class="slider {css_class}"><div class="choices">'
          f'{choice("left", left)}{choice("right", right)}</div>'
          f'<div class="stage" style="aspect-ratio:{width}/{height}">{images}<i></i>'
          f'<input type="range" min="0" max="100" step="0.1" value="50" '
          f'aria-label="comparison of two versions of {_title(image)}"></div></div>')


def _score_caption(scores: Mapping[str, float] | None) -> str:
  parts = [score_text(name, scores[name]) + unit for name, unit in (
      ('psnr_y', ' dB'), ('lpips_alex', ' LPIPS'), ('lpips_vgg', ' LPIPS'),
      ('niqe', ' NIQE'))
      if scores and name in scores]
  return f'<br>{", ".join(parts)}' if parts else ''
