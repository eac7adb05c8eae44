"""Computes the time of a program on a GPU from what it does and what the GPU can do."""

from typing import NamedTuple

from sr_jax.profiling.program import Counts
from sr_jax.profiling.target_file import Target


class Times(NamedTuple):
  """Computed seconds; nothing was measured.

  Attributes:
    lower: a lower bound: the convolutions and matrix products at the peak rate of their dtype, or
      all bytes at the full bandwidth, whichever takes longer.
    estimate: the same at the shares of the peaks in the target's file, and the time of starting
      the kernels.
  """

  lower: float
  estimate: float


def times(counts: Counts, target: Target) -> Times:
  """Computes the times of a step, or of another program."""
  arithmetic = sum(flops / target.peak(dtype) for dtype, flops in counts.product_flops.items())
  memory = sum(counts.bytes.values()) / target.bandwidth
  return Times(max(arithmetic, memory),
               max(arithmetic / target.arithmetic_share, memory / target.bandwidth_share)
               + counts.kernels * target.kernel_seconds)
