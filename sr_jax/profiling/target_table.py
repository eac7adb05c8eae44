"""Formats the results of sr-jax profile --target as text."""

from collections.abc import Mapping
from typing import Any

from sr_jax.profiling.target_fit import MAX_BATCH
from sr_jax.system.text import format_bytes, format_seconds

NOTES = '''
Computed from the compiled program and data sheets; nothing was measured. The lower bound has the
convolutions and products at the peak rate, or all bytes at the full bandwidth; the estimate has
the shares of these rates in the target's file, and the start of every kernel. cuDNN's algorithms
and their workspace, which needs memory too, are chosen on the GPU itself.'''


def block(result: Mapping[str, Any]) -> str:
  """Returns the lines on one GPU.

  Args:
    result: the content of target-NAME.json.
  """
  target, dtype = result['target'], result['dtype']
  lines = ['', f'{target["name"]}, {format_bytes(target["memory"], "GiB")}, of which JAX uses '
           f'{format_bytes(result["memory_for_jax"], "GiB")}; {_rates(target, dtype)}']
  if dtype == 'bfloat16' and not target['bfloat16']:
    lines.append(f'  {target["name"]} has no bfloat16: this program computes in float32')
  for name, phase in result['phases'].items():
    lines += _phase(name, phase, result)
  rows = {'batch': _largest(result)}
  if result['with']:
    rows['instead'] = '; '.join(f'{change}: {format_bytes(needed)}'
                                for change, needed in result['with'].items())
  height, width = result['evaluation']['input']
  evaluation = result['evaluation']
  rows['evaluate'] = (
      f'{width}x{height} as input, in one piece: {format_bytes(evaluation["needed_bytes"])}'
      f'{_fits(evaluation["fits"])}; {_times(evaluation)}')
  rows['training'] = _training(result)
  rows['disk'] = (f'{_three(result["checkpoint_bytes"] / 1e6)} MB for each checkpoint, '
                  f'{_three(result["cache_bytes"] / 1e6)} MB for the compile cache')
  return '\n'.join([*lines, *_rows(rows)])


def summary(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns a table with a row for each GPU; the phase is the one that needs the most memory."""
  lines = ['', f'  {"":26}{"needs":>12}{"of":>12}{"fits":>6}{"largest":>9}{"bound":>10}'
           f'{"estimate":>10}{"hours":>8}']
  for result in results.values():
    phase = result['phases'][result['largest_phase']]
    lines.append(
        f'  {result["target"]["name"]:26}{format_bytes(phase["needed_bytes"]):>12}'
        f'{format_bytes(result["memory_for_jax"]):>12}{"yes" if result["fits"] else "no":>6}'
        f'{result["largest_batch"]:9}{_ms(phase["lower_bound_seconds"]):>10}'
        f'{_ms(phase["estimate_seconds"]):>10}{_hours(result):>8}')
  return '\n'.join(lines)


def nothing_fits(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns one line: what a config that fits no GPU needs, and what would fit."""
  parts = []
  for result in results.values():
    needed = result['phases'][result['largest_phase']]['needed_bytes']
    parts.append(f'{result["target"]["name"]} has {format_bytes(result["memory_for_jax"])} for JAX '
                 f'and the {result["largest_phase"]} step needs {format_bytes(needed)}; '
                 + (f'would fit: {", ".join(remedies(result))}' if remedies(result) else
                    'no batch size fits, nor accumulate, remat or bfloat16 alone'))
  largest = result['phases'][result['largest_phase']]
  return f'config.batch_size={largest.get("batch_size", result["batch_size"])}: {". ".join(parts)}'


def remedies(result: Mapping[str, Any]) -> list[str]:
  """Returns the settings with which a config would fit, such as 'config.batch_size=8'."""
  found = [f'config.{change}' for change, needed in result['with'].items()
           if needed <= result['memory_for_jax']]
  return ([f'config.batch_size={result["largest_batch"]}'] if result['largest_batch'] else []
          ) + found


def _phase(name: str, phase: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
  size, side = (phase.get(key, result[key]) for key in ('batch_size', 'hr_patch'))
  data = result['data']
  if data['on_device']:
    images = format_bytes(data['on_device'])
  elif data['bytes'] or data['mode'] in ('mapped', 'stream'):
    images = 'stay on the disk'
  else:
    images = 'unknown'
  kinds = ', '.join(f'{number:,} {kind}' for kind, number in phase['convolutions'].items())
  loops = (f'; {phase["unknown_loops"]} loops of unknown length count once'
           if phase['unknown_loops'] else '')
  rows = {
      'memory': f'{format_bytes(phase["needed_bytes"])}: state {format_bytes(phase["state_bytes"])}'
                f', activations {format_bytes(phase["activation_bytes"])}, images {images}'
                f'{_fits(phase["fits"])}',
      'kernels': f'{phase["kernels"]:,}: {_parts(phase["kernels_by_part"], 1)}',
      'of these': f'{kinds or "no"} convolutions; {phase["copies"]:,} copies and casts, '
                  f'{phase["transposes"]:,} transposes{loops}',
      'GFLOP': f'{_three(sum(phase["flops"].values()) / 1e9)}: {_parts(phase["flops"], 1e9)}',
      'GB': f'{_three(sum(phase["bytes"].values()) / 1e9)}: {_parts(phase["bytes"], 1e9)}',
      'time': _times(phase)}
  return [f'  {name} step, batch {size} of {side}x{side}, {result["dtype"]}',
          *_rows(rows, '    ')]


def _rates(target: Mapping[str, Any], dtype: str) -> str:
  if dtype == 'bfloat16' and target['bfloat16']:
    rate, name = target['bfloat16'], 'bfloat16'
  elif target['tf32']:
    rate, name = target['tf32'], 'TF32'
  else:
    rate, name = target['float32'], 'float32'
  return (f'{rate / 1e12:,.0f} TFLOP/s in {name}, {target["bandwidth"] / 1e9:,.0f} GB/s '
          f'(compute capability {target["capability"]})')


def _largest(result: Mapping[str, Any]) -> str:
  if not result['largest_batch']:
    return f'none fits in the {result["largest_phase"]} step'
  more = ' or more' if result['largest_batch'] == MAX_BATCH else ''
  return (f'the largest that fits is {result["largest_batch"]:,}{more}, '
          f'in the {result["largest_phase"]} step')


def _training(result: Mapping[str, Any]) -> str:
  steps = sum(phase['steps'] for phase in result['phases'].values())
  if result['hours'] is None:
    return 'time unknown: the config counts epochs, and its images are not on this machine'
  return f'{steps:,} steps in {format_seconds(3600 * result["hours"], always_hours=True)}, estimate'


def _hours(result: Mapping[str, Any]) -> str:
  return '-' if result['hours'] is None else f'{result["hours"]:,.1f}'


def _times(computed: Mapping[str, Any]) -> str:
  return (f'{_ms(computed["lower_bound_seconds"])} lower bound, '
          f'{_ms(computed["estimate_seconds"])} estimate')


def _fits(fits: bool) -> str:
  return '; fits' if fits else '; does not fit'


def _parts(values: Mapping[str, float], unit: float) -> str:
  """Returns 'vgg 12.3, generator 4.56', the largest first, without those below 0.1%."""
  total = sum(values.values())
  largest = sorted(values.items(), key=lambda item: -item[1])
  return ', '.join(f'{name} {_three(value / unit)}' for name, value in largest
                   if value >= total / 1000)


def _three(value: float) -> str:
  """Returns a number with at least three significant digits, without an exponent."""
  if value >= 100 or value == int(value):
    return f'{value:,.0f}'
  return f'{value:.1f}' if value >= 10 else f'{value:.2f}' if value >= 1 else f'{value:.3f}'


def _ms(seconds: float) -> str:
  return f'{_three(1e3 * seconds)} ms'


def _rows(rows: Mapping[str, str], indent: str = '  ') -> list[str]:
  return [f'{indent}{name:10}{text}' for name, text in rows.items()]
