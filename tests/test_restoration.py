"""Scale 1: everything that a run does when LR has the size of HR."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from ml_collections import ConfigDict

from sr_jax import evaluate, images, restore, score, train, upscale, weights
from sr_jax.errors import InputError
from sr_jax.experiment import base_config, phases
from sr_jax.metrics import tables
from sr_jax.models import GENERATORS
from sr_jax.report import gallery, page
from sr_jax.report.history import read
from tests import smallest


def blurred(image: np.ndarray) -> np.ndarray:
  """Blurs a few pixels, so that there is something to restore."""
  x = np.pad(np.float64(image), ((1, 1), (1, 1), (0, 0)), 'edge')
  x = (x[:-2] + 2 * x[1:-1] + x[2:]) / 4
  return np.uint8((x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4 + 0.5)


@pytest.fixture
def config(tmp_path: pathlib.Path, picture: Callable) -> ConfigDict:
  """A config of scale 1 on pairs of blurred and sharp images of one size."""
  for index in range(3):
    hr = picture(40, 52, index)
    images.write_image(tmp_path / 'hr' / f'{index}.png', hr)
    images.write_image(tmp_path / 'lr' / f'{index}.png', blurred(hr))
  config = smallest.get_config()
  config.scale, config.warmup_steps, config.steps = 1, 0, 20
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.generator = base_config.defaults().generator
  config.generator.update(name='compact', features=4, blocks=1, unshuffle=2)
  pairs = f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}'
  config.data.source = config.data.valid = config.eval.sets = pairs
  config.eval.every = config.sample_every = config.checkpoint_every = 10
  return config


def test_a_run_of_scale_1_from_training_to_its_report(
    config: ConfigDict, tmp_path: pathlib.Path, call: Callable, capsys: pytest.CaptureFixture
    ) -> None:
  run = tmp_path / 'run'
  train.train(config, run)
  printed = capsys.readouterr().out
  assert '(input ' in printed  # the baseline of the metrics, in lines and in the table
  assert '       0  input ' in printed
  assert 'bicubic' not in printed
  results = evaluate.evaluate(run, config.eval.sets, lpips='none')
  scores = next(iter(results.values()))
  assert scores['bicubic']['mean'] == scores['bilinear']['mean']  # the files keep their keys
  printed = capsys.readouterr().out
  assert '  input ' in printed
  assert 'bilinear' not in printed
  page.write([run])
  text = (run / 'report.html').read_text()
  assert 'the difference to input' in text
  assert 'difference to bicubic' not in text
  image = next(iter(gallery.progress([read(run)])))
  assert next(iter(image.layers)) == 'input'
  assert not {'low', 'bicubic'} & image.layers.keys()
  model = restore.load(run)
  sr = model.upscaler()(images.read_image(tmp_path / 'lr' / '0.png'))
  assert sr.shape == (40, 52, 3)
  status, out, _ = call(upscale.main, str(tmp_path / 'lr'), '--output', str(tmp_path / 'sr'),
                        '--workdir', str(run))
  assert status == 0
  status, out, _ = call(score.main, '--sr', str(tmp_path / 'sr'), '--hr', str(tmp_path / 'hr'),
                        '--scale', '1', '--lpips', 'none')
  assert status == 0
  assert 'psnr_y' in out
  file = tmp_path / 'net.safetensors'
  status, out, err = call(weights.main, 'export', '--workdir', str(run), '--output', str(file))
  assert status == 0, err
  assert restore.load(file).scale == 1
  np.testing.assert_array_equal(restore.load(file).upscaler()(
      images.read_image(tmp_path / 'lr' / '0.png')), sr)
  assert json.loads((run / 'config.json').read_text())['scale'] == 1


def test_tables_have_one_row_for_the_input() -> None:
  scores = {'a': {'psnr_y': 30.0}}
  methods = {'bilinear': scores, 'bicubic': scores, 'model': scores}
  assert list(tables.shown(methods, 1)) == ['input', 'model']
  assert list(tables.shown(methods, 2)) == list(methods)


@pytest.mark.parametrize('name', GENERATORS)
def test_every_generator_restores(name: str) -> None:
  config = smallest.get_config()
  config.generator = base_config.defaults().generator
  config.generator.name, config.scale = name, 1
  if name != 'srcnn':
    config.generator.update(features=36 if name == 'dat' else 4, blocks=1)
  assert phases.build(config).generator.scale == 1


def test_a_scale_that_a_network_lacks_is_named() -> None:
  config = smallest.get_config()
  config.scale, config.hr_patch = 5, 20
  with pytest.raises(InputError, match=r'^config\.generator: .*scale=5: expected 1, 2, 3, 4 or 8'):
    phases.build(config).new_state()
  assert base_config.defaults().scale == 4
  base_config.use_scale(config, 'x1,sample')
  assert config.scale == 1
