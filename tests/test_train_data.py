"""Complete runs in each data mode: exact resumes, one channel, splits, damaged images."""

import json
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sr_jax import evaluate, images, restore, train
from sr_jax.data import feed, pictures
from sr_jax.errors import InputError
from sr_jax.experiment import inputs
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.train import announce
from sr_jax.train.loop import Trainer
from tests import smallest
from tests.conftest import same_bits
from tests.test_main import environment
from tests.test_train import run, stop_after

ROOT = pathlib.Path(__file__).parents[1]


def pixels_only(config):
  """Makes a config one of twelve steps of the generator alone."""
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps, config.checkpoint_every = 0, 12, 6
  config.data.workers = 0
  return config


@pytest.fixture
def pixels(config):
  return pixels_only(config)


@pytest.fixture
def short_windows(monkeypatch):
  """Batches are made for fewer steps at once than lie between two logs."""
  monkeypatch.setattr(inputs, 'MAX_WINDOW', 4)


@pytest.fixture(scope='module')
def streamed(tmp_path_factory, folder):
  """The last state of an uninterrupted run whose images are streamed."""
  config = pixels_only(smallest.get_config())
  config.data.source, config.data.mode = f'folder:{folder}', 'stream'
  return run(config, tmp_path_factory.mktemp('streamed'))


def test_a_resumed_stream_has_the_bits_of_an_uninterrupted_one(pixels, tmp_path, streamed,
                                                               short_windows):
  pixels.data.mode = 'stream'
  check_resumed(pixels, tmp_path, streamed)


@pytest.mark.slow
@pytest.mark.parametrize(('mode', 'loop'), [('mapped', 'yes'), ('mapped', 'no'), ('stream', 'yes')])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(pixels, tmp_path, mode, loop,
                                                            short_windows):
  pixels.data.mode, pixels.device_loop = mode, loop
  check_resumed(pixels, tmp_path / 'parts', run(pixels, tmp_path / 'whole'))


def check_resumed(config, workdir, expected):
  """Stops a run after six steps, resumes it and compares its last state with `expected`."""
  stop_after(config, workdir, 6)
  assert same_bits(run(config, workdir), expected) == []
  first, second = json.loads((workdir / 'run.json').read_text())
  assert first['data_mode'] == second['data_mode'] == config.data.mode
  assert first['data_digest'] == second['data_digest']


@pytest.mark.slow
def test_a_stream_stays_one_and_a_changed_set_is_reported(pixels, tmp_path, picture, capsys):
  for index in range(6):
    images.write_image(tmp_path / 'set' / f'{index}.png', picture(20, 20, index))
  pixels.data.source, pixels.data.mode = f'folder:{tmp_path / "set"}', 'stream'
  run(pixels, tmp_path / 'run', steps=2)
  pixels.data.mode = 'auto'
  run(pixels, tmp_path / 'run', steps=4)
  assert 'data settings' not in capsys.readouterr().out
  pixels.data.crops_per_picture = 2
  run(pixels, tmp_path / 'run', resume=True, steps=5)
  assert 'data settings' in capsys.readouterr().out
  images.write_image(tmp_path / 'set' / '6.png', picture(20, 20, 6))
  run(pixels, tmp_path / 'run', steps=6)
  assert 'data settings' in capsys.readouterr().out
  pixels.data.mode = 'mapped'
  run(pixels, tmp_path / 'run', resume=True, steps=7)
  assert 'data settings' in capsys.readouterr().out
  records = json.loads((tmp_path / 'run' / 'run.json').read_text())
  assert [record['data_mode'] for record in records] == ['stream'] * 4 + ['mapped']


def test_a_stream_of_damaged_images_saves_and_stops(pixels, tmp_path, picture, capsys, monkeypatch):
  for index in range(16):
    images.write_image(tmp_path / 'set' / f'{index:02}.png', picture(20, 20, index))
  pixels.data.source, pixels.data.mode = f'folder:{tmp_path / "set"}', 'stream'
  (tmp_path / 'set' / '03.png').write_text('no picture')
  pixels.data.crops_per_picture = 1  # so 16 steps are more than an epoch, which has every image
  with pytest.MonkeyPatch.context() as patch:
    meet_after_the_opening(patch)
    run(pixels, tmp_path / 'run', steps=16)
  assert '03.png: not a supported image' in capsys.readouterr().out
  record, = json.loads((tmp_path / 'run' / 'run.json').read_text())
  assert len(record['skipped_pictures']) == 1
  taken = feed._take

  def damaged(*arguments):
    if arguments[-2] == 20:  # start
      raise InputError('too many')
    return taken(*arguments)

  monkeypatch.setattr(feed, '_take', damaged)
  with pytest.raises(InputError, match='too many'):
    run(pixels, tmp_path / 'run', steps=32)
  assert Checkpoints(tmp_path / 'run', read_only=True).latest() == 20


def meet_after_the_opening(patch):
  """A stream skips an image after the lines that open a run are printed, before its first step."""
  opened = threading.Event()
  before_training, read_crops, train_loop = (announce.before_training, pictures.read_crops,
                                             Trainer.train)

  def print_then_open(*arguments):
    printed = before_training(*arguments)
    opened.set()
    return printed

  def wait_then_read(*arguments):
    assert opened.wait(60)
    return read_crops(*arguments)

  def wait_then_train(self):
    deadline = time.monotonic() + 60
    while not self._run.feed.skipped:
      assert time.monotonic() < deadline
      time.sleep(0.01)
    return train_loop(self)

  patch.setattr(announce, 'before_training', print_then_open)
  patch.setattr(pictures, 'read_crops', wait_then_read)
  patch.setattr(Trainer, 'train', wait_then_train)


@pytest.mark.slow
def test_one_channel_is_trained_scored_and_upscaled(config, tmp_path, picture, capsys):
  """Luma in and out, a third of the bytes; upscaling adds the colour."""
  for index in range(3):
    channels = slice(0, 1 if index == 1 else 3)
    images.write_image(tmp_path / 'set' / f'{index}.png', picture(20, 24, index)[..., channels])
  config.data.source = config.data.valid = f'folder:{tmp_path / "set"}'
  config.steps, config.warmup_steps, config.eval.every = 2, 0, 2
  config.data.channels = 1
  with pytest.raises(InputError, match=r'channels=1: .*add --config\.generator\.channels=1'):
    run(config, tmp_path / 'run')
  config.generator.channels, config.data.channels = 1, None  # None is the generator's number
  state = run(config, tmp_path / 'run')
  assert state.g.params.arrays()['head/kernel'].shape[2] == 1
  assert state.d.params.arrays()['Conv_0/kernel'].shape[2] == 1
  assert '3 images take 1,800 bytes packed' in capsys.readouterr().out
  config.eval.sets = str(tmp_path / 'set')
  table = evaluate.evaluate(tmp_path / 'run', config=config)['set']
  assert table['mean']['psnr_y'] > 5
  model = restore.load(tmp_path / 'run')
  assert model(picture(9, 8)).shape == (18, 16, 3)
  assert model(picture(9, 8)[..., 0]).shape == (18, 16)


def test_a_split_source_is_validated_and_tested_on_its_own_parts(pixels, tmp_path, capsys):
  pixels.data.fraction, pixels.data.valid = (0.6, 0.2, 0.2), 'split:valid'
  pixels.eval.sets = 'split:valid,split:test'
  run(pixels, tmp_path, steps=1)
  assert '3 images take' in capsys.readouterr().out
  # The split is read from the run's config.
  pixels.data.fraction, pixels.data.split_seed = (), 5
  pixels.data.source = 'folder:/nowhere'
  results = evaluate.evaluate(tmp_path, config=pixels)
  unused = next(line for line in capsys.readouterr().out.splitlines() if '(not ' in line)
  assert 'config.data.split_seed' in unused
  assert "(not 'folder:/nowhere')" in unused
  assert 'generator' not in unused
  names = [name for part in results.values() for name in part['images']]
  assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('mode', 'disk', "config.data.mode='disk': expected one of auto, bank"),
    ('channels', 2, 'config.data.channels=2'),
    ('crops_per_picture', 0, 'config.data.crops_per_picture=0'),
    ('workers', -2, 'config.data.workers=-2'), ('resize', '6x', 'config.data.resize=6x'),
    ('augment.brightness', (2.0, 0.5), 'augment.brightness'),
    ('augment.brightness', (0.5, -1.0), 'from 0 to 10'),
    ('augment.contrast', (0.5, 2.0), 'contrast=(0.5, 2.0): expected 2 numbers'),
    ('augment.mixup', (0.5, 0.0), 'augment.mixup'), ('augment.shuffle', 1.5, 'augment.shuffle'),
    ('augment.cutblur', (0.5,), 'augment.cutblur'), ('fraction', (0.5,), 'config.data.fraction'),
    ('valid', 'split:valid', "config.data.valid: 'split:valid': expected"),
    ('test', 'split:test', "config.data.test: 'split:test': expected"),
    ('split_seed', -1, 'split_seed=-1'),
    ('fraction', ('a', 'b'), 'config.data.fraction'),
    ('fraction', (0.0, 1.0), 'config.data.fraction='),
    ('augment.contrast', ('a', 'b'), 'expected 2 numbers')])
def test_invalid_values_are_refused(config, tmp_path, key, value, message):
  with config.ignore_type():
    config.update_from_flattened_dict({f'data.{key}': value})
  with pytest.raises(InputError) as error:
    train.train(config, tmp_path / 'run')
  assert message in str(error.value)
  assert not (tmp_path / 'run').exists()


def in_a_process(config, tmp_path, workdir, before_taking, at_the_end=''):
  """Trains in a process of its own that runs code before it takes the batch of step `start`."""
  (tmp_path / 'config.json').write_text(config.to_json_best_effort())
  script = textwrap.dedent('''
    import json, multiprocessing, os, pathlib, signal, sys, time
    from ml_collections import ConfigDict
    from sr_jax import train
    from sr_jax.runs.checkpoints import Checkpoints
    from sr_jax.data import feed

    take, seen = feed._take, {}
    def taking(*bound, start, stop):
    BEFORE_TAKING
      return take(*bound, start, stop)

    if __name__ == '__main__':
      feed._take = lambda *arguments: taking(*arguments[:-2], start=arguments[-2],
                                             stop=arguments[-1])
      config = ConfigDict(json.loads(pathlib.Path(sys.argv[1]).read_text()), convert_dict=True)
      train.train(config, sys.argv[2])
      AT_THE_END
  ''').replace('BEFORE_TAKING', textwrap.indent(textwrap.dedent(before_taking), '  '))
  (tmp_path / 'train.py').write_text(script.replace('AT_THE_END', at_the_end))
  return subprocess.run([sys.executable, tmp_path / 'train.py', tmp_path / 'config.json', workdir],
                        env=environment(), text=True, timeout=300,
                        capture_output=True, check=False)


def test_a_run_killed_between_a_save_and_its_manifest_continues(pixels, tmp_path, streamed):
  """Killed at the second save, so that it resumes from the first."""
  pixels.data.mode, pixels.checkpoint_every = 'stream', 3
  done = in_a_process(pixels, tmp_path, tmp_path / 'killed', '''
    if not seen:
      from sr_jax.runs import manifest
      write = manifest.write
      def kills(folder):
        seen[folder] = True
        if len(seen) == 3:
          os.kill(os.getpid(), signal.SIGKILL)
        write(folder)
      seen['patched'] = manifest.write = kills
  ''')
  assert done.returncode == -signal.SIGKILL, done.stderr
  assert Checkpoints(tmp_path / 'killed', read_only=True).steps() == [3]
  assert (tmp_path / 'killed' / 'checkpoints' / '6.saving').exists()
  assert same_bits(run(pixels, tmp_path / 'killed'), streamed) == []
  assert Checkpoints(tmp_path / 'killed', read_only=True).steps() == [9, 12]


@pytest.mark.slow
def test_a_killed_stream_continues_and_its_workers_end(pixels, tmp_path, picture):
  """SIGKILL between checkpoints, two workers, crops larger than the buffer of a pipe."""
  for index in range(12):
    images.write_image(tmp_path / 'set' / f'{index:02}.png', picture(220 + index, 210, index))
  pixels.data.source, pixels.data.mode = f'folder:{tmp_path / "set"}', 'stream'
  pixels.hr_patch, pixels.steps, pixels.checkpoint_every = 192, 40, 10
  whole = run(pixels, tmp_path / 'whole')
  pixels.data.workers = 2
  before = set(pathlib.Path('/dev/shm').glob('psm_*'))
  done = in_a_process(pixels, tmp_path, tmp_path / 'parts', '''
    if start == 27:
      while Checkpoints(sys.argv[2], read_only=True).latest() != 20:
        time.sleep(0.1)  # it is written while training goes on
      print(*(child.pid for child in multiprocessing.active_children()), flush=True)
      os.kill(os.getpid(), signal.SIGKILL)
  ''')
  assert done.returncode == -signal.SIGKILL
  workers = done.stdout.splitlines()[-1].split()
  assert len(workers) == 2
  deadline = time.monotonic() + 20
  while any(pathlib.Path('/proc', pid).exists() for pid in workers):
    assert time.monotonic() < deadline
    time.sleep(0.1)
  assert set(pathlib.Path('/dev/shm').glob('psm_*')) <= before
  assert Checkpoints(tmp_path / 'parts', read_only=True).latest() == 20
  assert same_bits(run(pixels, tmp_path / 'parts'), whole) == []


@pytest.mark.slow
def test_two_thousand_streamed_steps_take_no_more_memory(pixels, tmp_path, picture):
  """Compares the memory of the process and its workers after step 200 and at the end."""
  for index in range(40):
    images.write_image(tmp_path / 'set' / f'{index:02}.png', picture(200 + 3 * index, 300, index))
  pixels.data.source, pixels.data.mode = f'folder:{tmp_path / "set"}', 'stream'
  pixels.data.workers, pixels.steps, pixels.checkpoint_every = 2, 2001, 10_000
  done = in_a_process(pixels, tmp_path, tmp_path / 'run', '''
    if start in (200, 2000):
      processes = ['self', *(child.pid for child in multiprocessing.active_children())]
      texts = [pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text() for pid in processes]
      seen[start] = [int(text.split('Pss:')[1].split()[0]) for text in texts]
  ''', 'print(json.dumps(list(seen.values())))')
  assert done.returncode == 0, done.stderr
  early, late = json.loads(done.stdout.splitlines()[-1])
  assert len(early) == len(late) == 3
  assert sum(late) < 1.02 * sum(early), (early, late)


def test_ten_skipped_images_are_named() -> None:
  assert announce.describe_skipped([]) == []
  assert announce.describe_skipped(['a: damaged']) == ['skipped a: damaged', '1 skipped']
  lines = announce.describe_skipped([f'{index}: damaged' for index in range(65)])
  assert len(lines) == 11
  assert '65' in lines[-1]
