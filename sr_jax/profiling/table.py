"""Formats the measurements of sr-jax profile as text."""

from collections.abc import Mapping
from typing import Any

from sr_jax.system.text import format_bytes

# Parts of a step whose printed name is longer than their key in profile.json.
PART_NAMES = {'batch': 'batch: crops, augmentation', 'update': 'optimisers, EMA, non-finite guard'}


def heading(result: Mapping[str, Any]) -> str:
  """Returns the lines on the device and the data."""
  return (f'{result["device"]} ({result["backend"]}), jax {result["jax"]}\n'
          f'data: {result["data"]}')


def table(name: str, measured: Mapping[str, Any], result: Mapping[str, Any]) -> str:
  """Returns the table of a phase: its parts, the entire step, and what limits it.

  Args:
    measured: the phase's entry in profile.json.
    result: the content of profile.json.
  """
  step, parts, ceilings = measured['step'], measured['parts'], result['ceilings']
  total = sum(part['seconds'] for part in parts.values())
  summed = {key: sum(part[key] for part in parts.values()) for key in step}
  size, side = (measured.get(key, result[key]) for key in ('batch_size', 'hr_patch'))
  lines = ['', f'{name} step, batch {size} of {side}x{side}, {result["dtype"]}',
           f'  {"":34}{"ms":>9}{"share":>8}{"GFLOP":>9}{"GFLOP/s":>9}{"of peak":>8}{"GB":>8}'
           f'{"GB/s":>8}{"of peak":>8}']
  lines += [_row(PART_NAMES.get(key, key), part, total, ceilings) for key, part in parts.items()]
  lines += [_row('sum of the parts', summed, total, ceilings),
            _row('entire step, one program', step, total, ceilings)]
  described = {
      'peak': _peak(ceilings, result['dtype']), 'training': _training(measured, result),
      'dispatch': _dispatch(measured, ceilings),
      'idle': 'not measured: a trace of the CPU has no device' if measured['idle_share'] is None
              else f'{measured["idle_share"]:.1%} of the time, from the trace',
      'data': _data(measured['in_a_row']), 'memory': _memory(measured),
      'verdict': measured['verdict']}
  return '\n'.join([*lines, *(f'  {key:10}{text}' for key, text in described.items())])


def _peak(ceilings: Mapping[str, float], dtype: str) -> str:
  bfloat16 = (f', {_flops(ceilings["flops_bfloat16"])} in bfloat16'
              if 'flops_bfloat16' in ceilings and dtype != 'bfloat16' else '')
  return (f'{_flops(ceilings["flops"])} in a large matrix product of {dtype}{bfloat16}; '
          f'{ceilings["bytes"] / 1e9:.4g} GB/s in a large copy')


def _training(measured: Mapping[str, Any], result: Mapping[str, Any]) -> str:
  seconds, steps = measured['spent']['step'], measured['steps_of_dispatch']
  size = measured.get('batch_size', result['batch_size'])
  text = f'{_ms(seconds)} per step, {size / seconds:.1f} images/s'
  if steps > 1:
    text += f'; {steps} steps per call'
  if 'single' in measured['in_a_row']:
    text += f' ({_ms(measured["in_a_row"]["single"])} with one step per call)'
  return text


def _dispatch(measured: Mapping[str, Any], ceilings: Mapping[str, float]) -> str:
  return (f'{_ms(measured["in_a_row"]["nothing"])} for a step that computes nothing; '
          f'{measured["operations"]} operations, at least {1e6 * ceilings["launch"]:.1f} us each')


def _data(rows: Mapping[str, float]) -> str:
  if 'fed' not in rows:
    return 'on the device, no waiting'
  return (f'{_ms(rows["fed"] - rows["held"])} per step waiting ({_ms(rows["fed"])}, against '
          f'{_ms(rows["held"])} with batches on the device); the host alone makes a batch in '
          f'{_ms(rows["made"])}')


def _memory(measured: Mapping[str, Any]) -> str:
  text = f'{format_bytes(measured["memory_bytes"])} for the step'
  if measured['peak_bytes']:
    text += f', {format_bytes(measured["peak_bytes"])} at peak'
  compiled = 'read from the cache' if measured['from_cache'] else 'compiled'
  return f'{text}; {compiled} in {measured["compile_seconds"]:.1f} s'


def _flops(rate: float) -> str:
  return f'{rate / 1e12:.4g} TFLOP/s' if rate > 1e12 else f'{rate / 1e9:.4g} GFLOP/s'


def _ms(seconds: float) -> str:
  return f'{1e3 * seconds:.4g} ms'


def _row(name: str, part: Mapping[str, float], total: float, ceilings: Mapping[str, float]) -> str:
  seconds, flops, size = part['seconds'], part['flops'], part['bytes']
  return (f'  {name:34}{1e3 * seconds:9.2f}{seconds / total:8.1%}{flops / 1e9:9.3f}'
          f'{flops / 1e9 / seconds:9.1f}{flops / seconds / ceilings["flops"]:8.1%}{size / 1e9:8.3f}'
          f'{size / 1e9 / seconds:8.1f}{size / seconds / ceilings["bytes"]:8.1%}')
