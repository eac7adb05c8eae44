"""Writes docs/config.md, the reference of all config keys, from the table of keys.

  python -m sr_jax.experiment.reference_page > docs/config.md
"""

import dataclasses
import functools
import textwrap
from typing import Any

from sr_jax.experiment.keys import GROUPS
from sr_jax.experiment.reference import COLUMNS, Entry, attributes, entries

DEFAULTS = 'Defaults of the generators'

OPENING = '''\
<!-- Generated: python -m sr_jax.experiment.reference_page > docs/config.md -->

# Config keys

Every setting of a training is a key with a default. An experiment such as `srgan:sample` sets some
of them, and you can change each: on the command line, in a config file of your own, or in Python.
An unknown key or an invalid value is refused by name, wherever it is set. `--helpkeys` prints this
reference, or the keys that match all of several words:

```bash
sr-jax train --helpkeys
sr-jax train --helpkeys learning rate
```

**On the command line** a key is set by `--config.KEY=VALUE`. A string is written without quotes of
its own, several values are a tuple in quotes, `True` and `False` may be written as `--config.KEY`
and `--noconfig.KEY`, and `None` stands for the default of the network.

```bash
sr-jax train --config srresnet:sample --workdir runs/keys --config.steps=600 \\
    --config.optimizer.g.schedule=multistep --config.optimizer.g.boundaries='(300, 500)' \\
    --noconfig.data.augment.turn
```

**In a config file**, `get_config` starts from the defaults and returns what the experiment changes.
It may take a string of variants, as it does in [the experiments of sr_jax](../configs).
This is `mine.py`:

<!-- file: mine.py -->
```python
from ml_collections import ConfigDict

from sr_jax.experiment.base_config import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.generator.name, config.generator.blocks = 'edsr', 8
  config.data.source, config.data.valid = 'folder:photos', 'folder:scans'
  config.steps, config.batch_size = 20_000, 8
  config.optimizer.g.update(schedule='cosine', ramp=100)
  return config
```

```bash
sr-jax train --config mine.py --workdir runs/mine
```

**In Python**, `sr_jax.get_config` returns an experiment and `sr_jax.train.train` trains it
([Python](python.md)):

```python
import sr_jax

config = sr_jax.get_config('srresnet:sample')
config.steps = 600
config.optimizer.g.learning_rate = 5e-4
sr_jax.train.train(config, 'runs/from_python')
```

A run records its settings in `config.json`. `--config runs/mine/config.json` trains with these
settings in another `--workdir`.

Each key has its type and range, its default, and what happens if it is changed before a run is
resumed:

- *free*: the run is resumed with the new value. Its weights and its best checkpoint do not depend
  on it. (`steps` and `epochs` need `--resume` if a learning rate depends on the number of steps.)
- *resume*: the run would continue differently, which `--resume` has to confirm.
- *fixed*: the run cannot continue. Train in a new `--workdir`; `--config.init_from=RUN` starts from
  its weights.

HR is an image at full resolution, LR the small one, SR what the generator makes of LR. A *phase* is
the warm-up of an adversarial run, or the main phase that follows it; other runs have the main phase
alone. `phases` divides it.

## Contents'''

INTRODUCTIONS = {
    'Generator': (
        'Each network has some of these keys; those of other networks stay `None`. The end of this '
        'page has the [defaults of each network](#defaults-of-the-generators). A network of your '
        "own, `generator.name='module:name'`, has its own fields as keys ([how](extending.md))."),
    'Phases': (
        'Small crops first, or many of them, and large ones at the end: `phases.steps=(1000, 500)` '
        'with `phases.hr_patch=(64, 96)` and `phases.batch_size=(32, 16)` '
        '([progressive training](training.md#progressive-training)).'),
    'Loss': (
        "The generator's loss is the sum of all terms, each multiplied by its weight, of images in "
        '[0, 1]. A term of weight 0 is not computed. The warm-up uses the pixel term alone, with '
        'weight 1. A [term of your own](extending.md) has a name that you choose, NAME.'),
    'Optimiser and learning rate': (
        'The same keys for `optimizer.g` (the generator), `optimizer.d` (the discriminator) and '
        '`optimizer.warmup` (the generator in the warm-up, after which `optimizer.g` begins with '
        'a new state, be its name the same or another one). A key that the named optimiser does '
        'not have is refused. [How to choose](training.md#optimisers).'),
    'Data': '[Data](data.md) explains sources, pairs and splits with examples.',
    'Augmentation': (
        'Random changes of the crops: of HR and LR alike, but for `cutblur`. A pair is a '
        'probability and a strength; with probability 0 a change is off.'),
    'Degradations': (
        '`data.degrade` makes LR of HR during training ([degradations](degradations.md)). A stage '
        'has keys of its own, which stay `None` for the values of the chain.'),
    'Validation and evaluation': (
        '`data.valid` and `data.test` are scored during training, `eval.sets` by `sr-jax evaluate` '
        '([evaluation](evaluation.md)). A [metric of your own](extending.md) has a name that you '
        'choose, NAME.'),
}


def page() -> str:
  """Returns the text of docs/config.md."""
  contents = '\n'.join(f'- [{title}](#{title.lower().replace(" ", "-")})'
                       for title in (*GROUPS, DEFAULTS))
  sections = []
  for title, keys in GROUPS.items():
    sections += [f'## {title}', *filter(None, [_wrapped(INTRODUCTIONS.get(title, ''))]),
                 '\n'.join(map(_item, entries(keys)))]
  return '\n\n'.join([OPENING, contents, *sections, f'## {DEFAULTS}', _defaults_table()]) + '\n'


def _item(entry: Entry) -> str:
  key = entry.key
  kind, default, change = attributes(key, '`').rsplit('; ', 2)
  also = f' (also {", ".join(f"`{section}`" for section in entry.also)})' if entry.also else ''
  head = f'- **`{key.name}`**{also}: {kind}; {default}; *{change}*<br>'
  return '\n'.join((_wrapped(head, '  '), _wrapped(key.meaning, '  ', '  ')))


def _defaults_table() -> str:
  """Returns a table of the fields of the generators with their defaults."""
  from sr_jax import models  # imports JAX
  defaults = {name: _defaults_of(make) for name, make in models.GENERATORS.items()}
  fields = [key.name.removeprefix('generator.') for key in GROUPS['Generator'][1:]]
  rows = [['`generator.`', *(f'`{name}`' for name in defaults)], ['---'] * (len(defaults) + 1)]
  rows += [[f'`{field}`', *(_cell(fields_of, field) for fields_of in defaults.values())]
           for field in fields if any(field in fields_of for fields_of in defaults.values())]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _defaults_of(make: Any) -> dict[str, Any]:
  """Returns {field: default} of a network, a class or a `functools.partial` of one."""
  given = make.keywords if isinstance(make, functools.partial) else {}
  module = make.func if isinstance(make, functools.partial) else make
  return {field.name: field.default for field in dataclasses.fields(module)} | given


def _cell(defaults: dict[str, Any], field: str) -> str:
  return f'`{defaults[field]}`' if field in defaults else ''


def _wrapped(text: str, later: str = '', first: str = '') -> str:
  return textwrap.fill(text, COLUMNS, initial_indent=first, subsequent_indent=later,
                       break_on_hyphens=False, break_long_words=False)


if __name__ == '__main__':
  print(page(), end='')
