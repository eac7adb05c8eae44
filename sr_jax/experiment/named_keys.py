"""Keys of loss terms and metrics of the user's own, which have names that the user chooses.

'loss.extra.edges.fn' and 'loss.extra.edges.weight' are the keys of a loss term called edges. The
table has them as 'loss.extra.NAME.fn' and 'loss.extra.NAME.weight'. Every key of an entry has to be
given; by default there are no entries.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sr_jax.errors import listed
from sr_jax.experiment.key import FREE, Key

OWN_TERM = (
    Key('loss.extra.NAME.fn', str, '',
        'A loss term of your own: a function of (sr, hr), float32 JAX arrays [B, H, W, C] in '
        '[0, 1], that returns a scalar. NAME is what logs and the report call it. The warm-up '
        'does not use it.', own=True, only_own=True),
    Key('loss.extra.NAME.weight', float, 0.0, 'Weight of the term; 0 does not compute it.',
        '[0, inf)'),
)
OWN_METRIC = (
    Key('eval.extra.NAME.fn', str, '',
        'A metric of your own: a function of (sr, hr), float32 [H, W, C] in [0, 1], whole images, '
        "that returns a number. '' leaves the metric out. NAME is what tables, logs and "
        '`best_metric` call it.', choices=('',), own=True, only_own=True,
        change=FREE),
    Key('eval.extra.NAME.better', str, '', 'Whether a higher or a lower value is better.',
        choices=('higher', 'lower'), change=FREE),
)
NAMED_KEYS = {key.name: key for key in (*OWN_TERM, *OWN_METRIC)}

# The sections that contain the user's names, with the names that have another meaning in logs.
RESERVED = {
    'loss.extra': ('pixel', 'perceptual', 'total_variation', 'ms_ssim', 'colour',
                   'focal_frequency', 'adversarial', 'total', 'grad_norm', 'ema_distance',
                   'd_total', 'd_real', 'd_fake'),
    'eval.extra': ('psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr', 'lpips_alex',
                   'lpips_vgg', 'niqe', 'samples', 'lr', 'corrected')}


def named_key(name: str) -> Key | None:
  """Returns the key of a full name such as 'loss.extra.edges.fn', or None if there is none."""
  section, _, rest = name.rpartition('.')
  section, _, own = section.rpartition('.')
  key = NAMED_KEYS.get(f'{section}.NAME.{rest}')
  return key._replace(name=name) if key and not _name_fault(section, own) else None


def siblings(name: str) -> list[str]:
  """Returns the full names of the keys of the entry that contains `name`; [] outside of entries.

  Args:
    name: such as 'loss.extra.edges.wieght', which need not exist.
  """
  section, _, _ = name.rpartition('.')
  section, _, own = section.rpartition('.')
  return [f'{section}.{own}.{key.rpartition(".")[2]}' for key in NAMED_KEYS
          if key.startswith(f'{section}.NAME.')] if section in RESERVED else []


def entry_fault(name: str, value: Any) -> str | None:
  """Returns what is wrong with an entry of a section, apart from its values, or None.

  Args:
    name: full name of the entry, such as 'loss.extra.edges'.
    value: what the config has there.
  """
  section, _, own = name.rpartition('.')
  if fault := _name_fault(section, own):
    return f'config.{name}: {fault}'
  if not isinstance(value, Mapping):
    keys = ' and '.join(f'config.{key}' for key in siblings(f'{name}.'))
    return f'config.{name}: is a section of keys; set {keys}'
  return None


def incomplete(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields (name, message) of the keys that are missing in entries that have another key.

  Args:
    values: {full name: value}.
  """
  entries = dict.fromkeys(name.rpartition('.')[0] for name in values if named_key(name))
  for entry in entries:
    missing = [name for name in siblings(f'{entry}.') if name not in values]
    if missing:
      yield missing[0], (f'config.{listed(missing)}: missing; an entry of config.'
                         f'{entry.rpartition(".")[0]} has '
                         + ' and '.join(name.rpartition('.')[2] for name in siblings(f'{entry}.')))


def _name_fault(section: str, own: str) -> str:
  """Returns why an entry of a section cannot have a name, or ''."""
  if not own.isidentifier() or not own.isascii():
    return f'the name {own!r} must consist of letters, digits and _, and not begin with a digit'
  if own in RESERVED.get(section, ()):
    return f'the name {own!r} has another meaning in the logs; choose another one'
  return ''
