"""sr-jax examples: the sheet shows the batch of a step, with what its degradations have drawn."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ImageFont

from sr_jax import images
from sr_jax.data import feed
from sr_jax.data.degradations.jpeg import jpeg
from sr_jax.errors import InputError
from sr_jax.experiment import inputs
from sr_jax.experiment.check import check
from sr_jax.report import sheet
from sr_jax.report.sheet import Row, draw_sheet
from sr_jax.system import files
from sr_jax.train import examples


@pytest.fixture
def run_config(config, folder, tmp_path):
  """x2, batches of four 16-pixel crops with their own draws of JPEG."""
  config.data.source, config.data.cache = f'folder:{folder}', str(tmp_path / 'cache')
  config.data.degrade.name, config.data.degrade.margin = 'jpeg', 4
  return config


def read(config, number):
  config = check(config)
  spec = inputs.build_feed_spec(config, device_loop=False)
  return examples.read_examples(inputs.training_set(config), spec, number)


def batch_of_step(config, number):
  """The batch as a step takes it: step `number` of the log is the one that begins at one less."""
  config = check(config)
  made = feed.open_feed(inputs.training_set(config), inputs.build_feed_spec(config, False),
                        number - 1, lambda line: None)
  return jax.jit(made.batch_at)(made.source_for(number - 1, number), jnp.int32(config.seed),
                                jnp.int32(number - 1))


@pytest.mark.parametrize('degraded', [True, False])
def test_examples_are_the_batch_of_the_step(run_config, degraded):
  if not degraded:
    run_config.data.degrade.update({'name': 'none', 'margin': None})
  run_config.seed = 3
  shown, batch = read(run_config, 4), batch_of_step(run_config, 4)
  assert shown.batch.keys() == batch.keys()
  for name, array in batch.items():
    np.testing.assert_array_equal(shown.batch[name], array, err_msg=name)
  assert bool(shown.words[0]) == degraded
  if not degraded:
    assert (read(run_config, 1).batch['hr'] != batch['hr']).any()


def test_the_words_are_those_of_the_images_beside_them(run_config):
  """LR that is made again from HR by what the words say is the LR that is shown."""
  run_config.scale, run_config.data.degrade.margin = 1, 0
  run_config.data.degrade.jpeg.subsampling = 0.5
  run_config.generator.update({'name': 'compact', 'kernel': None})
  shown = read(run_config, 2)
  words = [re.fullmatch(r'JPEG of quality (\d+), (4:2:0|4:4:4)', lines[-1]).groups()
           for lines in shown.words]
  qualities, subsampled = zip(*words, strict=True)
  hr = shown.batch['hr']
  again = jax.jit(jpeg)(hr, jnp.full((len(hr), 2), hr.shape[1]), np.array(qualities, int),
                        np.array(subsampled) == '4:2:0')
  np.testing.assert_array_equal(images.to_uint8(again), images.to_uint8(shown.batch['lr']))
  assert len(set(words)) > 1


def test_a_sheet_has_repeated_pixels_and_its_text():
  rng = np.random.default_rng(0)
  small, large = (rng.integers(0, 256, (side, side, 3), np.uint8) for side in (5, 20))
  long = 'blur: generalised anisotropic Gaussian, 21x21, sigma 2.1 and 2.9, turned by 3 degrees'
  page = draw_sheet('Step 1', [Row({'LR': small, 'HR': large}, ['Example 1', long])] * 2)
  factor = round(sheet.SIDE / 20)
  top = next(row for row in range(page.shape[0]) if (page[row, sheet.GAP] == small[0, 0]).all())
  side = 20 * factor
  for column, image in enumerate((small, large)):
    left = sheet.GAP + column * (side + sheet.GAP)
    repeat = side // image.shape[0]
    for first in (top, top + side + sheet.GAP):
      drawn = page[first:first + side, left:left + side]
      np.testing.assert_array_equal(drawn, image.repeat(repeat, 0).repeat(repeat, 1))
  font = ImageFont.load_default(sheet.TEXT_SIZE)
  lines = sheet._broken([long], font)
  assert ' '.join(line.strip() for line in lines) == long
  assert len(lines) > 1
  assert all(font.getlength(line) <= sheet.TEXT_WIDTH + font.getlength('   ') for line in lines)
  beside = page[top:top + side, 2 * (side + sheet.GAP) + sheet.GAP:]
  assert (beside[:, -sheet.GAP:] == 255).all()
  assert beside.min() < 50


def test_a_sheet_of_a_run(run_config, tmp_path, capsys):
  run_config.data.workers = 0
  # The run was streamed, so its examples are those of a stream.
  files.write_json(tmp_path / 'run' / 'run.json', [{'data_mode': 'stream'}])
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'run').rglob('*')}
  path = tmp_path / 'new' / 'sheet.png'
  assert examples.draw_examples(run_config, tmp_path / 'run', str(path)) == path
  out = capsys.readouterr().out
  assert f'{path}: Step 1: 4 of 4 examples; seed 0, scale 2, degradations jpeg' in out
  assert 'decoded by' in out.partition(str(path))[0].rpartition('\n')[0]
  first = images.read_image(path)
  examples.draw_examples(run_config, tmp_path / 'run', path, '2')  # it is replaced
  assert (images.read_image(path)[:first.shape[0], :300] != first[:, :300]).any()
  assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'run').rglob('*')} == before


@pytest.mark.parametrize(('output', 'step', 'message'), [
    ('', 1, '--output is missing'), ('sheet.jpg', 1, r'--output sheet\.jpg: .*\.png'),
    ('folder.png', 1, r'--output folder\.png: .*folder'), ('sheet.png', 0, '--step 0: '),
    ('sheet.png', 'latest', '--step latest: '), ('sheet.png', 2**31, '--step 2147483648: '),
    ('0.png', 1, r'0\.png: would overwrite'), ('/proc/none/sheet.png', 1, r'/proc/none/.*write')])
def test_wrong_input(run_config, folder, tmp_path, monkeypatch, output, step, message):
  (tmp_path / 'folder.png').mkdir()
  if output == '0.png':
    output = folder / output
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.glob('*'))
  with pytest.raises(InputError, match=message) as error:
    examples.draw_examples(run_config, 'run', output, step)
  assert '\n' not in str(error.value)
  assert sorted(path for path in tmp_path.glob('*') if path.name != 'cache') == before
