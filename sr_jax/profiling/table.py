"""What --mode profile prints: its figures in words and columns."""

NAMES = {'batch': 'batch: crops, augmentation', 'update': 'optimisers, average, guard'}


def heading(result: dict) -> str:
  """The device and the data."""
  return (f'{result["device"]} ({result["backend"]}), jax {result["jax"]}\n'
          f'data: {result["data"]}')


def _best(ceiling: dict, dtype: str) -> str:
  more = (f', {_flops(ceiling["flops_bfloat16"])} in bfloat16'
          if 'flops_bfloat16' in ceiling and dtype != 'bfloat16' else '')
  return (f'{_flops(ceiling["flops"])} in a large matrix product of {dtype}{more}; '
          f'{ceiling["bytes"] / 1e9:.4g} GB/s in a large copy')


def table(name: str, figures: dict, result: dict) -> str:
  """A phase: its parts, then the whole step, then what decides."""
  step, rows, spent = figures['step'], figures['in_a_row'], figures['spent']
  ceiling, parts = result['ceilings'], figures['parts']
  total = sum(part['seconds'] for part in parts.values())
  lines = ['', f'{name} step, batch {result["batch_size"]} of {result["hr_patch"]}x'
           f'{result["hr_patch"]}, {result["dtype"]}',
           f'  {"":28}{"ms":>9}{"share":>8}{"GFLOP":>9}{"GFLOP/s":>9}{"of best":>8}{"GB":>8}'
           f'{"GB/s":>8}{"of best":>8}']
  lines += [_line(NAMES.get(key, key), part, total, ceiling) for key, part in parts.items()]
  summed = {key: sum(part[key] for part in parts.values()) for key in step}
  lines += [_line('sum of the parts', summed, total, ceiling),
            _line('the step, one program', step, total, ceiling)]
  count, held = figures['steps_of_dispatch'], rows['held']
  said = {
      'best': _best(ceiling, result['dtype']),
      'in a row': f'{_ms(spent["step"])} a step, {result["batch_size"] / spent["step"]:.1f} images '
                  'a second' + (f'; {count} steps in a dispatch' if count > 1 else '')
                  + (f' ({_ms(rows["single"])} one by one)' if 'single' in rows else ''),
      'dispatch': f'{_ms(rows["nothing"])} for a step that does nothing; '
                  f'{figures["operations"]} operations, at least '
                  f'{1e6 * ceiling["launch"]:.1f} us each',
      'idle': 'not told by the trace of a CPU' if figures['idle_share'] is None else
              f'{figures["idle_share"]:.1%} of the time, by the trace',
      'data': 'on the device: nothing to wait for' if 'fed' not in rows else
              f'{_ms(rows["fed"] - held)} a step waited ({_ms(rows["fed"])} against {_ms(held)} '
              f'with batches on the device); the host alone makes one in {_ms(rows["made"])}',
      'memory': f'{figures["memory_bytes"] / 2**20:,.0f} MiB for the step'
                + (f', {figures["peak_bytes"] / 2**20:,.0f} MiB at peak'
                   if figures['peak_bytes'] else '')
                + f'; {"read from the cache" if figures["from_cache"] else "compiled"} in '
                f'{figures["compile_seconds"]:.1f} s',
      'verdict': figures['verdict']}
  return '\n'.join([*lines, *(f'  {key:10}{text}' for key, text in said.items())])


def _flops(rate: float) -> str:
  return f'{rate / 1e12:.4g} TFLOP/s' if rate > 1e12 else f'{rate / 1e9:.4g} GFLOP/s'


def _ms(seconds: float) -> str:
  return f'{1e3 * seconds:.4g} ms'


def _line(name: str, part: dict, total: float, ceiling: dict) -> str:
  seconds, flops, size = part['seconds'], part['flops'], part['bytes']
  return (f'  {name:28}{1e3 * seconds:9.2f}{seconds / total:8.1%}{flops / 1e9:9.3f}'
          f'{flops / 1e9 / seconds:9.1f}{flops / seconds / ceiling["flops"]:8.1%}{size / 1e9:8.3f}'
          f'{size / 1e9 / seconds:8.1f}{size / seconds / ceiling["bytes"]:8.1%}')
