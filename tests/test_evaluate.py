"""A generator over benchmark sets: what is scored, printed and written."""

import json

import jax
import numpy as np
import pytest

from sr_jax import build_data, evaluate, images, restore, score
from sr_jax.data.benchmarks import find_set, read_set
from sr_jax.errors import InputError
from sr_jax.models import MSRRESNET

# Our own reference computation, and what papers print, of bicubic's luma PSNR and SSIM.
BICUBIC = {
    ('Set5', 2): (33.674, 0.9303, 33.66, 0.9299), ('Set5', 3): (30.405, 0.8689, 30.39, 0.8682),
    ('Set5', 4): (28.430, 0.8111, 28.42, 0.8104), ('Set14', 2): (30.232, 0.8691, 30.24, 0.8688),
    ('Set14', 3): (27.539, 0.7745, 27.55, 0.7742), ('Set14', 4): (25.997, 0.7029, 26.00, 0.7027)}


@pytest.mark.parametrize(('name', 'scale'), BICUBIC)
def test_bicubic_has_the_reference_figures(assets, name, scale):
  scores = evaluate.score_set(read_set(find_set(str(assets / name), scale), scale),
                              lambda lr: images.imresize(lr, scale),
                              score.make_scorer(scale, 'none'))
  found = score.mean(scores)
  psnr, ssim, published_psnr, published_ssim = BICUBIC[name, scale]
  assert found['psnr_y'] == pytest.approx(psnr, abs=2e-3)
  assert found['ssim_y'] == pytest.approx(ssim, abs=2e-4)
  assert found['psnr_y'] == pytest.approx(published_psnr, abs=0.02)
  assert found['ssim_y'] == pytest.approx(published_ssim, abs=1e-3)


@pytest.fixture(scope='module')
def network():
  model = MSRRESNET(features=4, blocks=1, scale=2)
  return model, model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))


def test_grey_stays_grey(picture, network):
  model, variables = network
  upscale = restore.make_upscaler(model)
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
      'one-7', 'one-7.json', 'one-7.md', 'two-7', 'two-7.json', 'two-7.md']
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
  np.testing.assert_array_equal(sr, restore.make_upscaler(network[0])(network[1], own))
  # The figures are of these pictures and this LR.
  assert results['two']['images']['a'] == score.make_scorer(2, 'none')(sr, hr, own)
  assert results['two']['bicubic']['images']['a']['psnr_lr'] > (
      results['two']['images']['a']['psnr_lr'])


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
  assert build_data.split_sets('a, pairs:HR=x,LR=y,match=content,b,tfds:coco:test,') == [
      'a', 'pairs:HR=x,LR=y,match=content', 'b', 'tfds:coco:test']
