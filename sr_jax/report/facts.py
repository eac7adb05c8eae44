"""The tables of a report that state what a run is: its network, machine, data and config."""

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from sr_jax.report.history import History
from sr_jax.report.html import table
from sr_jax.report.overview import differing_keys
from sr_jax.runs import metadata
from sr_jax.system.text import format_seconds


def facts_table(histories: Sequence[History], names: Sequence[str]) -> str:
  """Returns a table with a column for each run: network, steps, speed, machine, data."""
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


def config_tables(histories: Sequence[History], names: Sequence[str]) -> str:
  """Returns the folded configs and, of several runs, the keys in which they differ."""
  configs = [metadata.flat(run.config) for run in histories]
  keys = list(dict.fromkeys(key for config in configs for key in config))

  def rows(keys: Sequence[str]) -> list[list[str]]:
    return [[escape(key), *(escape(json.dumps(config.get(key), ensure_ascii=False))
                            for config in configs)] for key in keys]

  head = ['', *map(escape, names)] if len(histories) > 1 else []
  differing = list(differing_keys(histories)[0])
  parts = []
  if differing:
    parts.append('<details open><summary>Differences between the configs</summary>'
                 f'{table(head, rows(differing), "config")}</details>')
  parts.append(f'<details><summary>Config</summary>{table(head, rows(keys), "config")}</details>')
  return '\n'.join(parts)
