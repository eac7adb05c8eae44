"""Reads the files of GPUs in profiling/targets: figures of data sheets, and constants.

A file has lines `key = value  # source`, with each key of `Target` once. Figures are those of the
card as it is sold: peak rates without sparsity, at the boost clock.
"""

import pathlib
from typing import NamedTuple

from sr_jax.errors import InputError

FOLDER = pathlib.Path(__file__).parent / 'targets'
ALL = 'all'
# In the order in which 'all' reports them; a file of each is in FOLDER.
TARGETS = ('h200', 'h100', 'a100', 'l40s', 'l4', 'rtx4090', 't4')


class Target(NamedTuple):
  """A GPU, and the constants with which times on it are estimated.

  Attributes:
    name: as NVIDIA calls it.
    capability: CUDA compute capability, such as '8.9'. GPUs of one capability run one program.
    memory: bytes of its memory.
    bandwidth: bytes/s of its memory.
    float32: FLOP/s without tensor cores.
    tf32, bfloat16: FLOP/s of tensor cores that add up in float32; 0 where it has none.
    cores: number of streaming multiprocessors.
    clock_ghz: boost clock.
    l2_bytes: size of the L2 cache.
    fpus_per_core: float32 units of a multiprocessor.
    threads_per_core: most threads of a multiprocessor.
    shared_per_core, shared_per_block: bytes of shared memory.
    arithmetic_share, bandwidth_share: which parts of the peaks an estimate assumes.
    kernel_seconds: time that an estimate assumes for starting a kernel.
    memory_share: the part of the memory that JAX uses.
  """

  name: str
  capability: str
  memory: int
  bandwidth: float
  float32: float
  tf32: float
  bfloat16: float
  cores: int
  clock_ghz: float
  l2_bytes: int
  fpus_per_core: int
  threads_per_core: int
  shared_per_core: int
  shared_per_block: int
  arithmetic_share: float
  bandwidth_share: float
  kernel_seconds: float
  memory_share: float

  @property
  def budget(self) -> int:
    """The bytes that JAX may use."""
    return int(self.memory * self.memory_share)

  def peak(self, dtype: str) -> float:
    """Returns the FLOP/s of convolutions whose operands have a dtype.

    JAX computes those of float32 operands in TF32 where there are tensor cores for it.
    """
    if dtype == 'bfloat16' and self.bfloat16:
      return self.bfloat16
    return self.tf32 or self.float32


def parse_targets(text: str) -> tuple[str, ...]:
  """Returns the targets that the value of --target stands for.

  Raises:
    InputError: there is no such target; the message lists those that there are.
  """
  if text == ALL:
    return TARGETS
  if text not in TARGETS:
    raise InputError(f'--target {text!r}: expected one of {", ".join((*TARGETS, ALL))}')
  return (text,)


def read(name: str) -> Target:
  """Reads the file of a target.

  Raises:
    InputError: a line cannot be read, or a key is unknown, missing or given twice.
  """
  path = FOLDER / f'{name}.txt'
  values = {}
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    content = line.partition('#')[0].strip()
    if not content:
      continue
    key, equals, value = (part.strip() for part in content.partition('='))
    kind = Target.__annotations__.get(key)
    if not equals or kind is None or key in values:
      raise InputError(f'{path}:{number}: expected each key of {", ".join(Target._fields)} once, '
                       f'as KEY = VALUE, found {content!r}')
    try:
      values[key] = kind(value)
    except ValueError:
      raise InputError(f'{path}:{number}: {key}: {value!r} is not a number') from None
  missing = [key for key in Target._fields if key not in values]
  if missing:
    raise InputError(f'{path}: {", ".join(missing)}: missing')
  return Target(**values)


def compiled_as(target: Target) -> Target:
  """Returns the GPU that programs for a target are compiled for: the largest of its capability.

  GPUs of one compute capability share a program, so that several targets need one compilation.
  """
  same = [other for other in map(read, TARGETS) if other.capability == target.capability]
  return max(same, key=lambda other: other.memory)


def compiler_config(target: Target) -> str:
  """Returns the text of XLA's GpuTargetConfigProto, which describes a GPU to the compiler."""
  major, minor = target.capability.split('.')
  return f'''
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {target.shared_per_core}
  shared_memory_per_block_optin: {target.shared_per_block}
  threads_per_core_limit: {target.threads_per_core} core_count: {target.cores}
  fpus_per_core: {target.fpus_per_core}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {int(target.bandwidth)} l2_cache_size: {target.l2_bytes}
  clock_rate_ghz: {target.clock_ghz} device_memory_size: {target.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }} runtime_version {{ major: 13 }}
device_description_str: "{target.name}"
'''
