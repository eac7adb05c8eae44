"""Reports of runs: what is read from the folders, the content of the page, its use in a browser."""

import json
import re

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data.pictures import Pair
from sr_jax.report import __main__ as cli
from sr_jax.report import charts, gallery, headline, history
from sr_jax.report import page as report_page
from sr_jax.runs import logs, lr_strips, progress
from tests.test_train import run

CONFIG = {'steps': 400, 'warmup_steps': 200, 'scale': 2, 'best_metric': 'psnr_y',
          'generator': {'name': 'edsr', 'features': 8}, 'discriminator': {'name': 'vgg_style'},
          'data': {'source': 'folder:p'}}
STARTED = {'started': '2026-11-01T10:00:00+00:00', 'device': 'cpu', 'jax': '0.10.2',
           'parameters': {'generator': 1234, 'discriminator': 99}}
ENDED = STARTED | {'ended': '2026-11-01T11:01:05+00:00', 'total': '1:01:05'}


@pytest.fixture
def make(tmp_path, picture):
  """make('name', lines, starts, **config) -> a run folder, written without training."""
  def make(name, lines=None, starts=(ENDED,), images_kept=0, **changes):
    folder = tmp_path / name
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(CONFIG | changes))
    if starts is not None:
      (folder / 'run.json').write_text(json.dumps(list(starts)))
    if lines is not None:
      (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    for index in range(images_kept):
      hr = picture(80, 100, index)
      pair = Pair(f'sub/{index}', images.imresize(hr, 1 / 2), hr)
      for step in (0, 100, 200, 300, 400):
        progress.keep_progress(folder / 'progress', pair, np.uint8(hr * (step / 400)), step, 400)
    return folder
  return make


def lines_of(steps, every=10, **more):
  """Log lines of a run with a warm-up to step 200 and a validation every 100 steps."""
  rng = np.random.default_rng(0)
  lines = [{'step': 0, 'epoch': 0, 'phase': 'bicubic', 'valid/psnr_y': 20.0}]
  for step in range(every, steps + 1, every):
    line = {'step': step, 'epoch': 0.1, 'phase': 'warm-up' if step <= 200 else 'gan',
            'g/pixel': 1 / step + rng.normal(0, 1e-4), 'images_per_second': 50.0}
    if step > 200:
      line |= {'d/total': 1.0, 'd/real': 0.75, 'd/fake': 0.5}
    if step % 100 == 0:
      line |= {'valid/psnr_y': 20 + step / 100, 'terms/pixel/train': 0.1, 'terms/pixel/valid': 0.2}
    lines.append(line | more)
  return lines


# Reading a folder --------------------------------------------------------------------------


def test_a_log_is_read_as_curves(make):
  made = history.read(make('run', [*lines_of(400), {'step': 410, 'epoch': 1, 'phase': 'gan',
                                                    'g/pixel': None, 'g/odd': 'text', 'x/y': 1.0}]))
  assert made.curves['g/pixel'].steps.tolist() == list(range(10, 411, 10))
  assert np.isnan(made.curves['g/pixel'].values).tolist() == [False] * 40 + [True]
  assert made.curves['valid/psnr_y'].values.tolist() == [21, 22, 23, 24]
  assert made.baselines == {'bicubic': {'valid/psnr_y': 20.0}}
  assert made.phases == [('warm-up', 10), ('gan', 210)]
  assert not {'g/odd', 'x/y'} & made.curves.keys()
  assert (made.boundary, made.seconds, made.step) == (200, 3665, 410)


def test_the_last_value_of_a_step_that_was_logged_twice_counts(make):
  lines = [{'step': step, 'epoch': 0, 'phase': 'gan', 'g/pixel': float(value)}
           for step, value in ((10, 1), (20, 2), (30, 3), (20, 4))]
  curve = history.read(make('run', lines)).curves['g/pixel']
  assert (curve.steps.tolist(), curve.values.tolist()) == ([10, 20, 30], [1, 4, 3])


def test_the_latest_intact_evaluation_of_a_set_is_read(make):
  folder = make('run', lines_of(400))
  scores = {'psnr_y': 30.0, 'lpips_alex': 0.1}
  table = {'protocol': {'psnr_y': 'PSNR'}, 'scale': 2, 'mean': scores, 'images': {'a': scores}}
  for name, step, content in (('Set-5', 100, table), ('Set-5', 400, table), ('Set-5', 900, '{'),
                              ('B', 400, table | {'mean': 3}), ('B', 300, []),
                              ('C', 1, table | {'bicubic': {'mean': scores, 'images': 'x'}})):
    path = folder / 'eval' / f'{name}-{step}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
  assert [(one.set, one.step) for one in history.read(folder).evaluations] == [('Set-5', 400)]


def test_values_that_are_not_finite_are_gaps(make):
  lines = [json.dumps(line) for line in lines_of(400)]
  lines[0] = lines[0].replace('20.0', '1e999')
  lines[10] = lines[10].replace('21.0', '-1e999')
  folder = make('run', lines_of(400))
  (folder / 'metrics.jsonl').write_text('\n'.join(lines))
  read = history.read(folder)
  assert read.baselines == {'bicubic': {}}
  assert np.isnan(read.curves['valid/psnr_y'].values).tolist() == [True, False, False, False]
  text = report_page.write([folder]).read_text()
  json.loads(re.search(r'id="data">(.*?)</script>', text)[1], parse_constant=pytest.fail)


def test_checkpoints_are_listed_in_order(make):
  folder = make('run', lines_of(400))
  for name in ('200', '100', '1000', '300.saving', 'x'):
    (folder / 'checkpoints' / name).mkdir(parents=True)
  assert history.read(folder).checkpoints == [100, 200, 1000]
  assert '100, 200, 1,000' in report_page.write([folder]).read_text()


@pytest.mark.parametrize(('lines', 'starts', 'pattern'), [
    (lines_of(400), (ENDED,), 'Finished: 400 steps'),
    (lines_of(300), (ENDED,), 'Stopped at step 300 of 400'),
    (lines_of(300), (ENDED, STARTED), 'Killed.* step 300 of 400'),
    (lines_of(10), (ENDED,), 'Stopped at step 10 of 400'),
    (lines_of(10), (ENDED,), 'Only step 10 '),
    (lines_of(300), (ENDED | {'bad_steps': 7},), 'Stopped .*step 300 of 400: 7 .*non-finite'),
    (None, (STARTED,), 'Nothing has been logged'), ([], None, 'Nothing has been logged')])
def test_the_page_states_how_the_run_ended(make, lines, starts, pattern):
  folder = make('run', lines, starts)
  text = report_page.write([folder]).read_text()
  head = text[text.index('<header>'):text.index('</header>')]
  assert re.search(pattern, head)
  assert json.loads(re.search(r'id="data">(.*?)</script>', text)[1])['runs'] == ['run']


def test_a_locked_folder_is_a_running_run(make):
  folder = make('run', lines_of(300), (STARTED,))
  with logs.lock.run_lock(folder):
    assert history.status(history.read(folder)) == 'Running: step 300 of 400.'
  assert history.status(history.read(folder)).startswith('Killed')


def test_non_finite_losses_are_reported(make):
  folder = make('run', [*lines_of(300), {'step': 310, 'epoch': 1, 'phase': 'gan', 'g/pixel': None,
                                         'd/total': None, 'skipped': 10.0, 'valid/psnr_y': None}])
  pixel, d, skipped = history.warnings(history.read(folder))
  assert re.match(r'g/pixel .*non-finite .*1 of 31 .* step 310', pixel)
  assert re.match(r'd/total .*non-finite .*1 of 11 .* step 310', d)
  assert re.match(r'10 non-finite .*skipped', skipped)
  assert 'first at step 310' in report_page.write([folder]).read_text()


def test_trends_are_those_of_the_current_phase(make):
  lines = lines_of(400)
  for line in lines:
    if line['step'] > 200:
      line['g/pixel'] = 0.5
  read = history.read(make('run', lines))
  assert charts.loss_trends(read) == [
      "G's loss: pixel: no clear change in the last 35% (+0.0 ± 0.0%)",
      "D's loss: total: no clear change in the last 35% (+0.0 ± 0.0%)"]
  described = charts.trends(read)
  assert described[0] == ('2 validations in the gan phase: too few validations for a trend, which '
                          'needs 8')
  assert any(re.match('D .* 75% of the real crops .* last 35%', line) for line in described)


@pytest.mark.parametrize(('count', 'noise', 'pattern'), [
    (7, 0.0, '^7 validations in the gan phase: too few validations .* needs 8$'),
    (8, 0.0, r'^PSNR of luma rose 7\.00 dB in the last \d+%, still improving$'),
    (30, 0.0, r'^PSNR of luma rose 7\.00 dB in the last \d+%, still improving$'),
    (30, 1.0, r'^PSNR of luma: too few validations for a trend .* interval is \d\.\d\d dB wide')])
def test_no_trend_is_stated_from_few_or_noisy_validations(make, count, noise, pattern):
  rng = np.random.default_rng(1)
  lines = [{'step': 100 * index, 'epoch': 1, 'phase': 'gan', 'g/noise': rng.normal(0, 1),
            'valid/psnr_y': 20 + index + rng.normal(0, noise)} for index in range(1, count + 1)]
  folder = make('run', lines, warmup_steps=0, steps=100 * count)
  described = charts.trends(history.read(folder))
  assert len(described) == 1
  assert re.search(pattern, described[0])
  assert charts.loss_trends(history.read(folder)) == []  # its interval is above 100%
  assert '0.05 dB in psnr_y' in report_page.write([folder]).read_text()


def test_the_page_begins_with_the_best_step_against_bicubic(make):
  lines = lines_of(400)
  for line in lines:
    if 'valid/psnr_y' in line:
      line['valid/lpips_alex'] = {0: 0.4, 100: 0.5, 200: 0.25, 300: 0.2, 400: 0.3}[line['step']]
  lines.insert(1, {'step': 0, 'epoch': 0, 'phase': 'start', 'valid/psnr_y': 20.5})
  lines[-1]['valid/psnr_y'] = None  # infinite
  folder = make('run', lines, images_kept=1, best_metric='lpips_alex')
  read = history.read(folder)
  assert headline.best_validation(read) == (
      300, 'lpips_alex', {'psnr_y': 23.0, 'lpips_alex': 0.2})
  assert headline.best_validation(read._replace(
      config=read.config | {'best_metric': 'psnr_y'})).step == 300  # of the finite values
  text = report_page.write([folder]).read_text()
  table = re.search('<table class="metrics headline">.*?</table>', text)[0]
  rows = [re.sub('<[^>]*>', ' ', row).split() for row in table.split('</tr>')]
  assert rows[0] == ['bicubic', 'start', 'step', '300', ',', 'best', 'by', 'lpips_alex']
  assert rows[1] == ['PSNR', 'of', 'luma,', 'dB', '20.00', '20.50', '23.00', '(+3.00)']
  assert rows[2] == ['LPIPS', '(AlexNet)', '0.4000', '0.2000', '(-0.2000)']
  # The order of the page, and its table of contents.
  headings = re.findall('<section id="(.*?)">\n<h2>(.*?)</h2>', text)
  assert [heading for _, heading in headings] == [
      'Result', 'Trends', 'Metrics', 'Losses', 'Discriminator', 'On fixed crops', 'Training',
      'Images', 'Run']
  assert re.findall('<a href="#(section-.*?)">(.*?)</a>', text) == headings
  assert text.index('class="slider top"') < text.index('data-chart')


def test_scores_of_clean_lr_are_beside_those_of_degraded_lr(make, tmp_path):
  lines = lines_of(400)
  for line in lines:
    if 'valid/psnr_y' in line:
      line['clean/psnr_y'] = 35 - line['valid/psnr_y'] / 10
  runs = [make('one', lines, seed=1), make('two', lines, seed=2)]
  text, data = page_data(report_page.write(runs[:1]))
  table = re.search('<table class="metrics headline">.*?</table>', text)[0]
  rows = [re.sub('<[^>]*>', ' ', row).split() for row in table.split('</tr>')]
  assert rows[1][-3:] == ['20.00', '24.00', '(+4.00)']
  assert rows[2] == ['PSNR', 'of', 'luma,', 'dB,', 'clean', 'LR', '33.00', '32.60', '(-0.40)']
  assert [line['label'] for line in data['charts'][0]['lines']] == [
      'validation', 'clean LR', 'bicubic', 'bicubic of clean LR']
  text = report_page.write(runs, tmp_path / 'both.html').read_text()
  table = re.search('<table class="metrics overview">.*?</table>', text)[0]
  assert 'PSNR of luma, dB, clean LR' in table
  assert table.count('32.60 (-0.40)') == 2


def test_a_run_without_validation_has_no_best_step(make):
  lines = [{name: value for name, value in line.items() if not name.startswith('valid/')}
           for line in lines_of(400)]
  folder = make('run', lines)
  assert headline.best_validation(history.read(folder)) is None
  assert 'No validation has been logged' in report_page.write([folder]).read_text()


# Content of the page ------------------------------------------------------------------------


def page_data(path):
  text = path.read_text()
  return text, json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def test_a_page_has_every_curve_and_requests_nothing(make):
  text, data = page_data(report_page.write([make('run', lines_of(400), images_kept=2)]))
  titles = [chart['title'] for chart in data['charts']]
  assert titles == ['PSNR of luma, dB', 'pixel, weighted', "D's loss", 'Accuracy of D', 'pixel',
                    'images per second']
  psnr = data['charts'][0]
  assert psnr['lines'] == [
      {'run': 0, 'label': 'validation', 'faint': False, 'x': [100, 200, 300, 400],
       'y': [21, 22, 23, 24]}, {'run': 0, 'level': 20, 'label': 'bicubic'}]
  assert psnr['boundaries'] == [{'at': 200, 'text': 'end of the warm-up'}]
  page = text.partition('<script type="text/plain"')[0]
  assert not re.search(r'(src|href)="(?!data:|#)', page)
  assert '://' not in page
  for label in ('sub/0 (validation)', 'sub/1 (validation)', 'step 0', '25%, step 100',
                '100%, step 400'):
    assert label in page, label
  assert page.count('src="data:image/jpeg') == 2 * 8
  assert len(text) < 8_000_000
  for fact in ('edsr, 1,234 parameters, x2', '1:01:05', '50.0 images/s', 'folder:p', 'jax 0.10.2'):
    assert fact in page, fact


@pytest.mark.slow
def test_a_hundred_thousand_logged_steps_fit(make):
  folder = make('run', lines_of(1_000_000), images_kept=3, steps=1_000_000)
  path = report_page.write([folder])
  assert path.stat().st_size < 8_000_000
  _, data = page_data(path)
  assert max(len(line['x']) for chart in data['charts'] for line in chart['lines']
             if 'x' in line) < 2_000


def test_several_runs_are_compared(make, tmp_path):
  runs = [make('one', lines_of(400), images_kept=1), make('two', lines_of(300), images_kept=1,
                                                       scale=2, generator={'name': 'rrdb'})]
  text, data = page_data(report_page.write(runs, tmp_path / 'both.html'))
  assert data['runs'] == ['one', 'two']
  psnr = data['charts'][0]['lines']
  assert [(line['run'], line['label']) for line in psnr] == [
      (0, 'validation'), (1, 'validation'), (None, 'bicubic')]
  page = text.partition('<script type="text/plain"')[0]
  assert 'generator.name</th><td>&quot;edsr&quot;</td><td>&quot;rrdb&quot;' in page
  shown = list(gallery.progress(history.read_all(runs)))
  assert [list(image.layers) for image in shown] == [
      ['low', 'bicubic', 'one', 'two', 'original']]
  assert len(history.read_all([runs[0], runs[1] / '..' / 'one'])) == 1


def test_names_from_files_are_escaped(make):
  lines = [line | {'g/<script>alert(1)</script>': 1.0} for line in lines_of(400)]
  folder = make('<b>run', lines, data={'source': '<img src=x onerror=alert(1)>'})
  text, data = page_data(report_page.write([folder]))
  assert data['runs'] == ['<b>run']
  assert '<img src=x' not in text
  assert 'alert(1)</script>' not in text
  assert '&lt;b&gt;run' in text


def test_evaluated_images_are_in_order_of_their_gain(make, picture):
  folder = make('run', lines_of(400))
  gains = {'a': 1.0, 'b': -1.0, 'c': 0.5, 'd': 3.0}
  ours = {name: {'psnr_y': 30 + gain, 'lpips_alex': 0.1 - gain / 100}
          for name, gain in gains.items()}
  theirs = {name: {'psnr_y': 30.0} for name in gains}
  row = np.random.default_rng(0).integers(0, 256, (16, 4 * 20 + 12, 3), np.uint8)
  for name in gains:
    images.write_image(folder / 'eval' / 'Set-400-strips' / f'{name}.png', row)
  (folder / 'eval' / 'Set-400.json').write_text(json.dumps({
      'protocol': {'psnr_y': 'in dB'}, 'scale': 2, 'step': 400, 'mean': {'psnr_y': 30.9},
      'excluded': ['psnr_y: mean over 3 of 4 images, 1 infinite (identical)'],
      'images': ours, 'bicubic': {'mean': {'psnr_y': 30.0}, 'images': theirs}}))
  found = history.read_all([folder])
  assert [shown.name for shown in gallery.evaluated(found, 12)] == ['b', 'c', 'a', 'd']
  first, last = gallery.evaluated(found, 2)
  assert (first.name, last.name) == ('b', 'd')
  np.testing.assert_array_equal(last.layers['bicubic'], row[:, 24:44])
  np.testing.assert_array_equal(last.layers['original'], row[:, 72:])
  assert last.scores == {'model': ours['d'], 'bicubic': theirs['d']}
  text = report_page.write([folder]).read_text()
  best, worst = re.search('<tr><th>psnr_y</th><td>(.*?)</td><td>(.*?)</td></tr>', text).groups()
  assert (best, worst) == ('<a href="#Set/d">d</a> 33.00', '<a href="#Set/b">b</a> 29.00')
  assert '<article id="Set/d">' in text
  assert '33.00 dB, 0.0700 LPIPS' in text
  assert 'mean over 3 of 4 images, 1 infinite (identical)' in text


def test_a_damaged_montage_is_skipped(make):
  folder = make('run', lines_of(400))
  montages = folder / 'eval' / 'Set-400-strips'
  images.write_image(montages / 'a.png', np.zeros((16, 4 * 20 + 11, 3), np.uint8))
  (montages / 'b.png').write_text('no image')
  (folder / 'eval' / 'Set-400.json').write_text(json.dumps({
      'protocol': {}, 'mean': {}, 'images': {'a': {}, 'b': {}}}))
  assert list(gallery.evaluated(history.read_all([folder]), 12)) == []


def test_images_beyond_the_budget_are_counted():
  rng = np.random.default_rng(0)
  comparisons = [gallery.Comparison(str(index), 'set', {'original': rng.integers(
      0, 256, (64, 64, 3), np.uint8)}, {}) for index in range(4)]
  size = len(gallery.data_uri(comparisons[0].layers['original']))
  encoded, left = gallery.encode_within(comparisons, int(2.5 * size))
  assert ([image.name for image, _ in encoded], left) == (['0', '1'], 2)


def test_images_without_hr_are_shown_at_evenly_spread_steps(make, picture, tmp_path):
  runs = [make(name, lines_of(400)) for name in ('one', 'two')]
  lr = picture(20, 30)
  for folder, steps in zip(runs, (range(0, 401, 40), (100, 200)), strict=True):
    for step in steps:
      sr = np.full((40, 60, 3), step // 2, np.uint8)
      of_that_time = 255 - lr if step == 100 else lr  # replaced by another image since
      lr_strips.keep_strip(folder / 'lr_images', 'sub/a', of_that_time, sr, step)
  (shown,) = gallery.upscaled(history.read_all(runs[:1]))
  assert list(shown.layers) == ['low', 'bicubic', 'step 0', 'step 80', 'step 200', 'step 320',
                                'step 400']
  assert [layer[0, 0, 0] for layer in list(shown.layers.values())[2:]] == [0, 40, 100, 160, 200]
  (other,) = gallery.upscaled(history.read_all(runs[1:]))
  assert list(other.layers) == ['low', 'bicubic', 'step 200']
  (both,) = gallery.upscaled(history.read_all(runs))
  assert list(both.layers) == ['low', 'bicubic', 'one', 'two']
  text = report_page.write(runs[:1]).read_text()
  assert text.count('<h3>sub/a (no HR)</h3>') == 2  # at the top, too
  assert '<option value="6" selected>step 400</option>' in text
  (runs[0] / 'lr_images' / 'sub' / 'a-0000400.png').write_text('damaged')
  (shown,) = gallery.upscaled(history.read_all(runs[:1]))
  assert list(shown.layers)[-1] == 'step 320'


# Real runs ---------------------------------------------------------------------------------


def test_a_run_updates_its_page_and_survives_a_page_that_fails(config, tmp_path, picture,
                                                               monkeypatch, capsys):
  images.write_image(tmp_path / 'valid' / 'sub' / 'a.png', picture(20, 24))
  config.data.valid, config.eval.every = f'folder:{tmp_path / "valid"}', 20
  config.discriminator.name, config.loss.adversarial.weight, config.warmup_steps = 'none', 0.0, 0
  render, failures = report_page.render, iter([True])
  monkeypatch.setattr(report_page, 'render', lambda *arguments: (
      1 / 0 if next(failures, False) else render(*arguments)))
  run(config, tmp_path / 'run')
  assert 'report.html: ZeroDivisionError: division by zero' in capsys.readouterr().out
  text, data = page_data(tmp_path / 'run' / 'report.html')
  assert 'Finished: 40 steps' in text
  assert 'src="data:image/jpeg' in text
  assert data['charts'][0]['title'] == 'PSNR of luma, dB'
  assert re.search(r'<th>Code</th><td>[0-9a-f]{7,}', text) or '<td>unknown' in text


# The command line --------------------------------------------------------------------------


def test_the_command(call, make, tmp_path):
  folder = make('run', lines_of(400))
  assert call(cli.main, str(folder)) == (0, f'{folder}/report.html\n', '')
  other = make('other', lines_of(400))
  status, out, _ = call(cli.main, str(folder), str(other), '--output', 'both.html')
  assert (status, out) == (0, 'both.html\n')
  assert (tmp_path / 'both.html').exists()


@pytest.mark.parametrize(('arguments', 'pattern'), [
    (['nowhere'], '^sr_jax: nowhere: .*config.json'), (['run', 'other'], '--output .*missing'),
    (['run', '--output', 'x.png'], '--output x.png: .*.html'),
    (['run', '--output', 'folder.html'], 'folder.html: .*folder'),
    (['run', '--output', 'file/x.html'], 'file/x.html: .*exists'), ([], 'required: RUN'),
    (['.', 'run'], '--output .*missing')])
def test_refused_arguments(call, make, tmp_path, arguments, pattern):
  make('run', lines_of(10))
  make('other', lines_of(10))
  (tmp_path / 'folder.html').mkdir()
  (tmp_path / 'file').write_text('')
  status, _, err = call(cli.main, *arguments)
  assert status == 1
  assert re.search(pattern, err)
  assert err.count('\n') == 1


# In a browser ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(('width', 'scheme'), [(1280, 'light'), (390, 'dark')])
def test_in_a_browser(make, browser, width, scheme):
  lines = lines_of(400_000, **{'learning_rate/g': 2e-4})
  path = report_page.write([make('run', lines, images_kept=3, steps=400_000)])
  page = browser.new_page(viewport={'width': width, 'height': 800}, color_scheme=scheme,
                          has_touch=width < 600)
  logged, requested = [], []
  page.on('console', lambda message: logged.append(message.text))
  page.on('pageerror', lambda error: logged.append(str(error)))
  page.on('request', lambda request: requested.append(request.url))
  page.goto(path.as_uri())
  page.wait_for_function('document.documentElement.dataset.drawn', timeout=30_000)
  assert page.locator('.chart .main-svg').count() >= 6
  assert page.evaluate('document.documentElement.scrollWidth') <= width  # nothing overflows
  back = page.evaluate('getComputedStyle(document.body).backgroundColor')
  assert back == ('rgb(255, 255, 255)' if scheme == 'light' else 'rgb(20, 23, 27)')

  chart = page.locator('.chart').nth(1)
  chart.scroll_into_view_if_needed()
  area = chart.bounding_box()
  page.mouse.move(area['x'] + area['width'] / 2, area['y'] + area['height'] / 2)
  chart.locator('.hoverlayer text').first.wait_for()

  # A constant is drawn where it is; plotly alone would draw 0.0002 as zero between -1 and 1.
  low, high = page.evaluate("""() => [...document.querySelectorAll('.chart')].find(
      place => place._fullLayout.title.text == 'learning rate')._fullLayout.yaxis.range""")
  assert low <= 2e-4 <= high <= 1e-3
  top = page.locator('.slider.top .stage').bounding_box()
  inside = 'main => main.clientWidth - 2 * parseFloat(getComputedStyle(main).paddingLeft)'
  assert top['width'] == pytest.approx(page.locator('main').evaluate(inside), abs=1)
  assert top['height'] <= 0.7 * 800 + 1
  assert page.locator('.modebar').count() == 0 or page.evaluate(
      "matchMedia('(hover: hover)').matches")

  article = page.locator('.images article').first
  folded = article.bounding_box()['width']
  assert (folded < 0.4 * width) == (width > 600)  # three a row
  article.locator('summary').click()
  assert article.bounding_box()['width'] == pytest.approx(top['width'], abs=1)
  slider = article.locator('.slider')
  slider.scroll_into_view_if_needed()
  before = slider.locator('img.before')
  clip = before.evaluate('image => getComputedStyle(image).clipPath')
  area = slider.locator('.stage').bounding_box()
  page.mouse.click(area['x'] + 0.8 * area['width'], area['y'] + area['height'] / 2)
  assert before.evaluate('image => getComputedStyle(image).clipPath') != clip
  slider.locator('select.left').select_option(label='low')
  assert before.get_attribute('alt') == 'low'
  assert slider.locator('img:visible').count() == 2
  assert page.evaluate("[...document.querySelectorAll('.strip img')].every("
                       'image => image.naturalWidth > 0)')
  page.get_by_label('logarithmic').check()
  assert logged == []
  assert all(url.startswith(('file:', 'data:', 'blob:')) for url in requested)
