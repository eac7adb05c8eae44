"""Tests of sr_jax as a package: what `import sr_jax` gives, configs, evaluate and score by call."""

import ast
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sr_jax
from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.train import Stopped
from tests.conftest import same_bits

ROOT = pathlib.Path(sr_jax.__file__).parent


def test_importing_the_package_imports_no_framework():
  code = ('import sys, sr_jax; sr_jax.load; sr_jax.get_config; dir(sr_jax)'
          '; assert not {"jax", "flax", "numpy", "ml_collections"} & {*sys.modules}'
          '; assert callable(sr_jax.losses.l1)'
          '; assert [*map(callable, (sr_jax.train.train, sr_jax.evaluate.evaluate, '
          'sr_jax.score.score, sr_jax.upscale.upscale, sr_jax.restore.load))]')
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT.parent, capture_output=True,
                        text=True)
  assert (done.returncode, done.stderr) == (0, '')


def test_public_modules_exist_and_no_function_has_the_name_of_one():
  entries = {path.stem for path in ROOT.iterdir()} - {'__init__'}
  assert entries > set(sr_jax.MODULES)
  functions = {node.name for node in ast.parse((ROOT / '__init__.py').read_text()).body
               if isinstance(node, ast.FunctionDef)}
  assert not functions & entries
  assert {*sr_jax.__all__, *sr_jax.MODULES} <= {*dir(sr_jax)}
  for name in sr_jax.MODULES:
    assert getattr(sr_jax, name).__doc__, name
  with pytest.raises(AttributeError, match='losess'):
    _ = sr_jax.losess


def test_type_checkers_know_the_same_modules():
  imports = [node for node in ast.walk(ast.parse((ROOT / '__init__.py').read_text()))
             if isinstance(node, ast.ImportFrom) and node.module == 'sr_jax']
  assert [alias.name for alias in imports[0].names] == list(sr_jax.MODULES)


# Configs -----------------------------------------------------------------------------------


def test_a_config_is_complete_and_typed():
  config = sr_jax.get_config('srresnet:sample,x2')
  assert config.scale == 2
  assert type(config.optimizer.g.learning_rate) is float
  assert isinstance(config.eval.sets, str)
  assert set(sr_jax.get_config('edsr').keys()) == set(config.keys())


def test_a_config_of_a_file_and_of_a_run(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('from sr_jax.experiment.base_config import defaults\n'
                  'def get_config(variant=""):\n'
                  '  config = defaults()\n'
                  '  config.steps, config.optimizer.g.learning_rate = 20, 1\n'
                  '  config.batch_size = 8 if variant else 4\n'
                  '  return config\n')
  config = sr_jax.get_config(path)
  assert (config.steps, config.batch_size) == (20, 4)
  assert type(config.optimizer.g.learning_rate) is float
  assert sr_jax.get_config(f'{path}:small').batch_size == 8
  (tmp_path / 'config.json').write_text(config.to_json())
  assert sr_jax.get_config(tmp_path / 'config.json') == config


@pytest.mark.parametrize(('name', 'message'), [
    ('srgann', r'srgann: .*srgan\?'), ('srgan:sampel', r'srgan:sampel: .*sampel.*sample'),
    ('none.py', r'none\.py: '), ('', 'experiment'), ('srgan.json', r'srgan\.json: ')])
def test_a_config_that_does_not_exist(name, message):
  with pytest.raises(InputError, match=message):
    sr_jax.get_config(name)


def test_all_wrong_keys_of_a_changed_config_are_named(tmp_path):
  config = sr_jax.get_config('srresnet:sample')
  config.step, config.batch_size, config.optimizer.g.learning_rte = 20, 'many', 1e-3
  with pytest.raises(InputError) as error:
    sr_jax.train.train(config, tmp_path / 'run')
  for part in ('config.step:', 'config.batch_size=', 'config.optimizer.g.learning_rte'):
    assert part in str(error.value)
  with pytest.raises(InputError, match=r"'srgan:sample': expected a ConfigDict"):
    sr_jax.train.train('srgan:sample', tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


# Score -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pair(picture: Callable) -> tuple[np.ndarray, np.ndarray]:
  """SR and HR, uint8."""
  hr = picture(40, 36)
  return np.uint8(np.clip(hr + np.random.default_rng(0).normal(0, 6, hr.shape), 0, 255)), hr


def score(sr, hr, scale=2, **options):
  return sr_jax.score.score(sr, hr, scale, **{'lpips': 'none'} | options)


def test_arrays_are_scored_as_their_files_are(pair, tmp_path):
  result = score(*pair)
  for name, image in zip(('sr', 'hr'), pair, strict=True):
    images.write_image(tmp_path / f'{name}.png', image)
  of_files = score(tmp_path / 'sr.png', str(tmp_path / 'hr.png'))
  assert result['images'] == {'0': of_files['images']['hr']}
  assert result['mean'] == of_files['mean']
  assert {*result} == {'images', 'mean', 'excluded', 'protocol', 'notes'}
  assert [*result['mean']] == ['psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr']
  wide = sr_jax.score.score(*pair, 2, border=8)
  assert 'border 8' in wide['protocol']['psnr_y']
  assert wide['mean']['lpips_alex'] > 0


@pytest.mark.parametrize('convert', [
    lambda x: x, jnp.asarray, lambda x: x[None], lambda x: [x],
    lambda x: np.float32(x) / 255, lambda x: np.float64(x) / 255, lambda x: jnp.float32(x) / 255,
    lambda x: np.uint16(x) * 257, lambda x: (np.uint16(x) * 257).astype('>u2')])
def test_arrays_of_any_kind(pair, convert):
  result, expected = score(*map(convert, pair)), score(*pair)['mean']
  assert result['mean'] == pytest.approx(expected, abs=0.3)  # LR is rounded to 8 or 16 bits
  assert result['mean']['psnr_y'] == pytest.approx(expected['psnr_y'], abs=1e-4)
  assert result['mean']['ssim_rgb'] == pytest.approx(expected['ssim_rgb'], abs=1e-5)
  assert result['notes'] == []


def test_grey_arrays_batches_and_lists(pair):
  sr, hr = pair
  grey = score(sr[..., 0], hr[..., 0])['images']['0']
  assert grey == score(sr[..., :1], hr[..., :1])['images']['0']
  batch = score(np.stack([sr, hr]), jnp.stack([hr, hr]))
  assert batch['images']['1']['psnr_y'] == batch['mean']['ssim_y'] * np.inf
  assert batch['images']['0'] == score(sr, hr)['images']['0']
  assert '1 infinite' in batch['excluded'][0]
  several = score([sr, sr[:20]], [hr, hr[:20]])
  assert several['images']['1'] == score(sr[:20], hr[:20])['images']['0']
  lr = 255 - images.imresize(hr, 1 / 2)
  assert score(sr, hr, lr=lr)['mean']['psnr_lr'] < 15
  assert score(sr, hr, lr=lr)['protocol']['lr'] != score(sr, hr)['protocol']['lr']


def test_what_a_network_returns_beyond_the_range_is_clipped_and_noted(pair):
  sr, hr = (np.float32(x) / 255 for x in pair)
  beyond = np.where(sr > sr.max() - 0.01, 1.1, sr)
  result = score(beyond, hr)
  assert result['mean'] == score(np.minimum(beyond, 1), hr)['mean']
  assert re.search('clipped: 1 of 2 .*sr', result['notes'][0])


@pytest.mark.parametrize(('change', 'options', 'message'), [
    (lambda x: np.float32(x), {}, r'sr has .* to 241.*\[0, 1\]'),
    (lambda x: x / 127.5 - 1, {}, r'sr has .*-0\.\d+.*\[0, 1\]'),
    (lambda x: np.where(x > 200, np.nan, x / 255), {}, 'sr has .*finite'),
    (lambda x: np.int64(x), {}, 'sr is int64.*uint8'), (lambda x: x > 9, {}, 'sr is bool'),
    (lambda x: x.tolist(), {}, 'sr 0: .*list'), (lambda x: x[0, 0], {}, r'sr is uint8 \[3\]'),
    (lambda x: x.transpose(2, 0, 1), {}, r'sr is uint8 \[3, 40, 36\]'),
    (lambda x: np.dstack([x, x[..., 0]]), {}, r'\[40, 36, 4\].*alpha'),
    (lambda x: x[:0], {}, r'\[0, 36, 3\]'), (lambda x: x[:30], {}, 'sr is 30x36.*hr is 40x36'),
    (lambda x: np.stack([x, x]), {}, 'hr: 1 images, sr: 2'),
    (lambda x: [x[None], x], {}, 'hr: 1 images, sr: 2'),
    (lambda x: [np.stack([x, x])], {}, r'sr 0 is uint8 \[2, '),
    (lambda x: None, {}, 'sr: .*NoneType'), (lambda x: 'a.png', {}, r'sr=a\.png: .*path'),
    (lambda x: x, {'scale': 0}, 'scale=0'), (lambda x: x, {'scale': 2.5}, r'scale=2\.5'),
    (lambda x: x, {'border': -1}, 'border=-1'), (lambda x: x, {'border': 18}, '18 leaves'),
    (lambda x: x, {'lpips': 'vgg19'}, "lpips='vgg19'.*alex"),
    (lambda x: x, {'lr': np.zeros((5, 5, 3), np.uint8)}, 'lr .*5x5.*20x18')])
def test_wrong_arrays_are_refused(pair, change, options, message):
  with pytest.raises(InputError, match=message):
    score(change(pair[0]), pair[1], **options)


def test_no_arrays_are_refused():
  with pytest.raises(InputError, match='no image'):
    score([], [])


# Evaluate ----------------------------------------------------------------------------------


# Upscale -----------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: pathlib.Path, picture: Callable, monkeypatch) -> pathlib.Path:
  """The current folder, with photos/a.png, b.png and what is no image."""
  monkeypatch.chdir(tmp_path)
  for seed, name in enumerate('ab'):
    images.write_image(tmp_path / 'photos' / f'{name}.png', picture(9, 12, seed))
  (tmp_path / 'photos' / 'c.png').write_bytes(b'nothing')
  return tmp_path


def test_files_are_upscaled_as_arrays_are(photos, weights, picture, capsys):
  upscale, model = sr_jax.upscale.upscale, sr_jax.load(weights)
  result = upscale('photos', 'out', model, format='BMP')
  names = [pathlib.Path('out', f'{name}.bmp') for name in 'ab']
  assert (result.written, result.existed) == (names, [])
  assert [error.partition(':')[0] for error in result.errors] == ['photos/c.png']
  np.testing.assert_array_equal(images.read_image('out/a.bmp'), model(picture(9, 12)))
  again = upscale(['photos/a.png', photos / 'photos' / 'b.png'], photos / 'out', weights,
                  format='bmp')
  assert (again.written, len(again.existed), again.errors) == ([], 2, [])
  assert len(upscale('photos/*.png', 'out', weights, format='bmp', overwrite=True).written) == 2
  assert 'photos/c.png: ' in capsys.readouterr().out
  silent = upscale('photos/a.png', 'a.jpg', model, quality=9, outscale=3, show_progress=False)
  assert silent.written == [pathlib.Path('a.jpg')]
  assert images.image_size('a.jpg') == (27, 36)
  assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize(('inputs', 'options', 'message'), [
    ('photos', {'qualty': 9}, 'qualty: .*quality'), ('photos', {'hurry': 1}, 'hurry: .*tile'),
    ('photos', {'quality': 0}, 'quality=0: .*1 to 100'), ('photos', {'tile': True}, 'tile=True'),
    ('photos', {'ensemble': 1}, 'ensemble=1'), ('photos', {'format': 'gif'}, "format='gif'.*png"),
    ('photos', {'format': 'mkv'}, "format='mkv'.*videos"), ('photos', {'correct': 2}, 'correct=2'),
    ('photos', {'correct': 'x'}, "correct='x'"), ('photos', {'memory': 'all'}, "memory='all'"),
    ('photos', {'backproject': None}, 'backproject=None'), ('photos', {'crf': 2.5}, r'crf=2\.5'),
    ('photos/a.png', {'quality': 50}, 'quality 50: .*format'),
    ('photos/c.png', {}, r'photos/c\.png: '), ('none.png', {}, r'1 .*: none\.png: '),
    ([], {}, r'inputs=\[\]'), ('', {}, "inputs=''")])
def test_wrong_options_are_refused_before_anything_is_written(photos, weights, inputs, options,
                                                              message):
  with pytest.raises(InputError, match=message):
    sr_jax.upscale.upscale(inputs, 'out', weights, **options)
  assert not (photos / 'out').exists()


def test_a_model_that_does_not_exist_is_named(photos):
  with pytest.raises(InputError, match=r'no-such-model: .*realesrgan-x4plus'):
    sr_jax.upscale.upscale('photos', 'out', 'no-such-model')


# Losses, metrics and networks --------------------------------------------------------------


def test_losses_and_metrics_refuse_what_would_be_silently_wrong():
  """Integers wrap around, two shapes broadcast, and float has no largest level."""
  hr = np.random.default_rng(0).uniform(0, 1, (2, 12, 12, 3))
  levels, grey = np.uint8(255 * hr), hr[..., :1]
  for function in (*sr_jax.losses.PIXEL.values(), sr_jax.metrics.psnr, sr_jax.metrics.ssim,
                   sr_jax.metrics.ssim_map):
    for pair in ((levels, levels), (hr, grey), (levels, hr)):
      with pytest.raises(InputError, match=r'float.*of one shape'):
        function(*pair)
    assert jnp.isfinite(jnp.mean(function(hr, jnp.bfloat16(0.9 * hr))))
  with pytest.raises(InputError, match='uint8'):
    sr_jax.losses.total_variation(levels)
  for function in (sr_jax.metrics.image_psnr, lambda a, b: sr_jax.metrics.image_scores(a, b, 0)):
    with pytest.raises(InputError, match=r'float64 \[12, 12, 3\].*uint16'):
      function(hr[0], levels[0])


def test_networks_refuse_integers(weights):
  model = sr_jax.load(weights)
  with pytest.raises(ValueError, match=r'uint8.*to_float'):
    model.generator.apply(model.variables, np.zeros((1, 8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match=r'uint8.*to_float'):
    sr_jax.models.VGGS['vgg16'](['relu1_1']).init(jax.random.key(0), np.zeros((1, 8, 8, 3),
                                                                              np.uint8))


# Train and evaluate ------------------------------------------------------------------------


@pytest.mark.slow
def test_trainings_of_one_process_do_not_affect_one_another(config, tmp_path, folder):
  """The second one runs in a thread, where no signals are handled, and nothing stays open."""
  def open_now() -> tuple:
    return (len(os.listdir('/proc/self/fd')), signal.getsignal(signal.SIGINT),
            {thread.name for thread in threading.enumerate()} - {'tqdm_monitor'})

  config.steps, config.warmup_steps, config.eval.lpips = 2, 2, 'none'
  before, given = open_now(), config.copy_and_resolve_references()
  states = [sr_jax.train.train(config, tmp_path / 'a')]
  with ThreadPoolExecutor(1) as pool:
    states.append(pool.submit(sr_jax.train.train, config, str(tmp_path / 'b')).result())
  assert open_now() == before
  assert config == given
  assert same_bits(*states) == []
  assert states[0].step == sr_jax.load(tmp_path / 'a').step == 2

  results = sr_jax.evaluate.evaluate(tmp_path / 'a', lpips='none')
  assert list(results) == [folder.name]
  result = results[folder.name]
  assert (result['step'], result['scale'], len(result['images'])) == (2, 2, 5)
  assert result['bicubic']['mean']['psnr_y'] > 20
  same = sr_jax.evaluate.evaluate(str(tmp_path / 'a'), [folder], step=2, config=config)
  assert same[folder.name] == result
  for sets, message in ((['a,b'], 'a,b'), ([''], "''"), ('nowhere', 'nowhere'), ([], 'empty')):
    with pytest.raises(InputError, match=message):
      sr_jax.evaluate.evaluate(tmp_path / 'a', sets)


def test_stopping_is_a_keyboard_interrupt():
  stopped = Stopped(signal.SIGINT, 3, 20)
  assert isinstance(stopped, KeyboardInterrupt)
  assert re.search('SIGINT.* 3 of 20', str(stopped))
