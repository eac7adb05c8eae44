"""Validation as in training: degraded LR that never changes, beside clean LR."""

import io
import re

import jax
import numpy as np
import pytest
from PIL import Image

from sr_jax import images
from sr_jax.data.degradations import chains, fixed
from sr_jax.data.degradations.chains import Degrader
from sr_jax.data.degradations.jpeg import Jpeg
from sr_jax.data.pictures import Pair
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.train import validation_data
from tests.test_train import run

JPEG = chains.PRESETS['jpeg']


def pair_of(hr, name='a'):
  return Pair(name, hr, hr)


def lr_of(hr, place=0, degradation=JPEG, scale=2):
  (pair,) = fixed.degrade_pairs([pair_of(hr)], {'a': place}, degradation, scale)
  assert pair.hr is hr
  return pair.lr


@pytest.mark.parametrize(('size', 'scale', 'side'), [
    ((20, 24), 2, 64), ((65, 10), 4, 96), ((96, 97), 4, 128), ((321, 481), 3, 513),
    ((481, 321), 4, 512), ((1356, 2040), 4, 2048), ((257, 1), 1, 384)])
def test_canvases_have_few_sizes(size, scale, side):
  assert fixed.canvas_side(size, scale) == side


@pytest.mark.parametrize(('size', 'channels'), [((33, 45), 3), ((64, 48), 1)])
def test_an_image_is_compressed_as_a_whole(picture, size, channels):
  """At scale 1 a chain of one JPEG of one quality does what Pillow does with the entire image."""
  hr = picture(*size)[..., :channels]
  chain = chains.make_chain(('jpeg',), {'jpeg': Jpeg(quality=(40, 40))})
  buffer = io.BytesIO()
  Image.fromarray(hr if channels == 3 else hr[..., 0]).save(buffer, 'JPEG', quality=40)
  expected = np.asarray(Image.open(buffer)).reshape(hr.shape)
  np.testing.assert_array_equal(lr_of(hr, 3, chain, 1), expected)


def test_lr_depends_on_the_image_and_its_place_alone(picture):
  """Not on the images before it, whatever their size, nor on the time."""
  first, second = picture(20, 24, 1), picture(30, 40, 2)
  alone = lr_of(second, 1)
  assert alone.shape == (15, 20, 3)
  assert alone.dtype == np.uint8
  places = {'a': 0, 'b': 1}
  both = fixed.degrade_pairs([pair_of(first), pair_of(second, 'b')], places, JPEG, 2)
  np.testing.assert_array_equal(both[1].lr, alone)
  # The first image is damaged today.
  np.testing.assert_array_equal(
      fixed.degrade_pairs([pair_of(second, 'b')], places, JPEG, 2)[0].lr, alone)
  assert (lr_of(second, 2) != alone).any()


def test_lr_is_made_of_sharpened_hr_without_a_border(picture):
  """The unsharp mask sees the mirrored image at its border and not the canvas around it."""
  hr = picture(20, 24)
  chain = chains.make_chain(('reduce',), sharpen=0.5)
  plain = chains.make_chain(('reduce',))
  sharpened = jax.jit(chains.sharpened, static_argnames='degradation')
  sharp = images.to_uint8(np.asarray(sharpened(images.to_float(hr)[None], chain))[0])
  difference = np.abs(np.int32(lr_of(hr, 0, chain)) - lr_of(sharp, 0, plain))
  assert difference.max() <= 1  # of rounding the sharpened image
  assert (lr_of(hr, 0, chain) != lr_of(hr, 0, plain)).any()


def test_crops_are_degraded_as_batches_are(picture):
  chain = chains.make_chain(('reduce', 'jpeg'), margin=4, sharpen=0.5)
  hr = np.stack([images.to_float(picture(24, 24, seed)) for seed in range(2)])
  batch = fixed.degrade_crops(hr, Degrader(chain, 2, 16))
  again = fixed.degrade_crops(hr, Degrader(chain, 2, 16))
  assert {name: array.shape for name, array in batch.items()} == {
      'lr': (2, 8, 8, 3), 'hr': (2, 16, 16, 3), 'target': (2, 16, 16, 3)}
  for name, array in batch.items():
    np.testing.assert_array_equal(array, again[name])
  windows = np.lib.stride_tricks.sliding_window_view(hr, (16, 16), (1, 2))
  for crop, of_one in zip(batch['hr'], windows, strict=True):  # HR itself, not sharpened
    assert (of_one == crop.transpose(2, 0, 1)).all((-3, -2, -1)).any()
  assert (batch['target'] != batch['hr']).any()


# Runs --------------------------------------------------------------------------------------


@pytest.fixture
def degraded(config, tmp_path, picture):
  """Four steps of the generator alone with JPEG, validated every two steps on two sets."""
  for name, count in (('valid', 2), ('test', 1)):
    for index in range(count):
      images.write_image(tmp_path / name / f'{index}.png', picture(32, 40, index + 7))
    config.data[name] = f'folder:{tmp_path / name}'
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps, config.checkpoint_every = 0, 4, 2
  config.eval.every, config.data.degrade.name = 2, 'jpeg'
  config.data.degrade.margin, config.sample_every = 4, 2
  return config


@pytest.mark.slow
def test_degraded_and_clean_lr_are_scored(degraded, tmp_path, capsys):
  run(degraded, tmp_path / 'run', steps=2)
  run(degraded, tmp_path / 'run')  # is resumed
  lines = [line for line in read_metrics(tmp_path / 'run') if 'valid/psnr_y' in line]
  assert [line['step'] for line in lines] == [0, 2, 4]
  assert lines[0]['clean/psnr_y'] > lines[0]['valid/psnr_y']
  for line in lines:
    assert {'test/psnr_y', 'clean/psnr_lr', 'valid/psnr_lr'} <= line.keys()
  out = capsys.readouterr().out
  for text in ('clean on folder:', 'data.valid, clean LR\n', 'data.valid, degraded LR\n',
               'data.test, degraded LR\n', 'pixel: train 0.'):
    assert text in out, text
  report = (tmp_path / 'run' / 'report.html').read_text()
  for text in ('PSNR of luma, dB, clean LR', '"label":"clean LR"', 'bicubic of clean LR'):
    assert text in report, text
  # A resumed run scored the same LR again.
  bicubic = re.findall(r'step \d/\d  psnr_y \S+ \(bicubic (\S+)\)', out)
  assert len(set(bicubic)) == 3  # of valid, clean and test
  low = images.read_image(tmp_path / 'run' / 'progress' / '0' / 'low.png')
  opened = validation_data.open_validation(degraded, [])
  np.testing.assert_array_equal(low[::2, ::2], opened.valid[0].lr)
  for step in (2, 4):
    sample = images.read_image(tmp_path / 'run' / 'samples' / f'0-000000{step}.png')
    np.testing.assert_array_equal(sample[:, :40], low)


def test_lr_is_the_same_in_runs_that_are_compared(degraded):
  opened, lines = validation_data.open_validation(degraded, []), []
  degraded.seed, degraded.batch_size, degraded.eval.pictures = 5, 1, 1
  other = validation_data.open_validation(degraded, [])
  degraded.data.degrade.update({'name': 'none', 'margin': None})
  degraded.eval.pictures = 10
  plain = validation_data.open_validation(degraded, [], lines)
  assert [list(data.sets) for data in (opened, other, plain)] == [
      ['valid', 'clean', 'test'], ['valid', 'clean', 'test'], ['valid', 'test']]
  for kind in ('valid', 'test'):
    np.testing.assert_array_equal(opened.sets[kind][0].lr, other.sets[kind][0].lr)
  for clean, valid, pair in zip(opened.sets['clean'], opened.valid, plain.valid, strict=True):
    np.testing.assert_array_equal(clean.lr, pair.lr)
    assert (valid.lr != pair.lr).any()
    for of_set in (clean, valid):
      np.testing.assert_array_equal(of_set.hr, pair.hr)


def test_scale_one_compares_clean_images_with_what_the_network_makes_of_them(
    degraded, tmp_path, capsys):
  degraded.scale = 1
  degraded.generator.update({'name': 'compact', 'kernel': None})
  run(degraded, tmp_path / 'run')
  lines = [line for line in read_metrics(tmp_path / 'run') if 'valid/psnr_y' in line]
  assert [('clean/psnr_y' in line, line['phase']) for line in lines] == [
      (False, 'bicubic'), (True, 'pixel'), (True, 'pixel')]
  assert all(20 < line['clean/psnr_y'] < 100 for line in lines[1:])
  assert 'infinite' not in capsys.readouterr().out
  opened = validation_data.open_validation(degraded, [])
  for pair in opened.sets['clean']:
    np.testing.assert_array_equal(pair.lr, pair.hr)


def test_lr_files_of_validation_images_are_not_used(degraded, tmp_path, picture):
  plain = validation_data.open_validation(degraded, [])
  (tmp_path / 'valid').rename(tmp_path / 'HR')
  for index in range(2):
    images.write_image(tmp_path / 'LR' / f'{index}.png', picture(16, 20, index))
  degraded.data.valid = f'pairs:HR={tmp_path / "HR"},LR={tmp_path / "LR"}'
  notes = []
  opened = validation_data.open_validation(degraded, [], notes)
  assert [note for note in notes if 'config.data.valid: ' in note and '2 images' in note]
  for kind in ('valid', 'clean'):
    for before, after in zip(plain.sets[kind], opened.sets[kind], strict=True):
      np.testing.assert_array_equal(before.lr, after.lr)


@pytest.mark.slow
def test_realesrgan_damages_more_than_bicubic(picture):
  hr, scale = picture(48, 64), 4
  errors = [np.square(np.float64(images.imresize(lr, scale)) - hr).mean() for lr in (
      lr_of(hr, 0, chains.PRESETS['realesrgan'], scale), images.imresize(hr, 1 / scale))]
  assert errors[0] > 1.25 * errors[1]  # a decibel
