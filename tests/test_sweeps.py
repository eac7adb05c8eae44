"""Reports of folders of runs: which runs they contain, the table, and the limited curves."""

import fcntl
import json
import re

import pytest

from sr_jax.errors import InputError
from sr_jax.report import __main__ as cli
from sr_jax.report import history, overview, sweeps
from sr_jax.report import page as report_page
from tests.test_report import STARTED, lines_of, make  # noqa: F401 (make is a fixture)


def scored(gain, lpips=None):
  """Log lines of a run that is `gain` dB better at each validation."""
  lines = lines_of(400)
  for line in lines[1:]:
    if 'valid/psnr_y' in line:
      line['valid/psnr_y'] += gain
      if lpips is not None:
        line['valid/lpips_alex'] = lpips
  return lines


@pytest.fixture
def sweep(make, tmp_path):  # noqa: F811
  """sweep({name: (lines, changes of the config)}) -> a folder of runs."""
  def sweep(runs):
    folder = tmp_path / 'rates'
    folder.mkdir()
    for name, (lines, changes) in runs.items():
      make(f'rates/{name}', lines, **changes)
    return folder
  return sweep


def rate(value):
  return {'optimizer': {'g': {'learning_rate': value}}}


def rows_of(text):
  """The cells of the table of the runs, row by row, as text."""
  table = re.search('<table class="metrics overview">.*?</table>', text)[0]
  return [[re.sub('<[^>]*>', '', cell) for cell in re.findall('<t[hd]>(.*?)</t[hd]>', row)]
          for row in table.split('</tr>')[:-1]]


def data_of(text):
  return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def test_a_folder_of_runs_has_one_page_with_a_row_for_each(sweep, call):
  folder = sweep({'1e-3': (scored(0.5, 0.25), rate(1e-3)), '3e-4': (scored(1, 0.375), rate(3e-4)),
                  '1e-4': (scored(0, 0.5), rate(1e-4))})
  assert call(cli.main, str(folder)) == (0, f'{folder}/report.html\n', '')
  text = (folder / 'report.html').read_text()
  assert '<h1>rates</h1>' in text
  assert '3 runs, all finished' in text
  head, *rows = rows_of(text)
  assert head == ['', 'optimizer.g.learning_rate', 'best step', 'PSNR of luma, dB',
                  'LPIPS (AlexNet)', 'steps', 'time']
  assert rows == [
      ['bicubic', '', '', '20.00', '', '', ''],
      ['1e-4', '0.0001', '400', '24.00 (+4.00)', '0.5000', '400', '1:01:05'],
      ['3e-4', '0.0003', '400', '25.00 (+5.00)', '0.3750', '400', '1:01:05'],
      ['1e-3', '0.001', '400', '24.50 (+4.50)', '0.2500', '400', '1:01:05']]
  assert re.findall('<b>([0-9.]+)</b>', text) == ['25.00', '0.2500']  # the best of each metric
  assert re.findall('class="swatch" data-run="(.)"', text) == ['0', '1', '2']
  psnr = data_of(text)['charts'][0]
  assert [line['run'] for line in psnr['lines']] == [0, 1, 2, None]
  assert text.index('overview') < text.index('data-chart') < text.index('Trends of each run')


def test_many_runs_stay_readable(sweep):
  folder = sweep({f'run{index}': (scored(index % 10 / 10), {'seed': index})
                  for index in range(15)})
  path = report_page.write([folder])
  text = path.read_text()
  rows = rows_of(text)
  assert [row[0] for row in rows[2:]] == [f'run{index}' for index in range(15)]  # 9 before 10
  data = data_of(text)
  left_out = {'run0', 'run10', 'run1'}  # of run1 and run11, equally good, the first is kept
  assert set(data['runs']) in ({f'run{index}' for index in range(15)} - left_out,
                               {f'run{index}' for index in range(15)} - {'run0', 'run10', 'run11'})
  assert len(data['runs']) == overview.MAX_SHOWN
  assert {line['run'] for line in data['charts'][0]['lines']} == {*range(12), None}
  assert 'the 12 runs that are best by psnr_y' in text
  assert path.stat().st_size < 8_000_000


def test_runs_without_validation_are_drawn_last():
  def run(values):
    return history.History(None, {}, [], {'valid/psnr_y': history.Curve(
        history.np.arange(len(values)), history.np.array(values))} if values else {}, {}, [], [],
        [], False)
  runs = [run([]), *[run([float(value)]) for value in range(12)]]
  assert overview.shown_runs(runs) == runs[1:]


def test_what_is_no_run_and_what_is_not_finished_is_named(sweep, call):
  folder = sweep({'a': (lines_of(400), {}), 'b': (lines_of(300), {'seed': 1}),
                  'c': (lines_of(100), {'seed': 2}), 'd': (lines_of(400), {})})
  (folder / 'logs').mkdir()
  (folder / '.hidden').mkdir()
  (folder / 'notes.txt').write_text('')
  (folder / 'd' / 'config.json').write_text('{')
  (folder / 'c' / 'run.json').write_text(json.dumps([STARTED]))
  with open(folder / 'c' / '.lock', 'wb') as lock:
    assert history.RunFolder(folder / 'c').lock == folder / 'c' / '.lock'
    fcntl.flock(lock, fcntl.LOCK_EX)
    status, out, _ = call(cli.main, str(folder))
  assert status == 0
  lines = out.splitlines()
  assert [line.partition(':')[0] for line in lines[:2]] == [f'{folder}/logs', f'{folder}/d']
  assert lines[2:] == ['still running: c', f'{folder}/report.html']
  text = (folder / 'report.html').read_text()
  assert '3 runs, 1 of them finished' in text
  for words in ('<b>b</b> Stopped at step 300 of 400', '<b>c</b> Running: step 100 of 400',
                f'{folder}/logs: ', f'{folder}/d: '):
    assert words in text, words
  assert [row[-2] for row in rows_of(text)[2:]] == ['400', '300 of 400', '100 of 400']


def test_runs_and_folders_of_runs_are_joined(sweep, make, tmp_path):  # noqa: F811
  folder = sweep({'x2': (lines_of(400), {}), 'x10': (lines_of(400), {})})
  other = make('other', lines_of(400))
  runs = sweeps.read([other, folder, folder / 'x2'])
  assert [run.name for run in runs.histories] == ['other', 'x2', 'x10']
  assert (runs.folder, runs.notes) == (None, [])
  assert sweeps.read([other]).folder is None
  text = report_page.write([other, folder], tmp_path / 'all.html').read_text()
  assert 'The configs are equal' in text


def test_a_folder_without_a_readable_run_is_refused(sweep, tmp_path):
  with pytest.raises(InputError, match=r'rates: .*config.json'):
    sweeps.read([sweep({})])
  (tmp_path / 'rates' / 'a').mkdir()
  with pytest.raises(InputError, match=r'rates: .*config.json'):
    sweeps.read([tmp_path / 'rates'])
  (tmp_path / 'rates' / 'a' / 'config.json').write_text('[')
  with pytest.raises(InputError, match=r'rates: .*1 run'):
    sweeps.read([tmp_path / 'rates'])


@pytest.mark.slow
def test_many_runs_in_a_browser(sweep, browser):
  folder = sweep({f'run{index}': (scored(index / 10), {'seed': index}) for index in range(15)})
  page = browser.new_page(viewport={'width': 1280, 'height': 800})
  errors = []
  page.on('pageerror', lambda error: errors.append(str(error)))
  page.goto(report_page.write([folder]).as_uri())
  page.wait_for_function('document.documentElement.dataset.drawn', timeout=30_000)
  assert errors == []
  assert page.evaluate('document.documentElement.scrollWidth') <= 1280
  colours = page.evaluate("[...document.querySelectorAll('.swatch')].map(s => s.style.background)")
  assert len(set(colours)) == len(colours) == 12
  first = page.evaluate("document.querySelector('.chart').data.map(line => line.line.color)")
  assert first[:12] == [colour.replace(' ', '') for colour in colours]
  assert page.locator('.legend').count() == 0
