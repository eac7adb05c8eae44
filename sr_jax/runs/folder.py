"""Names of the files and folders of a run."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class RunFolder:
  """The folder of a run; the properties are paths in it, which need not exist.

  Attributes:
    path: the folder itself, what --workdir names.
  """

  path: pathlib.Path

  @property
  def config(self) -> pathlib.Path:
    """The configuration of the last start; a folder without it is not a run."""
    return self.path / 'config.json'

  @property
  def run_json(self) -> pathlib.Path:
    """A list with one record per start: times, versions, device, data."""
    return self.path / 'run.json'

  @property
  def damaged_run_json(self) -> pathlib.Path:
    """A run.json that could not be read."""
    return self.path / 'run.json.damaged'

  @property
  def metrics(self) -> pathlib.Path:
    """The log: one JSON object per line."""
    return self.path / 'metrics.jsonl'

  @property
  def lost_metrics(self) -> pathlib.Path:
    """The longest log of a run that was started over because it had no checkpoint."""
    return self.path / 'metrics.jsonl.lost'

  @property
  def train_log(self) -> pathlib.Path:
    """The lines that training prints, of all starts."""
    return self.path / 'train.log'

  @property
  def report(self) -> pathlib.Path:
    """The HTML report."""
    return self.path / 'report.html'

  @property
  def lock(self) -> pathlib.Path:
    """The file that a training process locks."""
    return self.path / '.lock'

  @property
  def checkpoints(self) -> pathlib.Path:
    """The checkpoints, each in a folder named by its step."""
    return self.path / 'checkpoints'

  @property
  def damaged(self) -> pathlib.Path:
    """Damaged checkpoints that were moved out of the way."""
    return self.path / 'damaged'

  @property
  def tensorboard(self) -> pathlib.Path:
    """TensorBoard event files."""
    return self.path / 'tensorboard'

  @property
  def samples(self) -> pathlib.Path:
    """Images that are written every `config.sample_every` steps."""
    return self.path / 'samples'

  @property
  def progress(self) -> pathlib.Path:
    """Images at each quarter of training."""
    return self.path / 'progress'

  @property
  def lr_images(self) -> pathlib.Path:
    """Strips of the images of `config.eval.lr_images`, one for each validation."""
    return self.path / 'lr_images'

  @property
  def eval(self) -> pathlib.Path:
    """Scores and images of sr-jax evaluate."""
    return self.path / 'eval'

  @property
  def replay(self) -> pathlib.Path:
    """Images and batches of sr-jax replay."""
    return self.path / 'replay'

  @property
  def profile(self) -> pathlib.Path:
    """What sr-jax profile measured."""
    return self.path / 'profile'
