"""Tests of a generator on benchmark sets: what is scored, printed and written."""

import json
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax import evaluate, images
from sr_jax.data.benchmarks import find_set, read_set, set_name
from sr_jax.data.degradations import chains
from sr_jax.errors import InputError
from sr_jax.experiment import degrading, inputs
from sr_jax.experiment.check import check
from sr_jax.images import montage
from sr_jax.inference import correction, upscaler
from sr_jax.metrics import psnr_ssim, scorer, tables
from sr_jax.metrics.own import OwnMetric
from sr_jax.models import MSRRESNET
from sr_jax.report import benchmarks
from sr_jax.report.history import Evaluation
from tests import own_code
from tests.conftest import filled

# Luma PSNR and SSIM of bicubic: an independent reference computation, and papers' values.
BICUBIC = {
    ('Set5', 2): (33.674, 0.9303, 33.66, 0.9299), ('Set5', 3): (30.405, 0.8689, 30.39, 0.8682),
    ('Set5', 4): (28.430, 0.8111, 28.42, 0.8104), ('Set14', 2): (30.232, 0.8691, 30.24, 0.8688),
    ('Set14', 3): (27.539, 0.7745, 27.55, 0.7742), ('Set14', 4): (25.997, 0.7029, 26.00, 0.7027)}


@pytest.mark.parametrize(('name', 'scale'), BICUBIC)
def test_bicubic_has_the_reference_scores(assets: pathlib.Path, name: str, scale: int) -> None:
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
def network() -> tuple[nn.Module, dict]:
  model = MSRRESNET(features=4, blocks=1, scale=2)
  return model, filled(model, np.zeros((1, 8, 8, 3)))


def test_grey_stays_grey(picture: Callable, network: tuple[nn.Module, dict]) -> None:
  model, variables = network
  upscale = upscaler.make_upscaler(model)
  lr = picture(9, 8)
  assert upscale(variables, lr).shape == (18, 16, 3)
  grey = upscale(variables, lr[..., :1])
  assert grey.shape == (18, 16, 1)
  assert grey.dtype == np.uint8


def evaluate_sets(network: tuple[nn.Module, dict], sets: dict[str, list], output: pathlib.Path,
                  **options: Any) -> dict[str, dict]:
  """Evaluates a network on sets without LPIPS, as step 7."""
  return evaluate.SetEvaluator(*network, 7, output, 'none', **options).run_all(sets)


def test_tables_json_markdown_and_images(tmp_path: pathlib.Path, picture: Callable,
                                         network: tuple[nn.Module, dict],
                                         capsys: pytest.CaptureFixture[str]) -> None:
  hr = picture(36, 46)
  images.write_image(tmp_path / 'one' / 'HR' / 'a.png', hr)
  images.write_image(tmp_path / 'one' / 'HR' / 'b.png', hr[:35])
  given_lr = images.imresize(hr, 1 / 2) // 2
  images.write_image(tmp_path / 'two' / 'HR_x2' / 'a.png', hr)
  images.write_image(tmp_path / 'two' / 'LRbicx2' / 'a.png', given_lr)
  sets = {'one': find_set(str(tmp_path / 'one' / 'HR'), 2),
          'two': find_set(str(tmp_path / 'two'), 2)}
  results = evaluate_sets(network, sets, tmp_path / 'out')
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
    for method, part in (('model', saved), *((name, saved[name]) for name in tables.BASELINES)):
      cells = f'{part["mean"]["psnr_y"]:.3f}', f'{part["mean"]["ssim_y"]:.4f}'
      assert f'| {method.ljust(8)} | {cells[0]} | {cells[1]}' in markdown
      assert f'{method.ljust(8)}  {cells[0]}  {cells[1]}' in out
  assert re.search(r'cropped.* 2: b\n', out)
  assert 'bicubic' not in results['two']['protocol']['lr']
  assert 'bicubic' in results['one']['protocol']['lr']
  sr = images.read_image(tmp_path / 'out' / 'two-7' / 'a.png')
  np.testing.assert_array_equal(sr, upscaler.make_upscaler(network[0])(network[1], given_lr))
  strip = images.read_image(tmp_path / 'out' / 'two-7-strips' / 'a.png')
  np.testing.assert_array_equal(strip, montage.side_by_side([
      given_lr.repeat(2, 0).repeat(2, 1), images.imresize(given_lr, 2), sr, hr]))
  # The scores are of these images and this LR.
  assert results['two']['images']['a'] == scorer.make_scorer(2, 'none')(sr, hr, given_lr)
  assert results['two']['bicubic']['images']['a']['psnr_lr'] > (
      results['two']['images']['a']['psnr_lr'])


def test_what_reading_loses_is_printed(tmp_path: pathlib.Path, picture: Callable,
                                       network: tuple[nn.Module, dict],
                                       capsys: pytest.CaptureFixture[str]) -> None:
  (tmp_path / 'set').mkdir()
  (tmp_path / 'set' / 'deep.png').write_bytes(imagecodecs.png_encode(
      np.uint16(picture(20, 20)) * 257))
  evaluate_sets(network, {'set': find_set(str(tmp_path / 'set'), 2)}, tmp_path / 'out')
  assert '16 bits reduced to 8: 1 of 1 images (deep)' in capsys.readouterr().out


def test_a_second_evaluation_replaces_the_first(tmp_path: pathlib.Path, picture: Callable,
                                                network: tuple[nn.Module, dict]) -> None:
  for place, names in {'one': 'ab', 'two': 'b'}.items():
    for name in names:
      images.write_image(tmp_path / place / 'set' / f'{name}.png', picture(36, 46, len(place)))
  out = tmp_path / 'out'
  evaluate_sets(network, {'set': find_set(str(tmp_path / 'one' / 'set'), 2)}, out,
                correct='smooth', thresholds=(0.1,))
  before = (out / 'set-7' / 'b.png').read_bytes()
  assert (out / 'set-7-corrected' / 'a.png').exists()
  evaluate_sets(network, {'set': find_set(str(tmp_path / 'two' / 'set'), 2)}, out)
  assert sorted(str(path.relative_to(out)) for path in out.rglob('*')) == [
      'set-7', 'set-7-strips', 'set-7-strips/b.png', 'set-7.json', 'set-7.md', 'set-7/b.png']
  assert (out / 'set-7' / 'b.png').read_bytes() == before  # the same image of another set


def test_a_failed_evaluation_leaves_the_earlier_images(
    tmp_path: pathlib.Path, picture: Callable, network: tuple[nn.Module, dict],
    monkeypatch: pytest.MonkeyPatch) -> None:
  images.write_image(tmp_path / 'set' / 'a.png', picture(36, 46))
  sets, out = {'set': find_set(str(tmp_path / 'set'), 2)}, tmp_path / 'out'
  evaluate_sets(network, sets, out)
  before = sorted(out.rglob('*'))

  def fail(*arguments: Any) -> None:
    raise InputError('failed')

  monkeypatch.setattr(montage, 'centre_row', fail)
  with pytest.raises(InputError, match='failed'):
    evaluate_sets(network, sets, out)
  assert sorted(out.rglob('*')) == before


def test_the_last_table_has_the_means_of_all_sets(tmp_path: pathlib.Path, picture: Callable,
                                                  network: tuple[nn.Module, dict],
                                                  capsys: pytest.CaptureFixture[str]) -> None:
  for index in range(3):
    images.write_image(tmp_path / 'one' / f'{index}.png', picture(36, 46, index))
  images.write_image(tmp_path / 'two' / 'only.png', picture(36, 46, 3))
  results = evaluate_sets(network, {name: find_set(str(tmp_path / name), 2)
                                    for name in ('one', 'two')}, tmp_path / 'out')
  lines = capsys.readouterr().out.splitlines()
  rows = [line.split() for line in lines[-9:]]
  assert [row[:3] for row in rows[::3]] == [
      ['one', '3', 'bilinear'], ['two', '1', 'bilinear'], ['all', '4', 'bilinear']]
  assert [row[0] for row in rows if row not in rows[::3]] == ['bicubic', 'model'] * 3
  one, two, every = (float(row[1]) for row in rows[2::3])  # psnr_y of the model
  assert one == pytest.approx(results['one']['mean']['psnr_y'], abs=6e-4)
  assert every == pytest.approx((3 * one + two) / 4, abs=2e-3)
  # The images are in the files, not in the terminal.
  assert not any(line.startswith(('0 ', 'only ')) for line in lines)
  assert '| only ' in (tmp_path / 'out' / 'two-7.md').read_text()


@pytest.mark.parametrize('kind', correction.KINDS)
def test_corrected_is_a_method_beside_the_model(tmp_path: pathlib.Path, picture: Callable,
                                                network: tuple[nn.Module, dict],
                                                capsys: pytest.CaptureFixture[str],
                                                kind: str) -> None:
  hr = picture(36, 46)
  for name, original in {'colour': hr, 'grey': hr[..., :1]}.items():
    images.write_image(tmp_path / 'set' / f'{name}.png', original)
  sets, thresholds = {'set': find_set(str(tmp_path / 'set'), 2)}, (0.002, 0.004, 0.006)
  plain = evaluate_sets(network, sets, tmp_path / 'plain')['set']
  assert 'corrected' not in plain
  saved = evaluate_sets(network, sets, tmp_path / 'out', correct=kind, thresholds=thresholds)['set']
  out = capsys.readouterr().out
  assert saved == json.loads((tmp_path / 'out' / 'set-7.json').read_text())
  # The correction is added; everything else stays the same.
  corrected = saved.pop('corrected')
  stated = saved['protocol'].pop('corrected')
  assert saved == plain
  assert stated.startswith(f'{kind}: ')
  assert '0.002, 0.004, 0.006 ' in stated
  assert f'corrected: {stated}' in out
  markdown = (tmp_path / 'out' / 'set-7.md').read_text()
  assert f'`corrected`: {stated}' in markdown
  assert markdown.count('| corrected | ') == 3  # two images and their mean
  assert f'| corrected | {corrected["mean"]["psnr_y"]:.3f} ' in markdown
  # The scores are of the images in the folder beside the model's.
  assert 'set-7, ' in out
  assert corrected['mean']['psnr_rgb'] > saved['mean']['psnr_rgb']  # the network is untrained
  for pair in read_set(sets['set'], 2):
    sr, found = (images.read_image(tmp_path / 'out' / folder / f'{pair.name}.png')
                 for folder in ('set-7', 'set-7-corrected'))
    np.testing.assert_array_equal(sr, upscaler.make_upscaler(network[0])(network[1], pair.lr))
    bilinear = images.imresize(pair.lr, 2, 'bilinear')
    assert found.shape == pair.hr.shape
    np.testing.assert_array_equal(found, images.to_uint8(correction.correct(
        images.to_float(sr), images.to_float(bilinear), thresholds, kind)))
    assert (found != sr).any()
    assert corrected['images'][pair.name] == scorer.make_scorer(2, 'none')(found, pair.hr, pair.lr)


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('kind', 'median', "kind='median'.*none, replace, smooth"),
    ('thresholds', (), r'thresholds=\(\): .*1 or 3'),
    ('thresholds', (0.1, 0.1), r'thresholds=\(0.1, 0.1\): .*1 or 3'),
    ('thresholds', [0.1, -0.1, 0.1], r'thresholds=.0.1, -0.1, 0.1.: .*0 to 1'),
    ('thresholds', (math.nan,), r'thresholds=\(nan,\)'),
    ('thresholds', (math.inf,), r'thresholds=\(inf,\)'),
    ('thresholds', ('a',), r"thresholds=\('a',\)"), ('thresholds', (True,), r'thresholds=\(True')])
def test_an_invalid_correction_is_refused(config: ConfigDict, key: str, value: Any,
                                          message: str) -> None:
  config.eval.correct[key] = value
  with pytest.raises(InputError, match=rf'^config\.eval\.correct\.{message}') as caught:
    check(config)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('thresholds', [(0.1,), [0.05, 0, 1], (0, 0, 0)])
def test_thresholds_may_be_lists_and_integers(config: ConfigDict, thresholds: Any) -> None:
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
    ('data/Set5/hr', 'Set5'), ('hr:data/Set5/GT', 'Set5'), ('data/Set5/high', 'Set5'),
    ('hr:data/classes', 'classes'), ('data/DIV2K_valid_HR', 'DIV2K_valid_HR')])
def test_names_of_sets(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, spec: str,
                       name: str) -> None:
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  assert set_name(spec) == name


def test_sets_are_opened_by_name(tmp_path: pathlib.Path, picture: Callable,
                                 config: ConfigDict) -> None:
  one, two = tmp_path / 'one', tmp_path / 'two'
  for folder in (one, two):
    images.write_image(folder / 'a.png', picture(20, 20))
  config.data.fraction = (0.6, 0.2, 0.2)  # of the five images of data.source
  config.eval.sets = f'{one}, pairs:HR={two},LR={one},split:test,sample:valid'
  opened = evaluate.open_sets(config, 2)
  assert {name: len(found) for name, found in opened.items()} == {
      'one': 1, 'two': 1, 'split-test': 1, 'sample-valid': 1}
  assert opened['two'][0].lr == one / 'a.png'


def test_pairs_and_skipped_files_of_sets_are_printed(
    tmp_path: pathlib.Path, picture: Callable, config: ConfigDict,
    capsys: pytest.CaptureFixture[str]) -> None:
  images.write_image(tmp_path / 'one' / 'gt' / 'a.png', picture(20, 20))
  images.write_image(tmp_path / 'one' / 'lq' / 'a.png', picture(10, 10))
  (tmp_path / 'one' / 'gt' / 'b.tga').touch()
  config.eval.sets = str(tmp_path / 'one')
  assert evaluate.open_sets(config, 2)['one'][0].lr == tmp_path / 'one' / 'lq' / 'a.png'
  pairs, skipped = capsys.readouterr().out.splitlines()
  assert 'gt' in pairs
  assert 'lq' in pairs
  assert '1 file' in skipped
  assert 'b.tga' in skipped


@pytest.mark.parametrize(('sets', 'message'), [
    ('{one},/nowhere', '/nowhere: '), ('{one},{one}', r'config\.eval\.sets: .*\bone\b'),
    (' , ', r'config\.eval\.sets: .*empty'),
    ('split:test', r"'split:test': .*config\.data\.fraction"),
    ('split:first', r"'split:first': .*split:valid.*split:test")])
def test_an_invalid_set_is_refused(tmp_path: pathlib.Path, picture: Callable, config: ConfigDict,
                                   sets: str, message: str) -> None:
  images.write_image(tmp_path / 'one' / 'a.png', picture(20, 20))
  config.eval.sets = sets.format(one=tmp_path / 'one')
  with pytest.raises(InputError, match=message):
    evaluate.open_sets(config, 2)


def test_commas_inside_a_spec_do_not_separate_sets() -> None:
  assert inputs.parse_sets('a, pairs:HR=x,LR=y,match=content,b,tfds:coco:test,') == [
      'a', 'pairs:HR=x,LR=y,match=content', 'b', 'tfds:coco:test']


def test_an_own_metric_in_tables_and_files(tmp_path: pathlib.Path, picture: Callable,
                                           network: tuple[nn.Module, dict],
                                           capsys: pytest.CaptureFixture[str]) -> None:
  images.write_image(tmp_path / 'set' / 'a.png', picture(20, 24))
  images.write_image(tmp_path / 'set' / 'b.png', picture(20, 24, 1))
  metrics = {'error': OwnMetric(own_code.edge_error, 'tests.own_code:edge_error', 'lower'),
             'nan': OwnMetric(own_code.always_nan, 'tests.own_code:always_nan', 'higher')}
  found = {'set': find_set(str(tmp_path / 'set'), 2)}
  result = evaluate_sets(network, found, tmp_path / 'out', own=metrics)['set']
  sr, hr = (images.to_float(images.read_image(path)) for path in (
      tmp_path / 'out' / 'set-7' / 'a.png', tmp_path / 'set' / 'a.png'))
  assert result['images']['a']['error'] == pytest.approx(own_code.edge_error(sr, hr))
  written = json.loads((tmp_path / 'out' / 'set-7.json').read_text())
  assert written['better'] == {'error': 'lower', 'nan': 'higher'}
  assert 'tests.own_code:edge_error' in written['protocol']['error']
  assert 'lower is better' in written['protocol']['error']
  out = capsys.readouterr().out
  for text in (out, (tmp_path / 'out' / 'set-7.md').read_text()):
    assert f'{result["mean"]["error"]:.5g}' in text
    assert 'nan: no finite mean, 2 NaN' in text
  # The report lists the images by what is better.
  history = {'images': {'a': {'error': 1.0}, 'b': {'error': 2.0}}, 'mean': {'error': 1.5}}
  for better, order in (('lower', '>a 1<.*>b 2<'), ('higher', '>b 2<.*>a 1<')):
    evaluation = Evaluation('set', 7, history | {'better': {'error': better}}, tmp_path)
    assert re.search(order, benchmarks._best_and_worst('', evaluation, ()))


def test_an_own_metric_that_fails_names_the_image_and_leaves_nothing(
    tmp_path: pathlib.Path, picture: Callable, network: tuple[nn.Module, dict]) -> None:
  images.write_image(tmp_path / 'set' / 'a.png', picture(20, 24))
  metrics = {'mine': OwnMetric(own_code.nothing, 'tests.own_code:nothing', 'lower')}
  with pytest.raises(InputError, match=r'mine \(tests\.own_code:nothing\), image a: .*None'):
    evaluate_sets(network, {'set': find_set(str(tmp_path / 'set'), 2)}, tmp_path / 'out',
                  own=metrics)
  assert [path for path in (tmp_path / 'out').rglob('*') if path.is_file()] == []


def test_degraded_lr_is_the_same_in_every_evaluation(
    tmp_path: pathlib.Path, picture: Callable, network: tuple[nn.Module, dict],
    capsys: pytest.CaptureFixture[str]) -> None:
  for index in range(2):
    images.write_image(tmp_path / 'set' / f'{index}.png', picture(32, 40, index))
  chain, found = chains.PRESETS['jpeg'], find_set(str(tmp_path / 'set'), 2)
  strips = []
  for name in ('first', 'again', 'plain'):
    evaluator = evaluate.SetEvaluator(*network, 7, tmp_path / name, 'none',
                                      degradation=None if name == 'plain' else chain)
    result, _ = evaluator.run('set', found)
    strips.append(images.read_image(tmp_path / name / 'set-7-strips' / '1.png'))
    assert ('reduce, jpeg' in result['protocol']['lr']) == (name != 'plain')
    if name != 'plain':
      lr = strips[-1][::2, :40:2]
      hr = images.read_image(found[1].hr)
      assert result['bicubic']['images']['1']['psnr_lr'] == pytest.approx(
          psnr_ssim.image_psnr(images.imresize(images.imresize(lr, 2), 1 / 2),
                               images.imresize(hr, 1 / 2)))
  np.testing.assert_array_equal(strips[0], strips[1])
  assert (strips[0][:, :40] != strips[2][:, :40]).any()


def test_degraded_evaluation_without_a_chain_is_refused(config: ConfigDict) -> None:
  config.eval.degraded = True
  with pytest.raises(InputError, match=r"eval\.degraded=True.*data\.degrade\.name is 'none'"):
    degrading.evaluated_degradation(config)
  config.data.degrade.name = 'noise'
  assert degrading.evaluated_degradation(check(config)) == chains.PRESETS['noise']
  config.eval.degraded = False
  assert degrading.evaluated_degradation(config) is None
