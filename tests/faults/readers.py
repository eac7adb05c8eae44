"""Every way in which a user's file reaches the code, by kind of file: {kind: {name: function}}."""

import contextlib
import functools
import json
import os
import pathlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import images, main, restore
from sr_jax.app import interface
from sr_jax.data import file_hashes, packed, pairing, pictures
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, inputs, phases
from sr_jax.experiment.check import check
from sr_jax.media import photos, video
from sr_jax.models import factory, variable_shapes
from sr_jax.pretrained import generators, vgg
from sr_jax.pretrained.tensors import read_tensors
from sr_jax.report import history, page
from sr_jax.runs import imported, metadata, metrics_log
from sr_jax.system import files
from sr_jax.train import announce, overfitting, start
from tests import smallest
from tests.faults import texts

ROOT = pathlib.Path(main.__file__).parents[1]


def of_kind(kind: str, base: pathlib.Path) -> dict:
  """The readers of a kind; `base` is a folder for what they need besides the file."""
  if kind == 'configs':
    prepare_run(base / 'run')
  return {
      'pictures': {'photos.size': photos.size, 'photos.read': photos.read,
                   'image_size': images.image_size, 'read_image': images.read_image,
                   'training': training, 'page': lambda path: interface.read_photo(path, 4_000_000)},
      'safetensors': WEIGHTS | {'vgg': read_vgg}, 'pth': WEIGHTS | {'vgg': read_vgg},
      'ncnn': {'read_generator': generators.read_generator, 'load': restore.load},
      'configs': {'configs': functools.partial(read_config, base / 'run')},
      'jsonl': {'read_metrics': lambda path: metrics_log.read_metrics(path.parent), 'describe': describe,
                'validations': lambda path: announce.print_validations(path.parent),
                'report': read_report, 'forget': lambda path: metrics_log._forget_after(path, 30)},
      'csv': {'match_by_csv': functools.partial(read_csv, base)},
      'packed': {'open_packed': lambda path: packed.open_packed(path.parent),
                 'known': lambda path: file_hashes._read_cache(path.parent / file_hashes.CACHE_FILE)},
      'clips': {'read_clip': read_clip}}[kind]


def training(path):
  """Planned, packed and cut for a stream, as a picture of a training set."""
  picture = Picture('a', path)
  plan = packed.lay_out([picture], 2, 3)
  return plan.skipped, pictures.read_crops(picture, 2, 3, 8, [(0.5, 0.5)])


WEIGHTS = {'read_tensors': read_tensors, 'read_generator': generators.read_generator,
           'load': restore.load}


def read_vgg(path):
  return vgg.load_vgg('vgg16', str(path), 'torchvision')


def prepare_run(folder: pathlib.Path) -> None:
  if not folder.exists():
    config = texts.config()
    shapes = variable_shapes(factory.build_generator(
        config['generator'], config['scale'], config['dtype']))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    imported.save_imported(folder, variables, config, {})


def read_config(good: pathlib.Path, path: pathlib.Path):
  return read_run(good, path) if path.name == 'config.json' else read_arguments(path)


def read_run(good: pathlib.Path, path: pathlib.Path):
  """All that reads the folder of a run."""
  folder, wanted = path.parent, ConfigDict(texts.config())
  if not (folder / 'checkpoints').exists():
    (folder / 'checkpoints').symlink_to(good / 'checkpoints')

  def go_on():
    step, before = start.stopped_at(folder)
    compatibility.check_resumable(folder, before, step, wanted)
    inputs.epochs_to_steps(wanted, 7, before)

  def evaluate():
    trained = metadata.read_config(folder)
    compatibility.check_against(folder, wanted, ('generator', 'scale'))
    if 'data' in trained:
      inputs.with_split_from(wanted, trained)

  def last():
    earlier = metadata.start_records(folder)
    found = earlier[-1] if earlier else {}
    return found.get('data_mode', ''), found.get('data_digest', '0') != '0'

  def report():
    page.render(history.read_all([folder]))

  return all_of(lambda: restore.load_run(folder), go_on, evaluate, last, report)


def all_of(*functions):
  """Calls them all; the last refusal, if there is one, is raised."""
  refused = None
  for function in functions:
    try:
      function()
    except InputError as error:
      refused = error
  if refused:
    raise refused


def read_arguments(path):
  """A command line, as far as a run can be told to be right without its data."""
  argv = ['main', *json.loads(path.read_text())]
  sys.argv = argv  # ml_collections reads overrides from there
  smallest.forget_flags()
  with contextlib.chdir(ROOT):
    main._parse(argv)
  config = main._CONFIG.value
  check(config)
  return phases.build(inputs.epochs_to_steps(config, 7)).phases


def read_report(path):
  (path.parent / 'config.json').write_text(json.dumps(texts.config()))
  return page.render(history.read_all([path.parent]))


def describe(path):
  return overfitting.describe_terms(metrics_log.read_metrics(path.parent))


def read_csv(base: pathlib.Path, path):
  for index in range(8):
    picture = base / ('lr' if index % 2 else 'hr') / f'{index // 2}.png'
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.touch()
  return pairing.match_by_csv(path, base / 'hr', base / 'lr')


def read_clip(path):
  target = path.with_name('made.mp4')
  with contextlib.suppress(FileNotFoundError):
    target.unlink()
  return video.upscale_video(lambda lr: lr.repeat(2, 0).repeat(2, 1), 2, path, target,
                             max_pixels=1_000_000)


def offline(*_, **__):
  raise OSError('no network while fuzzing')


def alone(cache: pathlib.Path) -> None:
  """Nothing is fetched, and nobody's cache touched."""
  os.environ['SR_JAX_CACHE'] = str(cache)
  os.environ.pop('SR_JAX_VGG19', None)
  vgg.pooch.retrieve = offline
  files.cache_folder().mkdir(parents=True, exist_ok=True)
