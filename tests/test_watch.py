"""What a run is watched by: progress pictures, the test set, train against validation terms."""

import functools

import numpy as np
import pytest

from sr_jax import build, images, losses, train, watch
from sr_jax.checkpoints import Checkpoints
from sr_jax.data import pictures, sources
from sr_jax.data.pictures import Pair
from sr_jax.errors import InputError
from sr_jax.logs import read_metrics
from tests.test_train import iter_scores, run, stop_after

# Pictures ----------------------------------------------------------------------------------


def test_quarters_are_rounded_up():
  assert watch.quarters(40) == {25: 10, 50: 20, 75: 30, 100: 40}
  assert watch.quarters(7) == {25: 2, 50: 4, 75: 6, 100: 7}
  assert watch.quarters(2) == {25: 1, 50: 1, 75: 2, 100: 2}
  assert watch.quarters(1) == dict.fromkeys((25, 50, 75, 100), 1)


@pytest.fixture
def pair(picture):
  """pair(height, width, scale, channels) -> the pair of a picture, LR and HR of other content."""
  def make(height, width, scale=2, channels=3):
    hr = picture(height * scale, width * scale)[..., :channels]
    return Pair('a', picture(height, width, 1)[..., :channels], hr)
  return make


@pytest.mark.parametrize(('scale', 'size', 'kept'), [
    (2, (9, 8), (18, 16)), (2, (241, 9), (480, 18)), (4, (130, 140), (480, 480)),
    (7, (80, 20), (476, 140))])  # 480 is no multiple of 7
def test_of_large_pictures_the_middle_is_shown(pair, scale, size, kept):
  whole = pair(*size, scale)
  sr = 255 - whole.hr
  low, bicubic, generated, original = watch.middle(whole, sr)
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
def test_progress_is_put_together_from_its_files(pair, tmp_path, channels):
  whole = pair(9, 8, 2, channels)
  for index, step in enumerate((2, 4, 6, 7)):  # of 7
    watch.keep_progress(tmp_path, whole, np.full_like(whole.hr, 50 * index), step, 7)
    strip = images.read_image(tmp_path / 'a.png')
    assert strip.shape == (18, (index + 3) * 16 + (index + 2) * 4, 3)
    assert [strip[0, 20 * (place + 1), 0] for place in range(index + 1)] == [
        50 * place for place in range(index + 1)]
  np.testing.assert_array_equal(strip[:, :16], images.as_rgb(whole.lr).repeat(2, 0).repeat(2, 1))
  np.testing.assert_array_equal(strip[:, -16:], images.as_rgb(whole.hr))
  assert sorted(path.name for path in (tmp_path / 'a').iterdir()) == [
      '025.png', '050.png', '075.png', '100.png']


def test_progress_of_another_plan_or_picture_is_left_out(pair, tmp_path):
  whole, other = pair(9, 8), pair(8, 8)

  def width(whole, step, steps):
    watch.keep_progress(tmp_path, whole, whole.hr, step, steps)
    return images.read_image(tmp_path / 'a.png').shape[1]

  assert width(whole, 1, 4) == 3 * 16 + 2 * 4
  assert width(whole, 2, 4) == 4 * 16 + 3 * 4
  assert width(whole, 6, 8) == 3 * 16 + 2 * 4  # 2 and 4 are its first quarters, 1 and 2 theirs
  assert width(other, 8, 8) == 3 * 16 + 2 * 4  # of the name, of another size
  (tmp_path / 'a' / '050.png').write_text('no picture')
  assert width(whole, 3, 4) == 4 * 16 + 3 * 4


def test_fewer_steps_than_quarters(pair, tmp_path):
  whole = pair(9, 8)
  watch.keep_progress(tmp_path, whole, whole.hr, 1, 1)
  assert images.read_image(tmp_path / 'a.png').shape == (18, 6 * 16 + 5 * 4, 3)


# Runs --------------------------------------------------------------------------------------


@pytest.fixture
def watched(config, tmp_path, picture):
  """Eight steps of the generator alone, seen at each second; pictures for valid and for test."""
  for name, sizes in (('valid', ((20, 24), (18, 530))), ('test', ((22, 20),))):
    for index, size in enumerate(sizes):
      images.write_image(tmp_path / name / 'sub' / f'{index}.png', picture(*size, index))
    config.data[name] = f'folder:{tmp_path / name}'
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps, config.checkpoint_every = 0, 8, 4
  config.eval.every = 2
  return config


def pixels_below(folder) -> dict:
  return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.png')}


@pytest.mark.parametrize('loop', ['no', 'yes'])
def test_a_resumed_run_is_watched_as_an_uninterrupted_one(watched, tmp_path, loop, capsys):
  watched.device_loop, watched.log_every, watched.eval.every = loop, 100, 8
  # The device loop stops at the quarters for their sake alone.
  run(watched, tmp_path / 'whole')
  stop_after(watched, tmp_path / 'parts', 4)
  assert images.read_image(tmp_path / 'parts' / 'progress' / 'sub' / '0.png').shape[1] == (
      4 * 24 + 3 * 4)
  run(watched, tmp_path / 'parts')
  whole, parts = (pixels_below(tmp_path / name / 'progress') for name in ('whole', 'parts'))
  assert whole == parts
  assert len(whole) == 2 * 5
  assert images.read_image(tmp_path / 'whole' / 'progress' / 'sub' / '1.png').shape == (
      18, 6 * 480 + 5 * 4, 3)
  assert len({whole[path] for path in whole if '0' in path.parts}) == 4  # it has learnt meanwhile
  whole, parts = ([{name: value for name, value in line.items() if '/' in name}
                   for line in read_metrics(tmp_path / name)] for name in ('whole', 'parts'))
  assert whole == parts
  capsys.readouterr()


def test_the_test_set_is_scored_and_decides_nothing(watched, tmp_path, monkeypatch, capsys):
  watched.progress_pictures = 1
  # By turns of valid and of test; the best of validation is step 4, of test 6.
  monkeypatch.setattr(train.score, 'mean', iter_scores([0, 1, 2, 3, 9, 4, 5, 99, 6, 7]))
  run(watched, tmp_path / 'run')
  lines = [line for line in read_metrics(tmp_path / 'run') if 'valid/psnr_y' in line]
  assert [(line['step'], line['valid/psnr_y'], line['test/psnr_y']) for line in lines] == [
      (0, 0, 1), (2, 2, 3), (4, 9, 4), (6, 5, 99), (8, 6, 7)]
  assert Checkpoints(tmp_path / 'run', 'psnr_y', read_only=True).best() == 4
  out = capsys.readouterr().out
  for text in ('pixel 4/8  valid  psnr_y 9.0000\n', 'pixel 4/8  test  psnr_y 4.0000\n',
               '\n\ndata.valid\n    step  phase         psnr_y\n       0  bicubic ',
               '\n\ndata.test\n    step  phase         psnr_y\n       0  bicubic       1.0000\n',
               '       6  pixel        99.0000\n',
               '\n\nLoss terms of the phase pixel, raw weights, on the middle of pictures (5 for '
               'training, 2 for validation)\npixel: train 0.'):
    assert text in out, text
  assert {path.name for path in (tmp_path / 'run' / 'progress' / 'sub').iterdir()} == {
      '0', '0.png'}
  # Alone it is scored, too, and there is nothing to choose by and nothing to show.
  watched.data.valid = ''
  opened = watch.open_watched(watched, [])
  assert (list(opened.sets), opened.crops, opened.valid) == (['test'], {}, [])


def test_a_test_set_that_can_not_be_scored_is_told(watched, tmp_path):
  (tmp_path / 'test' / 'sub' / '0.png').write_text('no picture')
  with pytest.raises(InputError, match=r'config\.data\.test: no usable picture.*0\.png: not a'):
    watch.open_watched(watched, [])
  (tmp_path / 'test' / 'sub' / '1.png').write_text('no picture, but one of two')
  images.write_image(tmp_path / 'test' / 'sub' / '0.png', np.zeros((20, 20, 3), np.uint8))
  opened = watch.open_watched(watched, [])
  assert len(opened.sets['test']) == 1
  assert len(opened.skipped) == 1
  watched.data.test = 'folder:/nowhere'
  with pytest.raises(InputError, match=r'config\.data\.test: /nowhere: no such folder'):
    watch.open_watched(watched, [])


# Loss terms --------------------------------------------------------------------------------


def test_crops_are_the_middles_of_what_is_usable(tmp_path, picture, config):
  for index, size in enumerate(((40, 52), (12, 40), (33, 17))):  # the second is too small
    images.write_image(tmp_path / f'{index}.png', picture(*size, index))
  (tmp_path / '3.png').write_text('no picture')
  found = sources.open_source(f'folder:{tmp_path}', 2)
  batch = watch.centre_crops(found, build.build_data.build_cut(config))
  expected = [middle_of(found[index], y, x) for index, y, x in ((0, 6, 9), (2, 4, 0))]
  for name in ('lr', 'hr'):
    np.testing.assert_array_equal(batch[name], np.stack([crop[name] for crop in expected]))
    assert batch[name].dtype == np.float32
  assert watch.centre_crops(found[1:2], build.build_data.build_cut(config)) == {}


def middle_of(picture, y, x):
  """The 16-pixel crop whose LR begins at (y, x), of the whole picture."""
  whole = pictures.read(picture, 2, 3)
  return {'lr': np.float32(whole.lr[y:y + 8, x:x + 8]) / 255,
          'hr': np.float32(whole.hr[2 * y:2 * y + 16, 2 * x:2 * x + 16]) / 255}


@pytest.mark.parametrize(('warmup', 'kind'), [(2, 'vanilla'), (1, 'relativistic')])
def test_terms_are_the_losses_of_the_raw_weights(config, tmp_path, folder, picture, warmup, kind):
  """Against each network applied to each crop by itself."""
  images.write_image(tmp_path / 'valid' / 'a.png', picture(20, 24))
  config.data.valid, config.warmup_steps, config.steps = f'folder:{tmp_path / "valid"}', warmup, 2
  config.loss.adversarial.kind, config.loss.total_variation.weight = kind, 0.5
  config.eval.pictures, config.discriminator.batch_norm = 2, True
  config.generator.batch_norm = True
  state = run(config, tmp_path / 'run')
  experiment = build.build(config)
  line = [line for line in read_metrics(tmp_path / 'run') if 'valid/psnr_y' in line][-1]
  terms = {name: value for name, value in line.items() if name.startswith('terms/')}
  found = {'train': sources.open_source(f'folder:{folder}', 2)[:2],
           'valid': sources.open_source(config.data.valid, 2)}
  places = {'train': ((6, 9), (11, 5)), 'valid': ((1, 2),)}

  def apply(network, net, picture):
    return network.apply({'params': net.params, 'batch_stats': net.batch_stats}, picture[None])

  expected = {}
  for key, mine in found.items():
    crops = [middle_of(*args) for args in ((picture, *place) for picture, place in
                                           zip(mine, places[key], strict=True))]
    sr = [apply(experiment.generator, state.g, crop['lr']) for crop in crops]
    hr = [crop['hr'][None] for crop in crops]
    mean = functools.partial(np.mean, dtype=np.float64)
    expected[f'terms/pixel/{key}'] = mean([losses.l1(a, b) for a, b in zip(sr, hr, strict=True)])
    if warmup == 2:
      continue
    expected[f'terms/total_variation/{key}'] = 0.5 * mean([losses.total_variation(a) for a in sr])
    fake, real = (np.stack([apply(experiment.discriminator, state.d, a[0]) for a in pictures])
                  for pictures in (sr, hr))
    expected |= {
        f'terms/adversarial/{key}': 1e-3 * losses.relativistic_generator(fake, real),
        f'terms/d_total/{key}': losses.relativistic_discriminator(real, fake),
        f'terms/d_real/{key}': mean(real > fake.mean()),
        f'terms/d_fake/{key}': mean(fake < real.mean())}
  assert terms.keys() == expected.keys()
  for name, value in expected.items():
    assert terms[name] == pytest.approx(float(value), rel=1e-4), name
  assert terms['terms/pixel/train'] != terms['terms/pixel/valid']


def curve(*values, count=12):
  """Straight lines through values."""
  return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(values)), values)


@pytest.mark.parametrize(('train_curve', 'valid_curve', 'expected'), [
    (curve(4, 3, 2.5), curve(4.2, 3.5, 4.0), True),
    (curve(4, 3, 2), curve(4, 4.5, 5), True),  # from the start
    (curve(4, 3, 2), curve(4.2, 3.9, 3.8), False),  # learns, far apart as they are
    (curve(3, 3.5, 4), curve(3.1, 3.6, 4.2), False),  # gives it up on both
    (curve(3, 2.5, 2.5), curve(3, 2.5, 2.5), False),  # has converged
    (curve(4, 3, 2), curve(4, 4.005, 4.01), False),  # by a quarter of a percent
    (curve(4, 3, 2), curve(4, 3, 3, 3, 3, 3.5), False),  # at the very end: once is no fact
    (curve(4, 2), curve(4, 5, count=2), False)])
def test_overfitting_is_what_is_better_here_and_worse_there(train_curve, valid_curve, expected):
  assert watch.overfits(train_curve[:len(valid_curve)], valid_curve) == expected


def test_chance_is_no_overfitting():
  """Validation values about one level, training values that fall."""
  rng = np.random.default_rng(0)
  claims = [watch.overfits(np.linspace(4, 3, count) + rng.normal(0, 0.04, count),
                           4 + rng.normal(0, 0.04, count))
            for count in (8, 20, 60, 200) for _ in range(100)]
  assert sum(claims) <= 12  # of 400


def test_the_lines_at_the_end():
  def line(step, phase, **terms):
    return {'step': step, 'phase': phase, **{name.replace('__', '/'): value
                                             for name, value in terms.items()}}

  assert watch.describe_terms([]) == []
  lines = [{'step': 0, 'phase': 'bicubic', 'valid/psnr_y': 1.0},
           line(2, 'warm-up', terms__pixel__train=9.0, terms__pixel__valid=9.0)]
  assert watch.describe_terms(lines) == [
      'pixel: train 9, validation 9, lowest 9 at step 2']
  for step, (mine, other) in enumerate(zip(curve(0.04, 0.03), curve(0.05, 0.045, 0.06),
                                           strict=True)):
    lines.append(line(10 * step + 10, 'gan', terms__pixel__train=mine, terms__pixel__valid=other,
                      terms__adversarial__train=mine, terms__adversarial__valid=other,
                      terms__d_real__train=0.5 + mine, terms__d_real__valid=0.5 - mine,
                      terms__perceptual__train=None, terms__perceptual__valid=1.0))
    lines.append({'step': 10 * step + 15, 'phase': 'gan', 'g/pixel': 1.0})
  assert watch.describe_terms(lines) == [
      'pixel: train 0.04 to 0.03, validation 0.05 to 0.06, lowest 0.04545 at step 60: it rose '
      'while train fell on, the generator overfits',
      'adversarial: train 0.04 to 0.03, validation 0.05 to 0.06, lowest 0.04545 at step 60',
      'd_real: train 54% to 53%, validation 46% to 47%']
