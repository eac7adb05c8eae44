"""Seeded mutations of bytes and JSON values: cuts, bit flips, extreme numbers."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

NUMBERS = (0, 1, 2, 7, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFFF, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
DEEP = 100_000  # nesting of brackets
VALUES = (None, True, False, 0, 1, -1, 3, 10**9, 2**31, 2**63, -(2**64), 10**30, 10**400, 0.5, -0.0,
          1e-320, 1e308, float('nan'), float('inf'), -float('inf'), '', ' ', 'x', '0', 'nan', '-1',
          '\ud800', '\0', 'é\u202e中', 'two\nlines', '\x1b[31m', 'a' * 100_000, '../../etc/passwd',
          [], [[]], [0], [None], ['x'], [-1, 0.5], [10**9] * 3, [float('nan')] * 3, {}, {'x': 1},
          {'': None}, {'name': 'x'}, [[[[[[[[1]]]]]]]], {'a': {'b': {'c': {'d': {}}}}})


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
  return choices[int(rng.integers(len(choices)))]


def number(rng: np.random.Generator, size: int, order: str) -> bytes:
  """Returns one of NUMBERS, or a random number, as an integer of `size` bytes."""
  value = pick(rng, NUMBERS) if rng.random() < 0.8 else int(rng.integers(0, 2**62))
  return (value % 256**size).to_bytes(size, order)


def mutated(rng: np.random.Generator, data: bytes, other: bytes = b'',
            front: float = 1.0) -> bytes:
  """Returns the data after one to three changes.

  Args:
    other: data whose end may replace the end of `data`.
    front: a value above 1 moves the changes towards the beginning, where headers are.
  """
  data = bytearray(data)

  def place() -> int:
    return int(len(data) * rng.random() ** front)

  for _ in range(int(rng.integers(1, 4))):
    kind = int(rng.integers(8))
    if not data or kind == 0:  # overwrites what may be a field with a number
      size = pick(rng, (1, 2, 4, 8))
      at = place()
      data[at:at + size] = number(rng, size, pick(rng, ('little', 'big')))
    elif kind == 1:
      data[place()] ^= 1 << int(rng.integers(8))
    elif kind == 2:
      data[place()] = int(rng.integers(256))
    elif kind == 3 and rng.random() < 0.5:
      del data[place():]
    elif kind == 4:
      at, size = place(), int(rng.integers(1, 64))
      data[at:at] = data[at:at + size] * pick(rng, (1, 2, 100))
    elif kind == 5:
      at = place()
      del data[at:at + int(rng.integers(1, 32))]
    elif kind == 6 and other:
      data = data[:place()] + other[int(len(other) * rng.random()):]
    else:
      for _ in range(8):
        data[place()] ^= 1 << int(rng.integers(8))
      data = data or bytearray(b'\0')
  return bytes(data)


def places(value: Any, path: tuple = ()) -> list[tuple]:
  """Returns the paths (tuples of keys) of all values in nested dicts and lists."""
  items = (value.items() if isinstance(value, dict) else
           enumerate(value) if isinstance(value, list) else ())
  paths = []
  for key, inner in items:
    paths += [(*path, key), *places(inner, (*path, key))]
  return paths


def changed(rng: np.random.Generator, value: Any, below: tuple = ()) -> Any:
  """Returns a JSON value in which one part is replaced, removed, renamed or inserted.

  Args:
    below: the path under which the part has to be.
  """
  value = json.loads(json.dumps(value))
  paths = [path for path in places(value) if path[:len(below)] == below and len(path) > len(below)]
  if not paths or rng.random() < 0.03:
    return pick(rng, VALUES)
  *front, key = pick(rng, paths)
  parent = value
  for step in front:
    parent = parent[step]
  kind = rng.random()
  if kind < 0.7:
    parent[key] = pick(rng, VALUES)
  elif kind < 0.8:
    del parent[key]
  elif isinstance(parent, dict):
    parent[pick(rng, ('', 'x', 'name', 'a.b', '__class__', 'step', 'é'))] = parent.pop(key)
  else:
    parent.insert(key, pick(rng, VALUES))
  return value


def as_json(rng: np.random.Generator, value: Any) -> bytes:
  """Returns the JSON text of a value, sometimes with a syntax error."""
  text = json.dumps(value).encode('utf-8', 'surrogatepass')
  kind = rng.random()
  if kind < 0.03:
    return pick(rng, (b'[', b'{"a":')) * DEEP
  if kind < 0.06:
    return text[:-1] + b', "x": ' + b'[' * DEEP + b']' * DEEP + text[-1:]
  if kind < 0.09 and text[:1] == b'{':  # duplicate keys
    return b'{"scale": 3, "name": 1, "step": "x", ' + text[1:-1] + b', ' + text[1:]
  if kind < 0.11:
    return b'\xff\xfe' + text
  if kind < 0.13:
    return text.replace(b'1', b'1' * 5000, 1)  # more digits than Python converts
  return mutated(rng, text) if kind < 0.2 else text


def rng_of(seed: int, kind: str, index: int) -> np.random.Generator:
  return np.random.default_rng((seed, *kind.encode(), index))
