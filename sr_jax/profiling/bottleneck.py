"""What a training step waits for, by rule, and what to try."""

from typing import NamedTuple

AVOIDABLE = 0.2  # of a step: so much waiting, or starting of work, comes before what is computed


class Spent(NamedTuple):
  """Seconds of one step.

  Attributes:
    step: as train takes it, its batches from the feed and the next dispatched meanwhile.
    data: what of it would be saved if its batches lay on the device already.
    dispatch: what of it the device does nothing in, or starts operations.
    arithmetic: what its FLOPs take at the rate of a large matrix product.
    memory: what its bytes take at the rate of a large copy.
  """

  step: float
  data: float
  dispatch: float
  arithmetic: float
  memory: float


def bottleneck(spent: Spent) -> tuple[str, float]:
  """('data' | 'dispatch' | 'memory' | 'arithmetic', the share of the step that decides it).

  Data and dispatch are waste: the larger of them, from `AVOIDABLE` of the step on. Otherwise
  the device is at work, and what it works on is the ceiling that it is nearer to.
  """
  waste, seconds = max((('data', spent.data), ('dispatch', spent.dispatch)),
                       key=lambda pair: pair[1])
  if seconds >= AVOIDABLE * spent.step:
    return waste, min(seconds / spent.step, 1.0)
  if spent.memory > spent.arithmetic:
    return 'memory', spent.memory / spent.step
  return 'arithmetic', spent.arithmetic / spent.step


def verdict(spent: Spent, *, mode: str, workers: int, cores: int, loops: bool, dtype: str,
            accelerator: bool, bfloat16_gain: float = 1.0) -> str:
  """One line: what it is, by which figure, and which config key to try.

  Args:
    mode, workers: of the data, see `feed.open_feed`.
    cores: of the host.
    loops: whether many steps go in a dispatch.
    dtype: config.dtype.
    bfloat16_gain: how many times faster a large product is in bfloat16; 1 if unmeasured.
  """
  kind, share = bottleneck(spent)
  if kind == 'data':
    what = f'waiting for data, {share:.0%} of a step'
    if mode == 'stream' and workers < cores:
      what += f': more data.workers ({workers} on {cores} cores), data.mode=bank or mapped'
    elif mode == 'stream':
      what += ': data.mode=bank or mapped, a larger data.crops_per_picture'
    else:
      what += ': data.mode=bank'
    return what
  if kind == 'dispatch':
    what = f'dispatch, {share:.0%} of a step is starting work: a larger batch_size or hr_patch'
    if accelerator:
      what += ', a larger log_every' if loops else ', device_loop=yes'
    return what
  ceiling = {'memory': 'copy', 'arithmetic': 'matrix product'}[kind]
  what = f'{kind}, at {share:.0%} of the rate of a large {ceiling}'
  if accelerator and dtype == 'float32':
    gain = f' (products are {bfloat16_gain:.1f} times as fast)' if bfloat16_gain > 1.1 else ''
    return f'{what}: dtype=bfloat16{gain}'
  if accelerator and kind == 'arithmetic' and share < 0.3:
    return f'{what}: a larger batch_size fills the device better'
  return f'{what}: fewer generator.features or blocks, or a faster device'
