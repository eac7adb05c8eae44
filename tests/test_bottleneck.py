"""The rules that decide what limits a step, on synthetic measurements."""

import pytest

from sr_jax.profiling.bottleneck import Setup, Spent, bottleneck, verdict

COMPUTING = Spent(step=1.0, data=0.01, dispatch=0.02, arithmetic=0.6, memory=0.3)
CPU = Setup(mode='bank', workers=2, cores=2, device_loop=False, dtype='float32',
            accelerator=False)
GPU = CPU._replace(accelerator=True, device_loop=True)


@pytest.mark.parametrize(('changed', 'kind', 'share'), [
    ({}, 'arithmetic', 0.6),
    ({'memory': 0.9}, 'memory', 0.9),
    ({'data': 0.5}, 'data', 0.5),
    ({'dispatch': 0.3}, 'dispatch', 0.3),
    ({'data': 0.4, 'dispatch': 0.3}, 'data', 0.4),  # the larger one
    ({'data': 0.3, 'dispatch': 0.4}, 'dispatch', 0.4),
    ({'data': 0.19, 'dispatch': 0.19}, 'arithmetic', 0.6),  # neither is large enough
    # Caches are faster than the memory of a CPU: the share may exceed 1.
    ({'memory': 1.4, 'arithmetic': 0.1}, 'memory', 1.4),
    # A device that neither waits nor starts operations is computing, however slowly.
    ({'memory': 0.01, 'arithmetic': 0.02}, 'arithmetic', 0.02),
])
def test_rules(changed, kind, share):
  assert bottleneck(COMPUTING._replace(**changed)) == (kind, pytest.approx(share))


def test_only_shares_matter():
  for changed in ({}, {'data': 0.5}, {'dispatch': 0.5}, {'memory': 0.9}):
    spent = COMPUTING._replace(**changed)
    scaled = Spent(*(value / 1000 for value in spent))
    assert bottleneck(scaled) == (bottleneck(spent)[0], pytest.approx(bottleneck(spent)[1]))


@pytest.mark.parametrize(('changed', 'setup', 'expected', 'excluded'), [
    ({'data': 0.5}, CPU._replace(mode='stream', workers=0), 'data.workers (now 0 on 2 cores)',
     'dtype'),
    ({'data': 0.5}, CPU._replace(mode='stream'), 'data.mode=bank or mapped', 'workers'),
    ({'data': 0.5}, CPU._replace(mode='mapped'), 'data.mode=bank', 'workers'),
    ({'dispatch': 0.5}, CPU, 'batch_size', 'device_loop'),  # loops are slow on a CPU
    ({'dispatch': 0.5}, GPU._replace(device_loop=False), 'device_loop=yes', 'log_every'),
    ({'dispatch': 0.5}, GPU, 'log_every', 'device_loop'),
    ({'memory': 0.9}, GPU, 'dtype=bfloat16', 'features'),
    ({'memory': 0.9}, CPU, 'features', 'bfloat16'),
    ({}, GPU._replace(bfloat16_gain=1.9), 'dtype=bfloat16 (matrix products are 1.9 times',
     'features'),
    ({'arithmetic': 0.1, 'memory': 0.05}, GPU._replace(dtype='bfloat16'), 'batch_size', 'bfloat16'),
    ({}, GPU._replace(dtype='bfloat16'), 'features', 'bfloat16'),
])
def test_advice_depends_on_the_setup(changed, setup, expected, excluded):
  line = verdict(COMPUTING._replace(**changed), setup)
  assert expected in line
  assert excluded not in line
  assert '\n' not in line
