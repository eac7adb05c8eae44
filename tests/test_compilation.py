"""The memory that a compiled step needs, and what is advised if there is too little."""

import re

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from sr_jax.errors import InputError
from sr_jax.step import compilation
from sr_jax.train import out_of_memory


def test_donated_arguments_are_not_counted_twice() -> None:
  state, step = jnp.ones((256, 256)), jax.jit(lambda state: state + 1, donate_argnums=0)
  compiled = compilation.compile_step(step, state)
  assert compiled.argument_bytes == state.nbytes
  assert compiled.working_bytes < state.nbytes


def test_the_description_has_the_time_and_the_sizes() -> None:
  needs = compilation.Compiled(None, 3.5, 1.25, False, 3 << 20, 5 << 20)
  text = compilation.describe_compilation('gan', needs)
  assert re.search(r'^gan step: .*1\.2 s.* 8 MiB.*3 MiB.*5 MiB', text)


def test_too_little_memory_names_the_keys_that_need_less(
    config: ml_collections.ConfigDict, monkeypatch: pytest.MonkeyPatch) -> None:
  exhausted = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes')
  needs = compilation.Compiled(None, 1, 1, False, 3 << 20, 5 << 20)
  config.generator.name = 'rrdb'
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with (pytest.raises(InputError, match=r' 8 MiB.*batch_size.*accumulate.*remat=True.*'
                      r'bfloat16.*data\.mode=mapped'),
        out_of_memory.explain_oom(config, 'bank', needs)):
    raise exhausted
  config.generator.remat, config.dtype = True, 'bfloat16'
  with (pytest.raises(InputError, match='accumulate') as caught,
        out_of_memory.explain_oom(config, 'stream', None)):
    raise exhausted
  assert not re.search('MiB|remat|bfloat16|mode=mapped', str(caught.value))
  config.generator = {'name': 'my:Net'}  # which need not have `remat`
  with (pytest.raises(InputError, match='accumulate') as caught,
        out_of_memory.explain_oom(config, 'stream', None)):
    raise exhausted
  assert 'remat' not in str(caught.value)
  with (pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'),
        out_of_memory.explain_oom(config, 'bank', needs)):
    raise jax.errors.JaxRuntimeError('INTERNAL: no cuDNN')
