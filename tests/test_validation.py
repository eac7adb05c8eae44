"""Validation of a run: progress images, the test set, loss terms on fixed crops."""

import re

import jax
import numpy as np
import pytest

from sr_jax import images, losses, restore
from sr_jax.data import pictures, sources
from sr_jax.data.pictures import Pair
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, inputs, phases
from sr_jax.experiment.check import check
from sr_jax.images import montage
from sr_jax.metrics import niqe, scorer
from sr_jax.runs import lr_strips, metadata, progress
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step.flat import flatten
from sr_jax.step.state import NetState, TrainState, variables
from sr_jax.system import user_code
from sr_jax.train import overfitting, schedule, validation, validation_data
from tests import own_code
from tests.conftest import filled
from tests.test_logs import read_events
from tests.test_train import iter_scores, run

# Images ----------------------------------------------------------------------------------


def test_quarters_are_rounded_up():
  assert progress.quarters(40) == {0: 0, 25: 10, 50: 20, 75: 30, 100: 40}
  assert progress.quarters(7) == {0: 0, 25: 2, 50: 4, 75: 6, 100: 7}
  assert progress.quarters(2) == {0: 0, 25: 1, 50: 1, 75: 2, 100: 2}
  assert progress.quarters(1) == {0: 0} | dict.fromkeys((25, 50, 75, 100), 1)


@pytest.fixture
def pair(picture):
  """pair(height, width, scale, channels) -> a pair whose LR and HR images are unrelated."""
  def make(height, width, scale=2, channels=3):
    hr = picture(height * scale, width * scale)[..., :channels]
    return Pair('a', picture(height, width, 1)[..., :channels], hr)
  return make


@pytest.mark.parametrize(('scale', 'size', 'kept'), [
    (2, (9, 8), (18, 16)), (2, (241, 9), (480, 18)), (4, (130, 140), (480, 480)),
    (7, (80, 20), (476, 140))])  # 480 is no multiple of 7
def test_the_centre_of_large_images_is_shown(pair, scale, size, kept):
  whole = pair(*size, scale)
  sr = 255 - whole.hr
  low, bicubic, generated, original = montage.centre_row(
      whole.lr, whole.hr, images.imresize(whole.lr, scale), sr)
  assert {part.shape for part in (low, bicubic, generated, original)} == {(*kept, 3)}
  y, x = ((side - part // scale) // 2 for side, part in zip(size, kept, strict=True))
  small = whole.lr[y:y + kept[0] // scale, x:x + kept[1] // scale]
  np.testing.assert_array_equal(low[::scale, ::scale], small)
  np.testing.assert_array_equal(low[scale - 1::scale, scale - 1::scale], small)
  place = slice(y * scale, y * scale + kept[0]), slice(x * scale, x * scale + kept[1])
  np.testing.assert_array_equal(original, whole.hr[place])
  np.testing.assert_array_equal(generated, sr[place])
  np.testing.assert_array_equal(bicubic, images.imresize(whole.lr, scale)[place])


@pytest.mark.parametrize('channels', [1, 3])
def test_the_progress_montage_is_assembled_from_its_files(pair, tmp_path, channels):
  whole = pair(9, 8, 2, channels)
  for index, step in enumerate((0, 2, 4, 6, 7)):  # of 7
    progress.keep_progress(tmp_path, whole, np.full_like(whole.hr, 50 * index), step, 7)
    strip = images.read_image(tmp_path / 'a.png')
    assert strip.shape == (18, (index + 4) * 16 + (index + 3) * 4, 3)
    assert [strip[0, 20 * (place + 2), 0] for place in range(index + 1)] == [
        50 * place for place in range(index + 1)]
  np.testing.assert_array_equal(strip[:, :16], images.as_rgb(whole.lr).repeat(2, 0).repeat(2, 1))
  np.testing.assert_array_equal(strip[:, 20:36], images.as_rgb(images.imresize(whole.lr, 2)))
  np.testing.assert_array_equal(strip[:, -16:], images.as_rgb(whole.hr))
  assert sorted(path.name for path in (tmp_path / 'a').iterdir()) == [
      '000.png', '025.png', '050.png', '075.png', '100.png', 'bicubic.png', 'low.png',
      'original.png']
  for name, place in (('low', 0), ('bicubic', 20), ('100', -36), ('original', -16)):
    np.testing.assert_array_equal(images.read_image(tmp_path / 'a' / f'{name}.png'),
                                  strip[:, place:place + 16 or None])


def test_progress_images_of_other_quarters_or_sizes_are_skipped(pair, tmp_path):
  whole, other = pair(9, 8), pair(8, 8)

  def width(whole, step, steps):
    progress.keep_progress(tmp_path, whole, whole.hr, step, steps)
    return images.read_image(tmp_path / 'a.png').shape[1]

  assert width(whole, 1, 4) == 4 * 16 + 3 * 4
  assert width(whole, 2, 4) == 5 * 16 + 4 * 4
  assert width(whole, 6, 8) == 4 * 16 + 3 * 4  # the quarters begin 2, 4, not 1, 2
  assert width(other, 8, 8) == 4 * 16 + 3 * 4  # the same name with another size
  (tmp_path / 'a' / '050.png').write_text('no picture')
  assert width(whole, 3, 4) == 5 * 16 + 4 * 4


def test_fewer_steps_than_quarters(pair, tmp_path):
  whole = pair(9, 8)
  progress.keep_progress(tmp_path, whole, whole.hr, 1, 1)
  assert images.read_image(tmp_path / 'a.png').shape == (18, 7 * 16 + 6 * 4, 3)


# Runs --------------------------------------------------------------------------------------


@pytest.fixture
def watched(config, tmp_path, picture):
  """Eight steps of the generator alone, validated every two steps on a valid and a test set."""
  for name, count in (('valid', 2), ('test', 1)):  # of one size, to compile once
    for index in range(count):
      images.write_image(tmp_path / name / 'sub' / f'{index}.png', picture(20, 24, index))
    config.data[name] = f'folder:{tmp_path / name}'
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps, config.checkpoint_every = 0, 8, 4
  config.eval.every = 2
  return config


def test_the_device_loop_stops_at_each_quarter(config):
  config.steps, config.log_every, config.checkpoint_every = 41, 1000, 1000
  stops = [0]
  while stops[-1] < 41:
    stops.append(schedule.Schedule(config).next_event(stops[-1], 41))
  assert stops == [0, 11, 21, 31, 41]


def test_the_test_set_is_scored_but_chooses_nothing(watched, tmp_path, monkeypatch, capsys):
  watched.progress_pictures = 1
  # Alternately of valid and test; the best step of valid is 4, that of test is 6.
  monkeypatch.setattr(scorer, 'mean', iter_scores([0, 1, 2, 3, 9, 4, 5, 99, 6, 7]))
  run(watched, tmp_path / 'run')
  lines = [line for line in read_metrics(tmp_path / 'run') if 'valid/psnr_y' in line]
  assert [(line['step'], line['valid/psnr_y'], line['test/psnr_y']) for line in lines] == [
      (0, 0, 1), (2, 2, 3), (4, 9, 4), (6, 5, 99), (8, 6, 7)]
  assert Checkpoints(tmp_path / 'run', 'psnr_y', read_only=True).best() == 4
  out = capsys.readouterr().out
  assert (tmp_path / 'run' / 'train.log').read_text() == out
  out = re.sub('^.{20}', '', out, flags=re.MULTILINE)
  for text in ('/valid  step 4/8  psnr_y 9.0000 (bicubic 0.0000)  best so far\n',
               '/valid  step 6/8  psnr_y 5.0000 (bicubic 0.0000)\n',
               '/test  step 4/8  psnr_y 4.0000 (bicubic 1.0000)\n',
               '\ndata.valid\n    step  phase           psnr_y\n       0  bicubic ',
               '\ndata.test\n    step  phase           psnr_y\n       0  bicubic         1.0',
               '       6  pixel          99.0000\n',
               '\nLoss terms of the phase pixel on fixed centre crops (2 of the training set, '
               '2 of the validation set; ', 'first to last\npixel: train 0.'):
    assert text in out, text
  assert {path.name for path in (tmp_path / 'run' / 'progress' / 'sub').iterdir()} == {
      '0', '0.png'}
  assert [step for step, tags in read_events(tmp_path / 'run')
          if tags == ['progress/sub/0']] == [0, 2, 4, 6, 8]
  # A test set alone is scored too; there is no best checkpoint and there are no images.
  watched.data.valid = ''
  opened = validation_data.open_validation(watched, [])
  assert (list(opened.sets), opened.crops, opened.valid) == (['test'], {}, [])


def test_an_exact_image_does_not_choose_the_best(watched, tmp_path, monkeypatch, capsys):
  watched.data.test, inf = '', float('inf')
  # A black image is exact for bicubic and at step 2; the photograph is best at step 6.
  scores = iter([(inf, 30.0), (inf, 29.0), (60.0, 31.0), (50.0, 33.0), (90.0, 32.0)])
  monkeypatch.setattr(scorer, 'score_set', lambda *_: {
      name: {'psnr_y': value} for name, value in zip('ab', next(scores), strict=True)})
  run(watched, tmp_path / 'run')
  assert Checkpoints(tmp_path / 'run', 'psnr_y', read_only=True).best() == 6
  lines = [line for line in read_metrics(tmp_path / 'run') if 'valid/psnr_y' in line]
  assert [(line['step'], line['valid/psnr_y']) for line in lines] == [
      (0, 30.0), (2, 29.0), (4, 31.0), (6, 33.0), (8, 32.0)]
  assert capsys.readouterr().out.count(
      'config.data.valid: psnr_y: mean over 1 of 2 images, 1 infinite (identical)') == 1
  for path in (tmp_path / 'run').rglob('*.json*'):
    for line in path.read_text().splitlines():
      assert 'Infinity' not in line
      assert 'NaN' not in line


def test_a_test_set_that_cannot_be_scored_is_reported(watched, tmp_path):
  (tmp_path / 'test' / 'sub' / '0.png').write_text('no picture')
  (tmp_path / 'test' / 'sub' / '1.png').write_text('no picture either')
  with pytest.raises(InputError, match=r'config\.data\.test: no usable image: .*not a.* 1 more'):
    validation_data.open_validation(watched, [])
  (tmp_path / 'test' / 'sub' / '1.png').write_text('no picture, but one of two')
  images.write_image(tmp_path / 'test' / 'sub' / '0.png', np.zeros((20, 20, 3), np.uint8))
  opened = validation_data.open_validation(watched, [])
  assert len(opened.sets['test']) == 1
  assert ['1.png: not a' in line for line in opened.skipped] == [True, False]
  assert 'no loss terms' in opened.skipped[1]  # there is nothing to train on here
  watched.data.test = 'folder:/nowhere'
  with pytest.raises(InputError, match=r'config\.data\.test: /nowhere: no such folder'):
    validation_data.open_validation(watched, [])


# Images without HR -------------------------------------------------------------------------


@pytest.mark.parametrize(('size', 'scale'), [((300, 401), 4), ((250, 90), 4), ((40, 30), 2)])
def test_the_part_that_is_upscaled_gives_the_middle_of_the_whole(picture, tmp_path, size, scale):
  lr = picture(*size)
  part = lr_strips.part_to_upscale(lr, scale)
  assert part.shape[:2] == tuple(min(side, 480 // scale + 128) for side in size)
  strips = []
  for index, image in enumerate((lr, part)):
    sr = 255 - images.imresize(image, scale)
    strips.append(lr_strips.keep_strip(tmp_path / str(index), 'sub/a', image, sr, 7))
  np.testing.assert_array_equal(*strips)
  low, bicubic, result = lr_strips.read_strip(tmp_path / '1' / 'sub' / 'a-0000007.png').values()
  assert low.shape[:2] == tuple(min(side * scale, 480) for side in size)
  np.testing.assert_array_equal(result, 255 - bicubic)


def test_strips_are_found_by_name_and_step(picture, tmp_path):
  lr = picture(8, 9)
  for name, step in (('a', 0), ('sub/b-1', 20), ('sub/b-1', 3), ('a', 12_345_678)):
    lr_strips.keep_strip(tmp_path, name, lr, lr, step)
  (tmp_path / 'mine.png').write_bytes(b'')
  (tmp_path / 'c-0000004.png').write_text('no image')
  found = lr_strips.find_strips(tmp_path)
  assert {name: list(paths) for name, paths in found.items()} == {
      'a': [0, 12_345_678], 'c': [4], 'sub/b-1': [3, 20]}
  assert lr_strips.read_strip(found['c'][4]) == {}
  lr_strips.forget_after(tmp_path, 3)
  assert {name: list(paths) for name, paths in lr_strips.find_strips(tmp_path).items()} == {
      'a': [0], 'sub/b-1': [3]}
  lr_strips.forget_after(tmp_path, 0)  # a run that starts over
  assert [path.name for path in tmp_path.rglob('*.png')] == ['mine.png']


def test_images_without_hr_are_upscaled_at_each_validation(watched, tmp_path, picture, capsys):
  for name, seed in (('a', 1), ('sub/b', 2), ('z', 3)):
    images.write_image(tmp_path / 'mine' / f'{name}.png', picture(20, 24, seed))
  (tmp_path / 'mine' / 'b.png').write_text('no picture')
  watched.data.valid = watched.data.test = ''
  watched.eval.lr_images, watched.eval.pictures = str(tmp_path / 'mine'), 3
  run(watched, tmp_path / 'run', steps=4)
  folder = tmp_path / 'run' / 'lr_images'
  out = capsys.readouterr().out
  assert 'skipped config.eval.lr_images: ' in out
  assert 'the first 3 of 4 images' in out
  before = {path: path.read_bytes() for path in folder.rglob('*.png')}
  (folder / 'a-0000007.png').write_bytes(b'of a start that was killed')
  run(watched, tmp_path / 'run')
  found = lr_strips.find_strips(folder)
  assert [(name, list(paths)) for name, paths in found.items()] == [
      ('a', [2, 4, 6, 8]), ('sub/b', [2, 4, 6, 8])]
  assert before == {path: path.read_bytes() for path in before}
  model = restore.load(tmp_path / 'run')
  lr = images.read_image(tmp_path / 'mine' / 'sub' / 'b.png')
  low, bicubic, result = lr_strips.read_strip(found['sub/b'][8]).values()
  np.testing.assert_array_equal(low, lr.repeat(2, 0).repeat(2, 1))
  np.testing.assert_array_equal(bicubic, images.imresize(lr, 2))
  np.testing.assert_allclose(np.int32(result), model(lr), atol=1)
  assert [step for step, tags in read_events(tmp_path / 'run')
          if tags == ['lr_images/sub/b']] == [2, 4, 6, 8]
  report = (tmp_path / 'run' / 'report.html').read_text()
  for text in ('sub/b (no HR)', 'step 2', 'step 8', 'class="slider top"'):
    assert text in report, text
  # Another run that starts from these weights upscales them before its first step too.
  run(watched, tmp_path / 'other', init_from=str(tmp_path / 'run'), steps=2)
  first = lr_strips.find_strips(tmp_path / 'other' / 'lr_images')['sub/b']
  assert list(first) == [0, 2]
  np.testing.assert_array_equal(lr_strips.read_strip(first[0])['result'], result)


def test_niqe_of_images_without_hr_is_logged(watched, tmp_path, picture, capsys):
  for index, side in enumerate((100, 120, 30)):  # the last is too small for NIQE
    images.write_image(tmp_path / 'mine' / f'{index}.png', picture(100, side, index))
  watched.data.valid = watched.data.test = ''
  watched.eval.lr_images, watched.eval.niqe = str(tmp_path / 'mine'), True
  run(watched, tmp_path / 'run', steps=2)
  lines = [line for line in read_metrics(tmp_path / 'run') if 'lr_images/niqe' in line]
  assert [(line['step'], line['phase']) for line in lines] == [(0, 'bicubic'), (2, 'pixel')]
  mine = [images.read_image(tmp_path / 'mine' / f'{index}.png') for index in range(2)]
  model = restore.load(tmp_path / 'run')
  for line, upscale in zip(lines, (lambda lr: images.imresize(lr, 2), model), strict=True):
    expected = np.mean([niqe.niqe(upscale(lr)) for lr in mine])
    assert line['lr_images/niqe'] == pytest.approx(expected, rel=1e-3)
  assert re.search(r'mine  step 2/2  niqe \S+ \(bicubic', capsys.readouterr().out)
  report = (tmp_path / 'run' / 'report.html').read_text()
  assert '"label":"bicubic of images without HR"' in report


@pytest.mark.parametrize(('make', 'words'), [
    (lambda folder: None, 'mine: no such folder'),
    (lambda folder: folder.mkdir(), 'mine: contains no images'),
    (lambda folder: images.write_image(folder / 'a.png', np.zeros((2, 9, 3), np.uint8)),
     'no usable image: .*a.png: 2x9 is too small'),
    (lambda folder: (folder.mkdir(), (folder / 'a.png').write_text('no')),
     'no usable image: .*a.png: not a')])
def test_images_without_hr_that_cannot_be_used_are_refused(watched, tmp_path, make, words):
  make(tmp_path / 'mine')
  watched.eval.lr_images = f'folder:{tmp_path / "mine"}'
  with pytest.raises(InputError, match=rf'^config\.eval\.lr_images: .*{words}') as refused:
    run(watched, tmp_path / 'run')
  assert '\n' not in str(refused.value)
  assert not (tmp_path / 'run').exists()


# Loss terms --------------------------------------------------------------------------------


def test_crops_are_the_centres_of_usable_images(tmp_path, picture, config):
  for index, size in enumerate(((40, 52), (12, 40), (33, 17))):  # the second is too small
    images.write_image(tmp_path / f'{index}.png', picture(*size, index))
  (tmp_path / '3.png').write_text('no picture')
  found = sources.open_source(f'folder:{tmp_path}', 2)
  batch = validation_data.centre_crops(found, inputs.build_crop_spec(config))
  expected = [middle_of(found[index], y, x) for index, y, x in ((0, 6, 9), (2, 4, 0))]
  for name in ('lr', 'hr'):
    np.testing.assert_array_equal(batch[name], np.stack([crop[name] for crop in expected]))
    assert batch[name].dtype == np.float32
  assert validation_data.centre_crops(found[1:2], inputs.build_crop_spec(config)) == {}


def middle_of(picture, y, x):
  """The 16-pixel crop of an image whose LR part begins at (y, x)."""
  whole = pictures.read(picture, 2, 3)
  return {'lr': np.float32(whole.lr[y:y + 8, x:x + 8]) / 255,
          'hr': np.float32(whole.hr[2 * y:2 * y + 16, 2 * x:2 * x + 16]) / 255}


@pytest.mark.parametrize('name', ['warm-up', 'gan'])
def test_terms_are_the_losses_of_the_raw_weights(config, folder, name):
  """Compares with each network applied to each crop by itself."""
  config.loss.adversarial.kind, config.loss.total_variation.weight = 'relativistic', 0.5
  config.generator.batch_norm = config.discriminator.batch_norm = True
  experiment = phases.build(config)
  phase = next(phase for phase in experiment.phases if phase.name == name)
  nets = [NetState(flatten(made['params']), flatten(made['batch_stats']), ()) for made in (
      filled(experiment.generator, np.zeros((1, 8, 8, 3), np.float32)),
      filled(experiment.discriminator, np.zeros((1, 16, 16, 3), np.float32)))]
  state = TrainState(0, 0, *nets, {})  # without an average, which is not used
  found = sources.open_source(f'folder:{folder}', 2)
  crops = {'train': [middle_of(found[0], 6, 9), middle_of(found[1], 11, 5)],
           'valid': [middle_of(found[2], 4, 4)]}
  batches = {kind: validation_data.centre_crops(mine, inputs.build_crop_spec(config))
             for kind, mine in (('train', found[:2]), ('valid', found[2:3]))}
  terms = validation.loss_terms(jax.jit(phase.terms), state, batches, {})

  generate, judge = (
      jax.jit(lambda picture, apply=network.apply, net=net: apply(
          variables(net), picture[None]))
      for network, net in zip((experiment.generator, experiment.discriminator), nets, strict=True))
  expected = {}
  for kind, mine in crops.items():
    hr, sr = [crop['hr'] for crop in mine], [np.asarray(generate(crop['lr']))[0] for crop in mine]
    found = {'pixel': np.mean([np.abs(a - b) for a, b in zip(sr, hr, strict=True)])}
    if name == 'gan':
      real, fake = (np.array([judge(picture) for picture in row]) for row in (hr, sr))
      found |= {'total_variation': 0.5 * np.mean([losses.total_variation(a[None]) for a in sr]),
                'adversarial': 1e-3 * losses.relativistic_generator(fake, real),
                'd_total': losses.relativistic_discriminator(real, fake),
                'd_real': np.mean(real > fake.mean()), 'd_fake': np.mean(fake < real.mean())}
    expected |= {f'terms/{term}/{kind}': float(value) for term, value in found.items()}
  assert terms == pytest.approx(expected, rel=1e-4)
  assert terms['terms/pixel/train'] != terms['terms/pixel/valid']


def curve(*values, count=12):
  """`count` samples of the polyline through values."""
  return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(values)), values)


@pytest.mark.parametrize(('train_curve', 'valid_curve', 'expected'), [
    (curve(4, 3, 2.5), curve(4.2, 3.5, 4.0), True),
    (curve(4, 3, 2), curve(4, 4.5, 5), True),  # from the start
    (curve(4, 3, 2), curve(4.2, 3.9, 3.8), False),  # both fall, though they are far apart
    (curve(3, 3.5, 4), curve(3.1, 3.6, 4.2), False),  # both rise
    (curve(3, 2.5, 2.5), curve(3, 2.5, 2.5), False),  # has converged
    (curve(4, 3, 2), curve(4, 4.005, 4.01), False),  # by a quarter of a percent
    (curve(4, 3, 2), curve(4, 3, 3, 3, 3, 3.5), False),  # only in the last sample
    (curve(4, 2), curve(4, 5, count=2), False)])
def test_overfitting_falls_in_training_and_rises_in_validation(train_curve, valid_curve, expected):
  assert overfitting.overfits(train_curve[:len(valid_curve)], valid_curve) == expected


def test_noise_is_not_overfitting():
  """Validation values fluctuate around a level while training values fall."""
  rng = np.random.default_rng(0)
  claims = [overfitting.overfits(np.linspace(4, 3, count) + rng.normal(0, 0.04, count),
                           4 + rng.normal(0, 0.04, count))
            for count in (8, 20, 60, 200) for _ in range(100)]
  assert sum(claims) <= 12  # of 400


def test_the_summary_of_loss_terms():
  def line(step, phase, **terms):
    return {'step': step, 'phase': phase, **{name.replace('__', '/'): value
                                             for name, value in terms.items()}}

  assert overfitting.describe_terms([]) == []
  lines = [{'step': 0, 'phase': 'bicubic', 'valid/psnr_y': 1.0},
           line(2, 'warm-up', terms__pixel__train=9.0, terms__pixel__valid=9.0)]
  assert overfitting.describe_terms(lines) == [
      'pixel: train 9, validation 9, lowest 9 at step 2']
  for step, (mine, other) in enumerate(zip(curve(0.04, 0.03), curve(0.05, 0.045, 0.06),
                                           strict=True)):
    lines.append(line(10 * step + 10, 'gan', terms__pixel__train=mine, terms__pixel__valid=other,
                      terms__adversarial__train=mine, terms__adversarial__valid=other,
                      terms__d_real__train=0.5 + mine, terms__d_real__valid=0.5 - mine,
                      terms__perceptual__train=None, terms__perceptual__valid=1.0))
    lines.append({'step': 10 * step + 15, 'phase': 'gan', 'g/pixel': 1.0})
  assert overfitting.describe_terms(lines) == [
      'pixel: train 0.04 to 0.03, validation 0.05 to 0.06, lowest 0.04545 at step 60: rising '
      'on validation while train falls, so the generator overfits',
      'adversarial: train 0.04 to 0.03, validation 0.05 to 0.06, lowest 0.04545 at step 60',
      'd_real: train 54% to 53%, validation 46% to 47%']


# The user's own ----------------------------------------------------------------------------


def test_own_terms_metrics_and_sources_in_a_run(watched, tmp_path, monkeypatch, capsys):
  user_code.allow(['tests.own_code'])
  watched.data.source = watched.data.valid = 'tests.own_code:arrays'
  watched.data.test, watched.best_metric = '', 'error'
  watched.loss.extra = {'edges': {'fn': 'tests.own_code:edges', 'weight': 0.5}}
  watched.eval.extra = {'error': {'fn': 'tests.own_code:edge_error', 'better': 'lower'}}
  values = iter([5.0, 3.0, 1.0, 2.0, 4.0])
  monkeypatch.setattr(own_code, 'edge_error', lambda sr, hr: 9.0)
  monkeypatch.setattr(scorer, 'mean', lambda *_: {'psnr_y': 20.0, 'error': next(values)})
  run(watched, tmp_path / 'run')
  workdir = tmp_path / 'run'
  assert restore.load(workdir, step='best').step == 4  # the lowest
  lines = read_metrics(workdir)
  assert [line['valid/error'] for line in lines if 'valid/error' in line] == [5, 3, 1, 2, 4]
  assert all('terms/edges/valid' in line for line in lines if line.get('valid/error', 5) < 5)
  assert 'g/edges' in next(line for line in lines if 'g/total' in line)
  out = capsys.readouterr().out
  for text in ('validation on tests.own_code:arrays  step 4/8  psnr_y 20.0000 (bicubic 20.0000)  '
               'error 1 (bicubic 5)  best so far', 'g/edges 0.', '(edges 0.', 'edges: train 0.',
               'Best: step 4 (error 1, bicubic 5)'):
    assert text in out, text
  report = (workdir / 'report.html').read_text()
  for text in ('best by error', 'error when lower', '<b>1</b> (-4)', '"edges, weighted"'):
    assert text in report, text
  # What it is resumed with.
  before = metadata.read_config(workdir)
  assert before['eval']['extra'] == {'error': {'fn': 'tests.own_code:edge_error',
                                               'better': 'lower'}}
  watched.loss.extra.edges.weight = 0.25
  assert compatibility.changes(before, check(watched))['loss.extra.edges.weight'] == [0.5, 0.25]
  watched.loss.extra, watched.eval.extra = {}, {}
  changed = compatibility.changes(before, check(watched))
  assert changed['loss.extra.edges.fn'] == ['tests.own_code:edges', None]
  with pytest.raises(InputError, match=r'loss\.extra\.edges\.fn .* -> None.*--resume') as refused:
    compatibility.refuse_changed(workdir, 4, changed, False)
  assert 'eval.extra' not in str(refused.value)


@pytest.mark.parametrize(('name', 'words'), [
    ('three_numbers', 'float32 [3]'), ('changes_hr', 'ValueError'), ('nothing', 'None'),
    ('of_one', 'TypeError'), ('NUMBER', 'is 3'), ('nix', 'no nix')])
def test_an_own_metric_that_cannot_be_used_is_refused_before_training(watched, name, words):
  user_code.allow(['tests.own_code'])
  watched.eval.extra = {'mine': {'fn': f'tests.own_code:{name}', 'better': 'higher'}}
  with pytest.raises(InputError) as error:
    validation_data.open_validation(watched, [])
  assert 'mine' in str(error.value)
  assert f'tests.own_code:{name}' in str(error.value)
  assert words in str(error.value)
  assert '\n' not in str(error.value)
  if name not in ('NUMBER', 'nix'):
    assert 'image sub/0' in str(error.value)


def test_an_own_metric_may_decide_and_is_known_by_its_name(watched):
  watched.best_metric = 'mine'
  with pytest.raises(InputError, match=r'config\.best_metric=.mine.'):
    phases.build(watched)
  watched.eval.extra = {'mine': {'fn': 'never.allowed:here', 'better': 'lower'}}
  phases.build(watched)  # replay and profile do not import it
  with pytest.raises(InputError, match=r'extra\.mine\.fn=.never\.allowed:here.*--import never'):
    validation_data.open_validation(watched, [])
  watched.eval.extra.mine.fn = ''
  assert validation_data.open_validation(watched, []).own == {}
