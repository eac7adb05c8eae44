"""Finds the largest batch that fits in the memory of a GPU."""

from collections.abc import Callable, Mapping

MAX_BATCH = 1024  # larger batches are of no use, and no array may have 2^31 elements
TRIES = 6  # compilations besides the first two
NEAR = 1.05  # a batch that is larger by less is not worth another compilation


def largest_batch(need: Callable[[int], int], budget: int, size: int, unit: int = 1) -> int:
  """Returns the largest batch size whose memory fits, by a line through two sizes.

  Activations are proportional to the batch. The size that the line gives is then compiled, which
  confirms it; if it needs more or much less than expected, others follow.

  Args:
    need: batch size -> bytes; compiles the step, so each call may take a minute.
    budget: bytes that are available.
    size: a batch size; the line goes through this size and twice as much.
    unit: the result is a multiple of it, as `size` is.

  Returns:
    A size that was compiled and fits, at most MAX_BATCH; 0 if none was found.
  """
  known = {size: need(size), 2 * size: need(2 * size)}
  most = MAX_BATCH // unit * unit
  for _ in range(TRIES):
    fits = max((batch for batch, needed in known.items() if needed <= budget), default=0)
    guess = min(_extrapolate(known, budget), most) // unit * unit
    too_large = min((batch for batch, needed in known.items() if needed > budget), default=0)
    if too_large:
      guess = min(guess, too_large - unit)
    if guess <= NEAR * fits or guess in known:
      return fits
    known[guess] = need(guess)
  return max((batch for batch, needed in known.items() if needed <= budget), default=0)


def _extrapolate(known: Mapping[int, int], budget: int) -> int:
  """Returns the size at which the line through the smallest and the largest size meets `budget`."""
  low, high = min(known), max(known)
  slope = (known[high] - known[low]) / (high - low)
  return int(low + (budget - known[low]) / slope) if slope > 0 else MAX_BATCH
