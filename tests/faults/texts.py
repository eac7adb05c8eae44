"""Hostile text files: a run's config.json and run.json, command lines, metrics.jsonl, CSV."""

import functools
import json
from typing import Any

import numpy as np

from sr_jax.experiment.base_config import defaults
from tests.faults.mutation import DEEP, VALUES, as_json, changed, mutated, pick, places

WORDS = ('', ' ', '0', '1', '-1', '3', '1e9', '1e400', '-1e308', 'nan', 'inf', '-inf', 'None',
         'True', 'x', 'é\u202e', "'", '"', '\\', '(', ')', '()', '(,)', '[]', '{}', '(1,)',
         "('a',)", '(0.1, nan)', '(1e999,)', '(-1, 0.5)', '(1, 2, 3, 4)', '((1,),)', '[1, [2]]',
         '9' * 20, '9' * 5000, '0x10', '1_000', '1,2', '1.5', '2147483648', '-9223372036854775809',
         'a' * 10_000, '(' * 200, '(' * 5_000, '{"a": 1}', '../..', '\n', 'a\nb', 'linear', 'none',
         'split:valid', 'relu5_4:nan', 'relu9_9', ':', ',,', 'l1', '256x', '0x256', '99999x99999')
VARIANTS = ('', 'sample', 'sample,x2', 'x2', 'x2,x3', 'sample,sample', ',', 'é', 'x' * 1000, ':',
            '__import__', '\n', 'x2.0', 'small', '../x')


@functools.cache
def config() -> dict[str, Any]:
  """Returns the config.json of a run of a Compact of scale 2."""
  config = defaults()
  config.scale = 2
  config.generator.update({'name': 'compact', 'features': 4, 'blocks': 1})
  return json.loads(config.to_json_best_effort())


def starts() -> list[dict[str, Any]]:
  """Returns the run.json of a run that was started twice."""
  return [{'started': '2026-01-01T00:00:00+00:00', 'from_step': step, 'data_mode': 'bank',
           'data_digest': '00', 'skipped_pictures': [], 'ended': 'x', 'total': '0:01'}
          for step in (0, 20)]


def make_run(rng: np.random.Generator) -> dict[str, bytes]:
  """Makes the folder of a run."""
  value = config() | ({'imported': {'from': 'a.pth', 'names': 'basicsr'}} if rng.random() < 0.3
                      else {})
  for _ in range(int(rng.integers(0, 3))):
    below = pick(rng, ((), ('generator',), ('generator',), ('data',), ('imported',)))
    if isinstance(value, dict):
      value = changed(rng, value, below)
  record = starts()
  for _ in range(int(rng.integers(0, 2))):
    record = changed(rng, record)
  return {'config.json': as_json(rng, value), 'run.json': as_json(rng, record)}


def make_arguments(rng: np.random.Generator) -> dict[str, bytes]:
  """Makes a command line of sr_jax.main, as a JSON list."""
  keys = ['.'.join(path) for path in places(config()) if all(isinstance(key, str) for key in path)]
  variant = pick(rng, VARIANTS) if rng.random() < 0.2 else 'sample'
  arguments = [f'--config=configs/{pick(rng, ("srresnet", "srgan", "compact"))}.py:{variant}']
  for _ in range(int(rng.integers(1, 3))):
    key = pick(rng, keys)
    if rng.random() < 0.05:
      key = pick(rng, ('', 'x', 'generator', 'generator.x.y', 'seed.x', 'é', '__class__', 'a b'))
    arguments.append(f'--config.{key}' + (f'={pick(rng, WORDS)}' if rng.random() < 0.97 else ''))
  return {'arguments.json': json.dumps(arguments).encode()}


def make_config(rng: np.random.Generator) -> dict[str, bytes]:
  return make_run(rng) if rng.random() < 0.5 else make_arguments(rng)


def lines() -> list[dict[str, Any]]:
  """Returns the lines of a run's metrics.jsonl."""
  entries = [{'step': 0, 'epoch': 0.0, 'phase': 'start', 'terms/pixel/train': 0.2,
              'terms/pixel/valid': 0.3}]
  for step in range(10, 60, 10):
    entries.append({'step': step, 'epoch': step / 7, 'phase': 'pixel', 'g/pixel': 1 / step})
    entries.append({'step': step, 'epoch': step / 7, 'phase': 'pixel',
                    'valid/psnr_y': 20 + step / 9, 'valid/lpips_alex': None, 'test/psnr_y': 19.5,
                    'terms/pixel/train': 1 / step, 'terms/pixel/valid': 1.1 / step})
  return entries


def make_jsonl(rng: np.random.Generator) -> bytes:
  """Makes a metrics.jsonl."""
  encoded = [json.dumps(line).encode() for line in lines()]
  for _ in range(int(rng.integers(1, 4))):
    at, kind = int(rng.integers(len(encoded))), int(rng.integers(8))
    if kind < 4:
      value = lines()[int(rng.integers(len(lines())))]
      key = pick(rng, ('step', 'phase', 'valid/psnr_y', 'test/psnr_y', 'terms/pixel/train',
                       'terms/pixel/valid', 'terms/', 'terms/d_real/train', 'valid/', 'epoch'))
      value = value | {key: pick(rng, VALUES)} if kind < 3 else changed(rng, value)
      encoded[at] = json.dumps(value).encode()
    elif kind == 4:
      encoded[at] = as_json(rng, pick(rng, VALUES))
    elif kind == 5:
      encoded.insert(at, pick(rng, (
          b'', b'\xff\xfe\x80', b'[' * DEEP, b'{"step": 1' + b'0' * 5000 + b'}',
          b'{"step": 5, "phase": "' + b'a' * 3_000_000 + b'"}', b'null',
          b'{"step": NaN, "phase": "pixel"}', b'\0' * 1000,
          b'{"step": 10, "phase": "pixel", "valid/psnr_y": 1e999}')))
    else:
      encoded[at] = mutated(rng, encoded[at])
  data = b'\n'.join(encoded) + b'\n'
  return mutated(rng, data) if rng.random() < 0.1 else data


def make_csv(rng: np.random.Generator) -> bytes:
  """Makes a table of HR and LR files, which exist."""
  intact = b'hr,lr\n' + b''.join(b'%d.png,%d.png\n' % (index, index) for index in range(4))
  data = mutated(rng, intact) if rng.random() < 0.6 else intact
  if rng.random() < 0.6:
    return data
  extra = pick(rng, (b'', b'"', b'a' * 200_000 + b',b', b'\xff', b'\0', b'/etc/passwd,0.png',
                     b'../0.png,0.png', b'a' * 300 + b',x', b'0.png,\r1.png', b'a\0b,0.png'))
  return data + extra
