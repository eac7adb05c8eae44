"""The devices in the first line of training, and a GPU that JAX does not use."""

import pathlib
import re
import types

import jax
import pytest

from sr_jax.system import accelerator


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
  """A machine without a GPU and without a plugin for one."""
  (tmp_path / 'dev').mkdir()
  monkeypatch.setattr(accelerator, 'PLUGINS', ())
  return types.SimpleNamespace(root=tmp_path, environment={'PATH': str(tmp_path)})


def missing(machine: types.SimpleNamespace, **environment: str) -> str:
  return accelerator.missing_gpu(machine.environment | environment, machine.root)


def test_no_gpu_is_expected_where_nothing_indicates_one(machine: types.SimpleNamespace) -> None:
  for environment in ({}, {'NVIDIA_VISIBLE_DEVICES': 'void'}, {'NVIDIA_VISIBLE_DEVICES': ''}):
    assert missing(machine, **environment) == ''


@pytest.mark.parametrize('device', ['nvidia0', 'nvidia3'])
def test_a_gpu_without_a_plugin_is_reported(machine: types.SimpleNamespace, device: str) -> None:
  (machine.root / 'dev' / device).write_text('')
  assert re.search(rf'dev/{device}\).*jax\[cuda13\]', missing(machine))
  for environment in ({'JAX_PLATFORMS': 'cpu'}, {'CUDA_VISIBLE_DEVICES': ''},
                      {'CUDA_VISIBLE_DEVICES': '-1'}):  # the user wants the CPU
    assert missing(machine, **environment) == ''


def test_other_signs_of_a_gpu(machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
                              ) -> None:
  assert 'NVIDIA_VISIBLE_DEVICES=all' in missing(machine, NVIDIA_VISIBLE_DEVICES='all')
  program = machine.root / 'nvidia-smi'
  program.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H200 (UUID: x)"')
  program.chmod(0o755)
  assert 'NVIDIA H200' in missing(machine)
  program.write_text('#!/bin/sh\necho "no devices were found"; exit 6')
  assert missing(machine) == ''
  monkeypatch.setattr(accelerator, 'PLUGINS', ('json',))  # a module that is installed
  assert re.search('json is installed.* no GPU', missing(machine))
  (machine.root / 'dev' / 'nvidia0').write_text('')
  assert re.search('nvidia0.* although json is installed', missing(machine))


def test_devices_are_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
  kind = jax.devices()[0].device_kind
  monkeypatch.setattr(accelerator, 'missing_gpu', lambda environment: '')
  assert accelerator.describe_devices(8) == f'Device: 8 x {kind}, jax {jax.__version__}'
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  monkeypatch.setattr(accelerator, 'missing_gpu', lambda environment: 'a GPU is unused')
  assert accelerator.describe_devices(1).endswith('; warning: a GPU is unused')
