"""The functions through which users' files reach the code, by kind of file."""

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import images, main, restore
from sr_jax.app import upscaling
from sr_jax.data import file_hashes, pack_layout, packed, pairing, pictures
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
from sr_jax.train import announce, overfitting, previous
from tests import smallest
from tests.faults import texts

ROOT = pathlib.Path(main.__file__).parents[1]


Reader = Callable[[pathlib.Path], Any]


def of_kind(kind: str, base: pathlib.Path) -> dict[str, Reader]:
  """Returns the readers of a kind by name.

  Args:
    base: a folder for what they need in addition to the file.
  """
  if kind == 'configs':
    prepare_run(base / 'run')
  pictures_readers = {
      'photos.size': photos.size, 'photos.read': photos.read, 'image_size': images.image_size,
      'read_image': images.read_image, 'header_notes': images.header_notes, 'training': training,
      'page': lambda path: upscaling.thumbnail(path, 4_000_000)}
  return {
      **dict.fromkeys(('pictures', 'jp2', 'jxl', 'avif', 'heif'), pictures_readers),
      'safetensors': WEIGHTS | {'vgg': read_vgg}, 'pth': WEIGHTS | {'vgg': read_vgg},
      'ncnn': {'read_generator': generators.read_generator, 'load': restore.load},
      'configs': {'configs': functools.partial(read_config, base / 'run')},
      'jsonl': {'read_metrics': lambda path: metrics_log.read_metrics(path.parent),
                'describe': describe,
                'validations': lambda path: announce.validation_tables(path.parent),
                'report': read_report,
                'forget': lambda path: metrics_log.forget_after(path.parent, 30)},
      'csv': {'match_by_csv': functools.partial(read_csv, base)},
      'packed': {'open_packed': lambda path: packed.open_packed(
                     path.parent, [Picture('a', 'a.png')] * 8),
                 'hashes': lambda path: file_hashes._read_cache(
                     path.parent / file_hashes.CACHE_FILE)},
      'clips': {'read_video': read_video}}[kind]


def training(path: pathlib.Path) -> tuple[Any, Any]:
  """Plans and crops an image of a training set."""
  picture = Picture('a', path)
  plan = pack_layout.lay_out([picture], 2, 3)
  return plan.skipped, pictures.read_crops(picture, 2, 3, 8, [(0.5, 0.5)])


WEIGHTS = {'read_tensors': read_tensors, 'read_generator': generators.read_generator,
           'load': restore.load}


def read_vgg(path: pathlib.Path) -> dict[str, Any]:
  return vgg.load_vgg('vgg16', str(path), 'torchvision')


def prepare_run(folder: pathlib.Path) -> None:
  """Makes a run with an intact checkpoint."""
  if not folder.exists():
    config = texts.config()
    shapes = variable_shapes(factory.build_generator(
        config['generator'], config['scale'], config['dtype']))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    imported.save_imported(folder, variables, config, {})


def read_config(intact: pathlib.Path, path: pathlib.Path) -> Any:
  return read_run(intact, path) if path.name == 'config.json' else read_arguments(path)


def read_run(intact: pathlib.Path, path: pathlib.Path) -> None:
  """Does everything that reads the folder of a run.

  Args:
    intact: another run, whose checkpoints are used.
    path: the config.json in the run's folder.
  """
  folder, wanted = path.parent, ConfigDict(texts.config())
  if not (folder / 'checkpoints').exists():
    (folder / 'checkpoints').symlink_to(intact / 'checkpoints')

  def resume() -> None:
    step, before = previous.stopped_at(folder)
    compatibility.check_resumable(folder, before, step, wanted)
    inputs.epochs_to_steps(wanted, 7, before)

  def evaluate() -> None:
    trained = metadata.read_config(folder)
    compatibility.check_against(folder, wanted, ('generator', 'scale'))
    if 'data' in trained:
      inputs.with_split_from(wanted, trained)

  def last_start() -> tuple[Any, bool]:
    records = metadata.start_records(folder)
    record = records[-1] if records else {}
    return record.get('data_mode', ''), record.get('data_digest', '0') != '0'

  def report() -> None:
    page.render(history.read_all([folder]))

  call_all(lambda: restore.load_run(folder), resume, evaluate, last_start, report)


def call_all(*functions: Callable[[], Any]) -> None:
  """Calls all functions, then raises the last InputError if there was one."""
  refused = None
  for function in functions:
    try:
      function()
    except InputError as error:
      refused = error
  if refused:
    raise refused


def read_arguments(path: pathlib.Path) -> Any:
  """Parses and checks a command line of sr_jax.main, as far as that is possible without data."""
  argv = ['main', *json.loads(path.read_text())]
  smallest.forget_flags()
  with contextlib.chdir(ROOT):
    config = check(main.parse(argv).config)
  return phases.build(inputs.epochs_to_steps(config, 7)).phases


def read_report(path: pathlib.Path) -> str:
  (path.parent / 'config.json').write_text(json.dumps(texts.config()))
  return page.render(history.read_all([path.parent]))


def describe(path: pathlib.Path) -> Any:
  return overfitting.describe_terms(metrics_log.read_metrics(path.parent))


def read_csv(base: pathlib.Path, path: pathlib.Path) -> Any:
  for index in range(8):
    picture = base / ('lr' if index % 2 else 'hr') / f'{index // 2}.png'
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.touch()
  return pairing.match_by_csv(path, base / 'hr', base / 'lr')


def read_video(path: pathlib.Path) -> Any:
  target = path.with_name('made.mp4')
  with contextlib.suppress(FileNotFoundError):
    target.unlink()
  return video.upscale_video(lambda lr: lr.repeat(2, 0).repeat(2, 1), 2, path, target,
                             video.VideoOptions(max_pixels=1_000_000))


def offline(*_: Any, **__: Any) -> None:
  raise OSError('no network while fuzzing')


def isolate(cache: pathlib.Path) -> None:
  """Blocks downloads and moves the cache to a new folder."""
  os.environ['SR_JAX_CACHE'] = str(cache)
  os.environ.pop('SR_JAX_VGG19', None)
  vgg.pooch.retrieve = offline
  files.cache_folder().mkdir(parents=True, exist_ok=True)
