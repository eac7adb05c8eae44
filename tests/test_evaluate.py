"""A generator over benchmark sets: what is scored, printed and written."""

import json
import math

import numpy as np
import pytest

from sr_jax import evaluate, images
from sr_jax.data.benchmarks import find_set, read_set
from sr_jax.errors import InputError
from sr_jax.experiment import inputs
from sr_jax.experiment.check import check
from sr_jax.images import montage
from sr_jax.inference import correction, upscaler
from sr_jax.metrics import scorer
from sr_jax.models import MSRRESNET
from tests.conftest import filled

# Our own reference computation, and what papers print, of bicubic's luma PSNR and SSIM.
BICUBIC = {
    ('Set5', 2): (33.674, 0.9303, 33.66, 0.9299), ('Set5', 3): (30.405, 0.8689, 30.39, 0.8682),
    ('Set5', 4): (28.430, 0.8111, 28.42, 0.8104), ('Set14', 2): (30.232, 0.8691, 30.24, 0.8688),
    ('Set14', 3): (27.539, 0.7745, 27.55, 0.7742), ('Set14', 4): (25.997, 0.7029, 26.00, 0.7027)}


@pytest.mark.parametrize(('name', 'scale'), BICUBIC)
def test_bicubic_has_the_reference_figures(assets, name, scale):
  scores = scorer.score_set(read_set(find_set(str(assets / name), scale), scale),
                              lambda lr: images.imresize(lr, scale),
                              scorer.make_scorer(scale, 'none'))
  found = scorer.mean(scores)
  psnr, ssim, published_psnr, published_ssim = BICUBIC[name, scale]
  assert found['psnr_y'] == pytest.approx(psnr, abs=2e-3)
  assert found['ssim_y'] == pytest.approx(ssim, abs=2e-4)
  assert found['psnr_y'] == pytest.approx(published_psnr, abs=0.02)
  assert found['ssim_y'] == pytest.approx(published_ssim, abs=1e-3)


@pytest.fixture(scope='module')
def network():
  model = MSRRESNET(features=4, blocks=1, scale=2)
  return model, filled(model, np.zeros((1, 8, 8, 3)))


def test_grey_stays_grey(picture, network):
  model, variables = network
  upscale = upscaler.make_upscaler(model)
  lr = picture(9, 8)
  assert upscale(variables, lr).shape == (18, 16, 3)
  grey = upscale(variables, lr[..., :1])
  assert grey.shape == (18, 16, 1)
  assert grey.dtype == np.uint8


def test_tables_json_markdown_and_pictures(tmp_path, picture, network, capsys):
  hr = picture(36, 46)
  images.write_image(tmp_path / 'one' / 'HR' / 'a.png', hr)
  images.write_image(tmp_path / 'one' / 'HR' / 'b.png', hr[:35])
  own = images.imresize(hr, 1 / 2) // 2
  images.write_image(tmp_path / 'two' / 'HR_x2' / 'a.png', hr)
  images.write_image(tmp_path / 'two' / 'LRbicx2' / 'a.png', own)
  sets = {'one': find_set(str(tmp_path / 'one' / 'HR'), 2),
          'two': find_set(str(tmp_path / 'two'), 2)}
  results = evaluate.evaluate(*network, sets, 2, 'none', tmp_path / 'out', 7)
  out = capsys.readouterr().out
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
      'one-7', 'one-7-strips', 'one-7.json', 'one-7.md',
      'two-7', 'two-7-strips', 'two-7.json', 'two-7.md']
  for name in ('one', 'two'):
    saved = json.loads((tmp_path / 'out' / f'{name}-7.json').read_text())
    assert saved == results[name]
    assert (saved['scale'], saved['step']) == (2, 7)
    assert f'{name}, x2, step 7' in out
    markdown = (tmp_path / 'out' / f'{name}-7.md').read_text()
    for method, figures in (('model', saved), *((name, saved[name]) for name in ('bilinear',
                                                                                'bicubic'))):
      cells = f'{figures["mean"]["psnr_y"]:.3f}', f'{figures["mean"]["ssim_y"]:.4f}'
      assert f'| {method.ljust(8)} | {cells[0]} | {cells[1]}' in markdown
      assert f'{method.ljust(8)}  {cells[0]}  {cells[1]}' in out
  assert 'HR cropped to a multiple of 2: b\n' in out
  assert 'made' not in results['two']['protocol']['lr']
  assert 'shrunk' in results['one']['protocol']['lr']
  sr = images.read_image(tmp_path / 'out' / 'two-7' / 'a.png')
  np.testing.assert_array_equal(sr, upscaler.make_upscaler(network[0])(network[1], own))
  strip = images.read_image(tmp_path / 'out' / 'two-7-strips' / 'a.png')
  np.testing.assert_array_equal(strip, montage.side_by_side([
      own.repeat(2, 0).repeat(2, 1), images.imresize(own, 2), sr, hr]))
  # The figures are of these pictures and this LR.
  assert results['two']['images']['a'] == scorer.make_scorer(2, 'none')(sr, hr, own)
  assert results['two']['bicubic']['images']['a']['psnr_lr'] > (
      results['two']['images']['a']['psnr_lr'])


@pytest.mark.parametrize('kind', correction.KINDS)
def test_corrected_is_a_method_beside_the_model(tmp_path, picture, network, capsys, kind):
  hr = picture(36, 46)
  for name, original in {'colour': hr, 'grey': hr[..., :1]}.items():
    images.write_image(tmp_path / 'set' / f'{name}.png', original)
  sets, thresholds = {'set': find_set(str(tmp_path / 'set'), 2)}, (0.002, 0.004, 0.006)
  plain = evaluate.evaluate(*network, sets, 2, 'none', tmp_path / 'plain', 7)['set']
  assert 'corrected' not in plain
  saved = evaluate.evaluate(*network, sets, 2, 'none', tmp_path / 'out', 7, kind, thresholds)['set']
  out = capsys.readouterr().out
  assert saved == json.loads((tmp_path / 'out' / 'set-7.json').read_text())
  # A column more; what else there is stays.
  own = saved.pop('corrected')
  stated = saved['protocol'].pop('corrected')
  assert saved == plain
  assert stated.startswith(f'{kind}: ')
  assert '0.002, 0.004, 0.006 ' in stated
  assert f'corrected: {stated}' in out
  markdown = (tmp_path / 'out' / 'set-7.md').read_text()
  assert f'`corrected`: {stated}' in markdown
  assert markdown.count('| corrected | ') == 3  # two pictures and their mean
  assert f'| corrected | {own["mean"]["psnr_y"]:.3f} ' in markdown
  # The figures are of the pictures in the folder beside the model's.
  assert 'set-7, ' in out
  assert own['mean']['psnr_rgb'] > saved['mean']['psnr_rgb']  # the network has learnt nothing
  for pair in read_set(sets['set'], 2):
    sr, found = (images.read_image(tmp_path / 'out' / folder / f'{pair.name}.png')
                 for folder in ('set-7', 'set-7-corrected'))
    np.testing.assert_array_equal(sr, upscaler.make_upscaler(network[0])(network[1], pair.lr))
    bilinear = images.imresize(pair.lr, 2, 'bilinear')
    assert found.shape == pair.hr.shape
    np.testing.assert_array_equal(found, images.to_uint8(correction.correct(
        images.to_float(sr), images.to_float(bilinear), thresholds, kind)))
    assert (found != sr).any()
    assert own['images'][pair.name] == scorer.make_scorer(2, 'none')(found, pair.hr, pair.lr)


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('kind', 'median', "kind='median': expected one of none, replace, smooth"),
    ('thresholds', (), r'thresholds=\(\): expected 1 or 3 numbers'),
    ('thresholds', (0.1, 0.1), r'thresholds=\(0.1, 0.1\): expected 1 or 3 numbers'),
    ('thresholds', [0.1, -0.1, 0.1], r'thresholds=.0.1, -0.1, 0.1.: .*from 0 to 1'),
    ('thresholds', (math.nan,), r'thresholds=\(nan,\)'),
    ('thresholds', (math.inf,), r'thresholds=\(inf,\)'),
    ('thresholds', ('a',), r"thresholds=\('a',\)"), ('thresholds', (True,), r'thresholds=\(True')])
def test_a_correction_that_can_not_be_is_refused(config, key, value, message):
  config.eval.correct[key] = value
  with pytest.raises(InputError, match=rf'^config\.eval\.correct\.{message}') as caught:
    check(config)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('thresholds', [(0.1,), [0.05, 0, 1], (0, 0, 0)])
def test_thresholds_may_be_a_list_and_whole_numbers(config, thresholds):
  config.eval.correct.update({'kind': 'smooth', 'thresholds': thresholds})
  check(config)


@pytest.mark.parametrize(('spec', 'name'), [
    ('data/Set5', 'Set5'), ('data/Set5/', 'Set5'), ('data/Set5/HR', 'Set5'),
    ('folder:data/Set14/HR_x4', 'Set14'), ('data/Set5/GTmod12', 'Set5'), ('.', 'here'),
    ('data/Set5/original', 'Set5'), ('data/Set5/image_SRF_4', 'Set5'),
    ('sample:valid', 'sample-valid'), ('split:test', 'split-test'),
    ('tfds:div2k/bicubic_x4:validation', 'tfds-div2k-bicubic_x4-validation'),
    ('div2k:data/DIV2K:valid', 'DIV2K-valid'), ('div2k:data', 'DIV2K-train'),
    ('pairs:LR=low,HR=data/faces/HR', 'faces'),
    ('data/DIV2K_valid_HR', 'DIV2K_valid_HR')])
def test_names_of_sets(tmp_path, monkeypatch, spec, name):
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  assert evaluate.set_name(spec) == name


def test_sets_are_opened_by_name(tmp_path, picture, config):
  one, two = tmp_path / 'one', tmp_path / 'two'
  for folder in (one, two):
    images.write_image(folder / 'a.png', picture(20, 20))
  config.data.fraction = (0.6, 0.2, 0.2)  # of the five pictures of data.source
  config.eval.sets = f'{one}, pairs:HR={two},LR={one},split:test,sample:valid'
  opened = evaluate.open_sets(config, 2)
  assert {name: len(found) for name, found in opened.items()} == {
      'one': 1, 'two': 1, 'split-test': 1, 'sample-valid': 1}
  assert opened['two'][0].lr == one / 'a.png'


@pytest.mark.parametrize(('sets', 'message'), [
    ('{one},/nowhere', '/nowhere: no such folder'), ('{one},{one}', 'two sets are called one'),
    (' , ', r'config\.eval\.sets is empty'),
    ('split:test', r"'split:test': .*config\.data\.fraction"),
    ('split:first', r"'split:first': expected 'split:valid' or 'split:test'")])
def test_a_mistyped_set_is_refused(tmp_path, picture, config, sets, message):
  images.write_image(tmp_path / 'one' / 'a.png', picture(20, 20))
  config.eval.sets = sets.format(one=tmp_path / 'one')
  with pytest.raises(InputError, match=message):
    evaluate.open_sets(config, 2)


def test_sets_are_split_at_commas_but_those_inside_a_spec():
  assert inputs.split_sets('a, pairs:HR=x,LR=y,match=content,b,tfds:coco:test,') == [
      'a', 'pairs:HR=x,LR=y,match=content', 'b', 'tfds:coco:test']
