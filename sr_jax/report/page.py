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

from sr_jax.report import charts, facts, gallery, history, overview, sliders, sweeps
from sr_jax.report.benchmarks import benchmark_tables
from sr_jax.report.curves import MIN_POINTS
from sr_jax.report.headline import headline
from sr_jax.report.history import History
from sr_jax.report.html import contents, section
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files

HERE = pathlib.Path(__file__).parent
MAX_CHARACTERS = 7_500_000  # of a page
BENCHMARK_CHARACTERS = 60_000  # of these, reserved for the tables, whose links depend on the images
MAX_IMAGES_PER_SET = 12


def write(workdirs: Sequence[os.PathLike | str],
          output: os.PathLike | str | None = None) -> pathlib.Path:
  """Writes the report of one run to RUN/report.html, or of any number of runs to `output`.

  Args:
    workdirs: run folders, and folders whose subfolders are runs. The report of one folder of runs
      is its report.html by default.

  Returns:
    The path of the report.

  Raises:
    InputError: a folder is no run and contains none, or the file cannot be written.
  """
  return write_runs(sweeps.read(workdirs), output)


def write_runs(runs: sweeps.Runs, output: os.PathLike | str | None = None) -> pathlib.Path:
  """Writes the report of runs that have been read, as `write` does."""
  path = RunFolder(runs.folder or runs.histories[0].workdir).report
  path = files.expand(output) if output else path
  files.write_text(path, render(runs.histories, runs.folder.resolve().name if runs.folder else '',
                                runs.notes))
  return path


def render(histories: Sequence[History], title: str = '', notes: Sequence[str] = ()) -> str:
  """Returns the HTML of the report.

  What is looked for first comes first: the best scores and an image, or the table of the runs, then
  curves, images, tables.

  Args:
    title: by default the names of the runs.
    notes: lines on what is not shown.
  """
  names = gallery.run_labels(histories)
  shown = overview.shown_runs(histories)
  shown_names = [name for run, name in zip(histories, names, strict=True)
                 if any(run is one for one in shown)]
  drawn = list(charts.charts(shown))
  title = title or ', '.join(names)
  data = _script_json({'runs': shown_names, 'charts': drawn})
  style, script = ((HERE / name).read_text('utf-8') for name in ('page.css', 'page.js'))
  scores = headline(histories[0]) if len(histories) == 1 else overview.overview(
      histories, names, {name: number for number, name in enumerate(shown_names)})
  curves = [section(heading, _chart_places(heading, drawn)) for heading in dict.fromkeys(
      chart['section'] for chart in drawn)]
  # With several runs the curves of the metrics follow the table.
  trends = section('Trends', _trends(histories, names))
  curves = [trends, *curves] if len(histories) == 1 else [*curves, trends]
  runs = section('Run' if len(histories) == 1 else 'Runs',
                 facts.facts_table(histories, names) + facts.config_tables(histories, names))
  used = sum(map(len, (data, _plotly(), style, script, scores, *curves, runs)))
  encoded = _encode(shown, MAX_CHARACTERS - used - BENCHMARK_CHARACTERS)
  linked = {(image.group, image.name) for image, _ in encoded.evaluated}
  top = sliders.top_slider(encoded) if len(histories) == 1 else ''
  sections = list(filter(None, [
      section('Result', scores + top), *curves,
      section('Images', sliders.articles(encoded)),
      section('Benchmarks', benchmark_tables(histories, names, linked)), runs]))
  return '\n'.join([
      '<!doctype html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<title>{escape(title)}</title>', f'<style>{style}</style>', '</head>', '<body>', '<main>',
      '<header>', f'<h1>{escape(title)}</h1>', *_status_lines(histories, names),
      *(f'<p class="warning">{escape(note)}</p>' for note in notes),
      contents(sections), '</header>', *sections, '</main>',
      f'<script type="application/json" id="data">{data}</script>',
      f'<script type="text/plain" id="plotly">{_plotly()}</script>',
      f'<script>{script}</script>', '</body>', '</html>', ''])


def _encode(histories: Sequence[History], budget: int) -> sliders.Shown:
  """Encodes the images of a page in `budget` characters."""
  found, left = [], 0
  # Each kind leaves a share of what is left for those that follow.
  for comparisons, share in ((gallery.progress(histories), 0.5),
                             (gallery.upscaled(histories), 0.6),
                             (gallery.evaluated(histories, MAX_IMAGES_PER_SET), 1.0)):
    encoded, omitted = gallery.encode_within(comparisons, int(share * budget))
    budget -= sum(len(uri) for _, uris in encoded for uri in uris.values())
    left += omitted
    found.append(encoded)
  return sliders.Shown(*found, left)


@functools.cache
def _plotly() -> str:
  """Returns plotly.js as base64 of its gzip: 2 instead of 5 MB, which leaves space for images."""
  source = importlib.resources.files('plotly') / 'package_data' / 'plotly.min.js'
  return base64.b64encode(gzip.compress(source.read_bytes(), 9, mtime=0)).decode()


# Text --------------------------------------------------------------------------------------


def _status_lines(histories: Sequence[History], names: Sequence[str]) -> Iterator[str]:
  finished = sum(map(history.is_finished, histories))
  if len(histories) > 1:
    count = 'all' if finished == len(histories) else f'{finished} of them'
    yield f'<p class="status">{len(histories)} runs, {count} finished.</p>'
  for run, name in zip(histories, names, strict=True):
    prefix = f'<b>{escape(name)}</b> ' if len(histories) > 1 else ''
    if len(histories) == 1 or not history.is_finished(run):
      yield f'<p class="status">{prefix}{escape(history.status(run))}</p>'
    for line in history.warnings(run):
      yield f'<p class="warning">{prefix}{escape(line)}</p>'


def _trends(histories: Sequence[History], names: Sequence[str]) -> str:
  """Returns what the ends of the curves show, for each run; the losses are folded."""
  blocks = []
  for run, name in zip(histories, names, strict=True):
    lines, losses = charts.trends(run), charts.loss_trends(run)
    if lines or losses:
      heading = f'<h3>{escape(name)}</h3>' if len(histories) > 1 else ''
      phase = escape(run.main_phase)
      blocks.append(f'{heading}<p>Trends in the {phase} phase:</p>{_items(lines)}')
      if losses:
        blocks.append(f'<details><summary>Trends of the losses</summary>{_items(losses)}</details>')
  if blocks and len(histories) > 1:
    blocks = [f'<details><summary>Trends of each run</summary>{"".join(blocks)}</details>']
  if blocks:
    widest = ', '.join(f'{width:g} {"dB " * metric.startswith("psnr")}in {metric}'
                       for metric, width in charts.WIDEST_INTERVALS.items())
    blocks.append(f'<p class="status">A trend is a line through the last tenth of the steps, at '
                  f'least {MIN_POINTS} points. None is stated where its 95% interval is wider than '
                  f'{widest} or {charts.WIDEST_LOSS_INTERVAL:g}% of a loss.</p>')
  return '\n'.join(blocks)


def _items(lines: Sequence[str]) -> str:
  return f'<ul>{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ''


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
