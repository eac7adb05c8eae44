"""The feed of a run whose phases have crops of different sizes: one is open at a time."""

import hashlib
from collections.abc import Callable, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from sr_jax.data.feed import Feed, open_feed
from sr_jax.data.feed_mode import FeedSpec
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.experiment import crops, inputs
from sr_jax.experiment.phases import Experiment, Phase


class PhaseFeed:
  """Makes the batches of each phase.

  Attributes:
    current: the feed of the phase that was entered last; batches come from it.
    mode, skipped, notes: of all feeds, see `Feed`.
    digest: hash of everything that the batches of all phases depend on except seed and step.
  """

  def __init__(self, found: Sequence[Picture], specs: Sequence[tuple[Phase, FeedSpec]], step: int,
               log: Callable[[str], None], mesh: Mesh | None) -> None:
    """Opens the images and checks that they can give the crops of every phase.

    Args:
      found, log, mesh: of `open_feed`.
      specs: the phases and their feeds.
      step: the first step that will be asked for.

    Raises:
      InputError: as `open_feed`; the message names the phase.
    """
    self._specs = {phase.name: spec for phase, spec in specs}
    phase = next((phase for phase, _ in specs if step < phase.stop), specs[-1][0])
    self._size = phase.crops.size
    with crops.named(phase.crops):
      self.current = open_feed(found, self._specs[phase.name], step, log, mesh)
    self.mode, self.skipped, self.notes = (
        self.current.mode, self.current.skipped, self.current.notes)
    try:
      self.digest = self._digest(specs)
    except InputError:
      self.close()
      raise

  def _digest(self, specs: Sequence[tuple[Phase, FeedSpec]]) -> str:
    digests = []
    for phase, spec in specs:
      with crops.named(phase.crops):
        digests.append(self.current.digest_of(spec))
    if len(set(digests)) == 1:  # as without `config.phases`
      return digests[0]
    starts = [phase.start for phase, _ in specs]
    text = repr(list(zip(digests, starts, strict=True)))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

  def enter(self, phase: Phase, step: int) -> Feed:
    """Returns the feed of a phase, whose first step will be `step`."""
    if phase.crops.size != self._size:
      self.current.close()
      self.current = self.current.reopen(self._specs[phase.name], step)
      self._size = phase.crops.size
    return self.current

  def close(self) -> None:
    """Stops background work."""
    self.current.close()


def open_phases(config: ConfigDict, experiment: Experiment, found: Sequence[Picture], step: int,
                previous_mode: str = '', log: Callable[[str], None] = print,
                mesh: Mesh | None = None) -> PhaseFeed:
  """Opens the feed of a run.

  Args:
    config: the experiment that `experiment` was built from.
    found: the training images.
    step: the first step that will be asked for.
    previous_mode: of `inputs.build_feed_spec`.
    log, mesh: of `open_feed`.

  Raises:
    InputError: as `open_feed`.
  """
  specs = [(phase, inputs.build_feed_spec(crops.with_crops(config, phase.crops),
                                          experiment.device_loop, previous_mode))
           for phase in experiment.phases]
  return PhaseFeed(found, specs, step, log, mesh)
