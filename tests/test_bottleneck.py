"""The rule that says what a step waits for, on made-up figures."""

import pytest

from sr_jax.profiling.bottleneck import Spent, bottleneck, verdict

AT_WORK = Spent(step=1.0, data=0.01, dispatch=0.02, arithmetic=0.6, memory=0.3)
CPU = {'mode': 'bank', 'workers': 2, 'cores': 2, 'loops': False, 'dtype': 'float32',
       'accelerator': False}
GPU = CPU | {'accelerator': True, 'loops': True}


@pytest.mark.parametrize(('changed', 'kind', 'share'), [
    ({}, 'arithmetic', 0.6),
    ({'memory': 0.9}, 'memory', 0.9),
    ({'data': 0.5}, 'data', 0.5),
    ({'dispatch': 0.3}, 'dispatch', 0.3),
    ({'data': 0.4, 'dispatch': 0.3}, 'data', 0.4),  # the larger waste
    ({'data': 0.3, 'dispatch': 0.4}, 'dispatch', 0.4),
    ({'data': 0.19, 'dispatch': 0.19}, 'arithmetic', 0.6),  # neither is worth a word
    # Caches feed a CPU faster than its memory would: more than the whole, but no waste.
    ({'memory': 1.4, 'arithmetic': 0.1}, 'memory', 1.4),
    # However slow the operations are, a device that neither waits nor starts any is at work.
    ({'memory': 0.01, 'arithmetic': 0.02}, 'arithmetic', 0.02),
])
def test_what_decides(changed, kind, share):
  assert bottleneck(AT_WORK._replace(**changed)) == (kind, pytest.approx(share))


def test_seconds_are_of_no_matter_but_shares():
  for changed in ({}, {'data': 0.5}, {'dispatch': 0.5}, {'memory': 0.9}):
    spent = AT_WORK._replace(**changed)
    scaled = Spent(*(value / 1000 for value in spent))
    assert bottleneck(scaled) == (bottleneck(spent)[0], pytest.approx(bottleneck(spent)[1]))


@pytest.mark.parametrize(('changed', 'settings', 'said', 'unsaid'), [
    ({'data': 0.5}, CPU | {'mode': 'stream', 'workers': 0}, 'data.workers (0 on 2 cores)', 'dtype'),
    ({'data': 0.5}, CPU | {'mode': 'stream'}, 'data.mode=bank or mapped', 'workers'),
    ({'data': 0.5}, CPU | {'mode': 'mapped'}, 'data.mode=bank', 'workers'),
    ({'dispatch': 0.5}, CPU, 'batch_size', 'device_loop'),  # loops are slow on a CPU
    ({'dispatch': 0.5}, GPU | {'loops': False}, 'device_loop=yes', 'log_every'),
    ({'dispatch': 0.5}, GPU, 'log_every', 'device_loop'),
    ({'memory': 0.9}, GPU, 'dtype=bfloat16', 'features'),
    ({'memory': 0.9}, CPU, 'features', 'bfloat16'),
    ({}, GPU | {'bfloat16_gain': 1.9}, 'dtype=bfloat16 (products are 1.9 times', 'features'),
    ({'arithmetic': 0.1, 'memory': 0.05}, GPU | {'dtype': 'bfloat16'}, 'batch_size', 'bfloat16'),
    ({}, GPU | {'dtype': 'bfloat16'}, 'features', 'bfloat16'),
])
def test_what_to_try_is_what_can_be_tried(changed, settings, said, unsaid):
  line = verdict(AT_WORK._replace(**changed), **settings)
  assert said in line
  assert unsaid not in line
  assert '\n' not in line
