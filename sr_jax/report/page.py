"""The page: all that is known of a run, or of several side by side, in one HTML file.

The file asks no other host for anything. plotly.js, which draws the curves, lies packed in it.
"""

import base64
import functools
import gzip
import importlib.resources
import json
import pathlib
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from sr_jax.report import charts, gallery, history
from sr_jax.report.benchmarks import _benchmarks
from sr_jax.report.history import History
from sr_jax.report.html import _anchor, _cell, _section, _table
from sr_jax.runs import metadata
from sr_jax.system import files

HERE = pathlib.Path(__file__).parent
LARGEST = 7_500_000  # characters of a page
MARGIN = 60_000  # of them, for the tables that come after the pictures
MOST_PICTURES = 12  # of a set


def write(workdirs: Sequence, output=None) -> pathlib.Path:
  """Writes the page of one run to RUN/report.html, or of any number to `output`.

  Returns:
    where it is.

  Raises:
    InputError: there is no run, or the page can not be written.
  """
  found = history.open_all(workdirs)
  path = files.expand(output) if output else found[0].workdir / 'report.html'
  files.write_text(path, render(found))
  return path


def render(histories: Sequence[History]) -> str:
  """The HTML."""
  names = gallery.labels(histories)
  drawn = list(charts.charts(histories))
  title = ', '.join(names)
  head = [f'<h1>{escape(title)}</h1>', *_standing(histories, names)]
  body = [
      _section('When to stop', _words(histories, names)),
      _section('Run' if len(histories) == 1 else 'Runs', _facts(histories, names)
               + _config(histories, names)),
      *(_section(heading, _drawn(heading, drawn)) for heading in dict.fromkeys(
          chart['section'] for chart in drawn))]
  data = _json({'runs': names, 'charts': drawn})
  style, script = ((HERE / name).read_text('utf-8') for name in ('page.css', 'page.js'))
  rest = len(data) + len(_plotly()) + sum(map(len, body)) + len(style) + len(script)
  pictures, shown = _pictures(histories, LARGEST - rest - MARGIN)
  body.insert(2, _section('Pictures', pictures))
  body.append(_section('Benchmarks', _benchmarks(histories, names, shown)))
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
  """plotly.js as base64 of its gzip: 2 of its 5 MB, which leaves room for pictures."""
  whole = importlib.resources.files('plotly') / 'package_data' / 'plotly.min.js'
  return base64.b64encode(gzip.compress(whole.read_bytes(), 9, mtime=0)).decode()


# Words -------------------------------------------------------------------------------------


def _standing(histories, names) -> Iterator[str]:
  for run, name in zip(histories, names, strict=True):
    prefix = f'<b>{escape(name)}</b> ' if len(histories) > 1 else ''
    yield f'<p class="status">{prefix}{escape(history.status(run))}</p>'
    for line in history.gaps(run):
      yield f'<p class="warning">{prefix}{escape(line)}</p>'


def _words(histories, names) -> str:
  blocks = []
  for run, name in zip(histories, names, strict=True):
    lines = charts.trends(run)
    if lines:
      phase = escape(run.phases[-1][0])
      blocks.append((f'<h3>{escape(name)}</h3>' if len(histories) > 1 else '')
                    + f'<p>Of the steps of the phase {phase}:</p><ul>'
                    + ''.join(f'<li>{escape(line)}</li>' for line in lines) + '</ul>')
  return '\n'.join(blocks)


def _facts(histories, names) -> str:
  columns = [_facts_of(run) for run in histories]
  keys = list(dict.fromkeys(key for column in columns for key in column))
  head = ['', *map(escape, names)] if len(histories) > 1 else []
  return _table(head, [[key, *(escape(column.get(key, '')) for column in columns)]
                       for key in keys], 'facts')


def _facts_of(run: History) -> dict[str, str]:
  config, last = run.config, run.starts[-1] if run.starts else {}
  sizes = last.get('parameters') if isinstance(last.get('parameters'), dict) else {}

  def part(key):
    found = config.get(key)
    return found if isinstance(found, dict) else {}

  def network(key):
    name = part(key).get('name', '')
    return f'{name}, {sizes[key]:,} parameters' if isinstance(sizes.get(key), int) else str(name)

  facts = {'Generator': f'{network("generator")}, x{config.get("scale", "?")}'}
  facts['Discriminator'] = network('discriminator')
  facts['Steps'] = f'{run.step:,} of {run.steps:,}' + (
      f', the first {run.boundary:,} a warm-up' if run.boundary else '')
  speed = run.curves.get('images_per_second')
  if speed is not None and speed.finite.values.size:
    facts['Speed'] = f'{np.median(speed.finite.values):,.1f} images/s (median)'
  if run.starts:
    facts['Started'] = str(run.starts[0].get('started', ''))
    facts['Time'] = _clock(run.seconds) + (f' in {len(run.starts)} starts'
                                           if len(run.starts) > 1 else '')
    facts['Device'] = ', '.join(filter(None, (
        str(last.get('device', '')), f'{last["devices"]} of them'
        if isinstance(last.get('devices'), int) and last['devices'] > 1 else '')))
    facts['Versions'] = ', '.join(f'{name} {last[name]}' for name in (
        'python', 'jax', 'jaxlib', 'flax', 'optax') if isinstance(last.get(name), str))
    facts['Code'] = str(last.get('commit') or 'not known')
  facts['Data'] = str(part('data').get('source', ''))
  if run.checkpoints:
    facts['Checkpoints'] = ', '.join(f'{step:,}' for step in run.checkpoints)
  return facts


def _clock(seconds: float) -> str:
  hours, rest = divmod(round(seconds), 3600)
  return f'{hours:,}:{rest // 60:02}:{rest % 60:02}'


def _config(histories, names) -> str:
  configs = [metadata.flat(run.config) for run in histories]
  keys = list(dict.fromkeys(key for config in configs for key in config))

  def rows(keys):
    return [[escape(key), *(escape(json.dumps(config.get(key), ensure_ascii=False))
                            for config in configs)] for key in keys]

  head = ['', *map(escape, names)] if len(histories) > 1 else []
  differing = [key for key in keys if any(config.get(key) != configs[0].get(key)
                                          for config in configs)]
  parts = []
  if differing:
    parts.append('<details open><summary>What differs between their configs</summary>'
                 f'{_table(head, rows(differing), "config")}</details>')
  parts.append(f'<details><summary>Config</summary>{_table(head, rows(keys), "config")}</details>')
  return '\n'.join(parts)


# Curves ----------------------------------------------------------------------------------


def _drawn(heading, drawn) -> str:
  places = ''.join(f'<div class="chart" data-chart="{index}"></div>'
                   for index, chart in enumerate(drawn) if chart['section'] == heading)
  switch = ('<label class="switch"><input type="checkbox" id="logarithmic"> logarithmic</label>'
            if heading == 'Losses' else '')
  return f'{switch}<div class="charts">{places}</div>'


def _json(value) -> str:
  """JSON that can stand in a <script>: no </script> in it ends it."""
  return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


# Pictures ----------------------------------------------------------------------------------


def _pictures(histories, budget: int) -> tuple[str, set]:
  """The section, and {(set, picture)} of those that were scored and are in it."""
  progress, late = gallery.within(gallery.progress(histories), budget // 2)
  used = sum(len(uri) for _, uris in progress for uri in uris.values())
  evaluated, more = gallery.within(gallery.evaluated(histories, MOST_PICTURES), budget - used)
  parts = [_shown(f'p{index}', *entry) for index, entry in enumerate(progress)]
  if evaluated:
    parts.append('<div class="pictures">' + '\n'.join(
        _shown(f'e{index}', *entry) for index, entry in enumerate(evaluated)) + '</div>')
  if late + more:
    parts.append(f'<p>{late + more} more did not fit; they are in the runs\' folders.</p>')
  return '\n'.join(parts), {(picture.of, picture.name) for picture, _ in evaluated}


def _shown(key: str, picture: gallery.Compared, uris: dict[str, str]) -> str:
  """A strip of the middle of each version, and all of two of them under a slider."""
  height, width = picture.layers['original'].shape[:2]
  names = list(uris)
  strip = ''.join(
      f'<figure><img data-of="{key}-{index}" alt="{escape(name)}"><figcaption>{escape(name)}'
      f'{_told(picture.figures.get(name))}</figcaption></figure>'
      for index, name in enumerate(names))
  layers = ''.join(f'<img id="{key}-{index}" src="{uris[name]}" alt="{escape(name)}" hidden>'
                   for index, name in enumerate(names))

  def choice(side, chosen):
    options = ''.join(f'<option value="{index}"{" selected" if name == chosen else ""}>'
                      f'{escape(name)}</option>' for index, name in enumerate(names))
    return f'<select class="{side}" aria-label="{side} of the line">{options}</select>'

  before = 'bicubic' if 'bicubic' in names else names[0]
  after = names[-2] if len(names) > 2 else names[-1]
  label = f'{picture.name} ({picture.of})'
  return (f'<article id="{escape(_anchor(picture.of, picture.name))}"><h3>{escape(label)}</h3>'
          f'<div class="strip">{strip}</div>'
          f'<div class="slider" style="max-width:{max(width, 360)}px"><div class="choices">'
          f'{choice("left", before)}{choice("right", after)}</div>'
          f'<div class="stage" style="aspect-ratio:{width}/{height}">{layers}<i></i>'
          f'<input type="range" min="0" max="100" step="0.1" value="50" '
          f'aria-label="before and after of {escape(label)}"></div></div></article>')


def _told(figures: dict | None) -> str:
  parts = [_cell(name, figures[name]) + unit for name, unit in (
      ('psnr_y', ' dB'), ('lpips_alex', ' LPIPS'), ('lpips_vgg', ' LPIPS'))
      if figures and name in figures]
  return f'<br>{", ".join(parts)}' if parts else ''


# Benchmarks --------------------------------------------------------------------------------


