"""The HTML of images: a wide slider at the top, and three folded images a row below the curves."""

from collections.abc import Mapping, Sequence
from html import escape

from sr_jax.report.gallery import Comparison
from sr_jax.report.html import anchor, score_text

Encoded = tuple[Comparison, dict[str, str]]  # an image, and {label: data URI}


def top_slider(progress: Sequence[Encoded], evaluated: Sequence[Encoded]) -> str:
  """Returns a slider as wide as the page, or '' without images.

  It shows the first validation image, or else the evaluated image with the largest gain. Its layers
  are those of `articles`, which page.js copies.
  """
  found = [*[(f'p{index}', *entry) for index, entry in enumerate(progress[:1])],
           *[(f'e{len(evaluated) - 1}', *entry) for entry in evaluated[-1:]]]
  if not found:
    return ''
  key, image, uris = found[0]
  layers = {label: f'data-of="{key}-{index}"' for index, label in enumerate(uris)}
  return f'<h3>{_title(image)}</h3>{_slider(image, layers, "top")}'


def articles(progress: Sequence[Encoded], evaluated: Sequence[Encoded], left: int) -> str:
  """Returns the section of the images, each folded below its crops.

  Args:
    left: the number of images that do not fit on the page.
  """
  parts = [_article(f'{prefix}{index}', *entry)
           for prefix, entries in (('p', progress), ('e', evaluated))
           for index, entry in enumerate(entries)]
  text = f'<div class="images">{"".join(parts)}</div>' if parts else ''
  if left:
    text += f'<p>{left} more images do not fit on this page; see the folders of the runs.</p>'
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
  height, width = image.layers['original'].shape[:2]
  labels = list(layers)
  images = ''.join(f'<img {attributes} alt="{escape(label)}" hidden>'
                   for label, attributes in layers.items())

  def choice(side: str, chosen: str) -> str:
    options = ''.join(f'<option value="{index}"{" selected" if label == chosen else ""}>'
                      f'{escape(label)}</option>' for index, label in enumerate(labels))
    return f'<select class="{side}" aria-label="image on the {side}">{options}</select>'

  left = 'bicubic' if 'bicubic' in labels else labels[0]
  right = labels[-2] if len(labels) > 2 else labels[-1]
  return (f'<div class="slider {css_class}"><div class="choices">'
          f'{choice("left", left)}{choice("right", right)}</div>'
          f'<div class="stage" style="aspect-ratio:{width}/{height}">{images}<i></i>'
          f'<input type="range" min="0" max="100" step="0.1" value="50" '
          f'aria-label="comparison of two versions of {_title(image)}"></div></div>')


def _score_caption(scores: Mapping[str, float] | None) -> str:
  parts = [score_text(name, scores[name]) + unit for name, unit in (
      ('psnr_y', ' dB'), ('lpips_alex', ' LPIPS'), ('lpips_vgg', ' LPIPS'))
      if scores and name in scores]
  return f'<br>{", ".join(parts)}' if parts else ''
