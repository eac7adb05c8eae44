"""Writes the report of one or several runs as a single HTML file.

The file requests nothing from other hosts: plotly.js, which draws the curves, is embedded in it.
"""

import base64
import functools
import gzip
import importlib.resources
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from sr_jax.report import charts, gallery, history
from sr_jax.report.benchmarks import benchmark_tables
from sr_jax.report.history import History
from sr_jax.report.html import anchor, score_text, section, table
from sr_jax.runs import metadata
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files
from sr_jax.system.text import format_seconds

HERE = pathlib.Path(__file__).parent
MAX_CHARACTERS = 7_500_000  # of a page
BENCHMARK_CHARACTERS = 60_000  # of these, reserved for the tables, whose links depend on the images
MAX_IMAGES_PER_SET = 12


def write(workdirs: Sequence[os.PathLike | str],
          output: os.PathLike | str | None = None) -> pathlib.Path:
  """Writes the report of one run to RUN/report.html, or of any number of runs to `output`.

  Returns:
    The path of the report.

  Raises:
    InputError: a folder contains no run, or the file cannot be written.
  """
  histories = history.read_all(workdirs)
  path = files.expand(output) if output else RunFolder(histories[0].workdir).report
  files.write_text(path, render(histories))
  return path


def render(histories: Sequence[History]) -> str:
  """Returns the HTML of the report."""
  names = gallery.run_labels(histories)
  drawn = list(charts.charts(histories))
  title = ', '.join(names)
  head = [f'<h1>{escape(title)}</h1>', *_status_lines(histories, names)]
  body = [
      section('When to stop', _trends(histories, names)),
      section('Run' if len(histories) == 1 else 'Runs',
              _facts(histories, names) + _configs(histories, names)),
      *(section(heading, _chart_places(heading, drawn)) for heading in dict.fromkeys(
          chart['section'] for chart in drawn))]
  data = _script_json({'runs': names, 'charts': drawn})
  style, script = ((HERE / name).read_text('utf-8') for name in ('page.css', 'page.js'))
  used = len(data) + len(_plotly()) + sum(map(len, body)) + len(style) + len(script)
  images, shown = _images(histories, MAX_CHARACTERS - used - BENCHMARK_CHARACTERS)
  body.insert(2, section('Images', images))
  body.append(section('Benchmarks', benchmark_tables(histories, names, shown)))
  return '\n'.join([
      '<!doctype html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<title>{escape(title)}</title>', f'<style>{style}</style>', '</head>', '<body>', '<main>',
      '<header>', *head, '</header>', *filter(None, body), '</main>',
      f'<script type="application/json" id="data">{data}</script>',
      f'<script type="text/plain" id="plotly">{_plotly()}</script>',
      f'<script>{script}</script>', '</body>', '</html>', ''])


@functools.cache
def _plotly() -> str:
  """Returns plotly.js as base64 of its gzip: 2 instead of 5 MB, which leaves space for images."""
  source = importlib.resources.files('plotly') / 'package_data' / 'plotly.min.js'
  return base64.b64encode(gzip.compress(source.read_bytes(), 9, mtime=0)).decode()


# Text --------------------------------------------------------------------------------------


def _status_lines(histories: Sequence[History], names: Sequence[str]) -> Iterator[str]:
  for run, name in zip(histories, names, strict=True):
    prefix = f'<b>{escape(name)}</b> ' if len(histories) > 1 else ''
    yield f'<p class="status">{prefix}{escape(history.status(run))}</p>'
    for line in history.warnings(run):
      yield f'<p class="warning">{prefix}{escape(line)}</p>'


def _trends(histories: Sequence[History], names: Sequence[str]) -> str:
  blocks = []
  for run, name in zip(histories, names, strict=True):
    lines = charts.trends(run)
    if lines:
      heading = f'<h3>{escape(name)}</h3>' if len(histories) > 1 else ''
      items = ''.join(f'<li>{escape(line)}</li>' for line in lines)
      phase = escape(run.phases[-1][0])
      blocks.append(f'{heading}<p>Trends in the {phase} phase:</p><ul>{items}</ul>')
  return '\n'.join(blocks)


def _facts(histories: Sequence[History], names: Sequence[str]) -> str:
  columns = [_run_facts(run) for run in histories]
  keys = list(dict.fromkeys(key for column in columns for key in column))
  head = ['', *map(escape, names)] if len(histories) > 1 else []
  return table(head, [[key, *(escape(column.get(key, '')) for column in columns)]
                      for key in keys], 'facts')


def _run_facts(run: History) -> dict[str, str]:
  data = run.config.get('data')
  facts = {'Generator': f'{_network(run, "generator")}, x{run.config.get("scale", "?")}',
           'Discriminator': _network(run, 'discriminator'),
           'Steps': f'{run.step:,} of {run.steps:,}' + (
               f' ({run.boundary:,} warm-up)' if run.boundary else '')}
  speed = run.curves.get('images_per_second')
  if speed is not None and speed.finite.values.size:
    facts['Speed'] = f'{np.median(speed.finite.values):,.1f} images/s (median)'
  if run.starts:
    facts |= _start_facts(run)
  facts['Data'] = str(data.get('source', '')) if isinstance(data, dict) else ''
  if run.checkpoints:
    facts['Checkpoints'] = ', '.join(f'{step:,}' for step in run.checkpoints)
  return facts


def _network(run: History, key: str) -> str:
  """Returns the name of the generator or the discriminator and its number of parameters."""
  fields = run.config.get(key)
  name = str(fields.get('name', '')) if isinstance(fields, dict) else ''
  counts = run.starts[-1].get('parameters') if run.starts else None
  count = counts.get(key) if isinstance(counts, dict) else None
  return f'{name}, {count:,} parameters' if isinstance(count, int) else name


def _start_facts(run: History) -> dict[str, str]:
  last, devices = run.starts[-1], run.starts[-1].get('devices')
  time = format_seconds(run.seconds, always_hours=True)
  device = str(last.get('device', ''))
  return {
      'Started': str(run.starts[0].get('started', '')),
      'Time': time + (f' in {len(run.starts)} starts' if len(run.starts) > 1 else ''),
      'Device': f'{devices} x {device}' if isinstance(devices, int) and devices > 1 else device,
      'Versions': ', '.join(f'{name} {last[name]}'
                            for name in ('python', 'jax', 'jaxlib', 'flax', 'optax')
                            if isinstance(last.get(name), str)),
      'Code': str(last.get('commit') or 'unknown')}


def _configs(histories: Sequence[History], names: Sequence[str]) -> str:
  configs = [metadata.flat(run.config) for run in histories]
  keys = list(dict.fromkeys(key for config in configs for key in config))

  def rows(keys: Sequence[str]) -> list[list[str]]:
    return [[escape(key), *(escape(json.dumps(config.get(key), ensure_ascii=False))
                            for config in configs)] for key in keys]

  head = ['', *map(escape, names)] if len(histories) > 1 else []
  differing = [key for key in keys if any(config.get(key) != configs[0].get(key)
                                          for config in configs)]
  parts = []
  if differing:
    parts.append('<details open><summary>Differences between the configs</summary>'
                 f'{table(head, rows(differing), "config")}</details>')
  parts.append(f'<details><summary>Config</summary>{table(head, rows(keys), "config")}</details>')
  return '\n'.join(parts)


# Curves ----------------------------------------------------------------------------------


def _chart_places(heading: str, drawn: Sequence[Mapping[str, Any]]) -> str:
  """Returns the elements into which page.js draws the charts of a section."""
  places = ''.join(f'<div class="chart" data-chart="{index}"></div>'
                   for index, chart in enumerate(drawn) if chart['section'] == heading)
  switch = ('<label class="switch"><input type="checkbox" id="logarithmic"> logarithmic</label>'
            if heading == 'Losses' else '')
  return f'{switch}<div class="charts">{places}</div>'


def _script_json(value: Any) -> str:
  """Returns JSON that can be placed in a <script>: no </script> inside it ends the element."""
  return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


# Images ------------------------------------------------------------------------------------


def _images(histories: Sequence[History], budget: int) -> tuple[str, set[tuple[str, str]]]:
  """Returns the section of the images, and (set, name) of the evaluated images in it."""
  progress, progress_left = gallery.encode_within(gallery.progress(histories), budget // 2)
  used = sum(len(uri) for _, uris in progress for uri in uris.values())
  evaluated, evaluated_left = gallery.encode_within(
      gallery.evaluated(histories, MAX_IMAGES_PER_SET), budget - used)
  parts = [_image_article(f'p{index}', *entry) for index, entry in enumerate(progress)]
  if evaluated:
    parts.append('<div class="images">' + '\n'.join(
        _image_article(f'e{index}', *entry) for index, entry in enumerate(evaluated)) + '</div>')
  left = progress_left + evaluated_left
  if left:
    parts.append(f'<p>{left} more images do not fit on this page; see the folders of the runs.</p>')
  return '\n'.join(parts), {(image.group, image.name) for image, _ in evaluated}


def _image_article(key: str, image: gallery.Comparison, uris: Mapping[str, str]) -> str:
  """Returns a row of centre crops of each version, and a slider between two full versions.

  Args:
    key: prefix of the ids of the <img> elements.
    uris: {label: data URI}.
  """
  height, width = image.layers['original'].shape[:2]
  labels = list(uris)
  strip = ''.join(
      f'<figure><img data-of="{key}-{index}" alt="{escape(label)}"><figcaption>{escape(label)}'
      f'{_score_caption(image.scores.get(label))}</figcaption></figure>'
      for index, label in enumerate(labels))
  layers = ''.join(f'<img id="{key}-{index}" src="{uris[label]}" alt="{escape(label)}" hidden>'
                   for index, label in enumerate(labels))

  def choice(side: str, chosen: str) -> str:
    options = ''.join(f'<option value="{index}"{" selected" if label == chosen else ""}>'
                      f'{escape(label)}</option>' for index, label in enumerate(labels))
    return f'<select class="{side}" aria-label="image on the {side}">{options}</select>'

  left = 'bicubic' if 'bicubic' in labels else labels[0]
  right = labels[-2] if len(labels) > 2 else labels[-1]
  title = escape(f'{image.name} ({image.group})')
  return (f'<article id="{escape(anchor(image.group, image.name))}"><h3>{title}</h3>'
          f'<div class="strip">{strip}</div>'
          f'<div class="slider" style="max-width:{max(width, 360)}px"><div class="choices">'
          f'{choice("left", left)}{choice("right", right)}</div>'
          f'<div class="stage" style="aspect-ratio:{width}/{height}">{layers}<i></i>'
          f'<input type="range" min="0" max="100" step="0.1" value="50" '
          f'aria-label="comparison of two versions of {title}"></div></div></article>')


def _score_caption(scores: Mapping[str, float] | None) -> str:
  parts = [score_text(name, scores[name]) + unit for name, unit in (
      ('psnr_y', ' dB'), ('lpips_alex', ' LPIPS'), ('lpips_vgg', ' LPIPS'))
      if scores and name in scores]
  return f'<br>{", ".join(parts)}' if parts else ''
