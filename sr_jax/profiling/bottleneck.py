"""Decides by fixed rules what limits a training step, and suggests config keys to try."""

from typing import NamedTuple

AVOIDABLE = 0.2  # share of a step from which waiting or dispatch is reported before computation
LOW_ARITHMETIC = 0.3  # share of the peak rate below which the device is not well used
SPEEDUP_SHOWN = 1.1  # bfloat16 gains below this are within measurement noise


class Spent(NamedTuple):
  """Seconds of one training step.

  Attributes:
    step: the step as training runs it: batches from the feed, the next call already dispatched.
    data: the part that would be saved if the batches were already on the device.
    dispatch: the part in which the device is idle or starts operations.
    arithmetic: the time that the step's FLOPs take at the rate of a large matrix product.
    memory: the time that the step's bytes take at the rate of a large copy.
  """

  step: float
  data: float
  dispatch: float
  arithmetic: float
  memory: float


class Setup(NamedTuple):
  """The settings on which the advice depends.

  Attributes:
    mode: mode of the data feed: 'bank', 'mapped' or 'stream'.
    workers: processes that decode images.
    cores: CPU cores of the host.
    device_loop: whether one call runs many steps.
    dtype: config.dtype.
    accelerator: whether the device is not a CPU.
    bfloat16_gain: speed of a large matrix product in bfloat16 relative to `dtype`; 0 if not
      measured.
  """

  mode: str
  workers: int
  cores: int
  device_loop: bool
  dtype: str
  accelerator: bool
  bfloat16_gain: float = 0.0


def bottleneck(spent: Spent) -> tuple[str, float]:
  """Returns ('data' | 'dispatch' | 'memory' | 'arithmetic', its share of the step).

  Data and dispatch are avoidable: the larger of the two is the bottleneck from `AVOIDABLE` of a
  step on. Otherwise the device is computing, and the bottleneck is the ceiling that is closer.
  """
  kind, seconds = max((('data', spent.data), ('dispatch', spent.dispatch)),
                      key=lambda pair: pair[1])
  if seconds >= AVOIDABLE * spent.step:
    return kind, min(seconds / spent.step, 1.0)
  if spent.memory > spent.arithmetic:
    return 'memory', spent.memory / spent.step
  return 'arithmetic', spent.arithmetic / spent.step


def verdict(spent: Spent, setup: Setup) -> str:
  """Returns one line: the bottleneck, the measured share, and config keys to try."""
  kind, share = bottleneck(spent)
  if kind == 'data':
    return f'waiting for data, {share:.0%} of a step; try {_data_advice(setup)}'
  if kind == 'dispatch':
    advice = 'a larger batch_size or hr_patch'
    if setup.accelerator:
      advice += ', a larger log_every' if setup.device_loop else ', device_loop=yes'
    return f'dispatch, {share:.0%} of a step is spent on starting operations; try {advice}'
  ceiling = {'memory': 'copy', 'arithmetic': 'matrix product'}[kind]
  return (f'{kind}, at {share:.0%} of the rate of a large {ceiling}; '
          f'try {_compute_advice(kind, share, setup)}')


def _data_advice(setup: Setup) -> str:
  if setup.mode != 'stream':
    return 'data.mode=bank'
  if setup.workers < setup.cores:
    return (f'more data.workers (now {setup.workers} on {setup.cores} cores), '
            'data.mode=bank or mapped')
  return 'data.mode=bank or mapped, a larger data.crops_per_picture'


def _compute_advice(kind: str, share: float, setup: Setup) -> str:
  if setup.accelerator and setup.dtype == 'float32':
    gain = setup.bfloat16_gain
    measured = f' (matrix products are {gain:.1f} times as fast)' if gain > SPEEDUP_SHOWN else ''
    return f'dtype=bfloat16{measured}'
  if setup.accelerator and kind == 'arithmetic' and share < LOW_ARITHMETIC:
    return 'a larger batch_size, which uses the device better'
  return 'fewer generator.features or blocks, or a faster device'
