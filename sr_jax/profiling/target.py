"""sr-jax profile --target: memory and time of a config on GPUs that are not present.

Each phase is compiled as training would dispatch it on the GPU. Memory is what XLA plans. Times
are computed from the program's FLOPs, bytes and kernels and from the figures of the GPU's file in
profiling/targets. Nothing is run or measured.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.experiment import inputs
from sr_jax.experiment.check import check_given
from sr_jax.profiling import gpu_compiler, target_file, target_table
from sr_jax.profiling.target_analysis import analyse, find_data
from sr_jax.profiling.target_programs import Programs
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files


def profile_target(config: ConfigDict, workdir: os.PathLike | str, names: Sequence[str],
                   data_gib: float | None = None) -> dict[str, dict[str, Any]]:
  """Compiles a config for GPUs that are not present, and reports memory and computed times.

  Prints a block for each GPU, and writes WORKDIR/profile/target-NAME.json and the text of each
  phase's program, WORKDIR/profile/PHASE-NAME.hlo.txt; of GPUs that share a program, for the first
  of them. Other files of the folder stay. Takes minutes for each compute capability.

  Args:
    config: the experiment.
    workdir: the folder of the run, which need not exist.
    names: of `target_file.TARGETS`.
    data_gib: GiB of the packed training images; by default computed from the headers of the
      images, if they are on this machine.

  Returns:
    {name: the content of target-NAME.json}.

  Raises:
    InputError: the CUDA plugin is missing, the folder cannot be written, the config cannot be
      trained, or it fits none of the GPUs.
  """
  config = check_given(config, 'profile')
  folder = RunFolder(files.expand(workdir)).profile
  gpu_compiler.check_plugin()
  _refuse_unwritable(folder)
  data = find_data(config, data_gib)
  config = inputs.epochs_to_steps(config, data.images or 1_000 * config.batch_size)
  compiled: dict[str, Programs] = {}
  results = {}
  for name in names:
    target = target_file.read(name)
    if target.capability not in compiled:
      compiled[target.capability] = Programs(config, target_file.compiled_as(target))
    results[name] = analyse(compiled[target.capability], target, data)
    print(target_table.block(results[name]), flush=True)
  if len(names) > 1:
    print(target_table.summary(results))
  print(target_table.NOTES)
  if not any(result['fits'] for result in results.values()):
    raise InputError(target_table.nothing_fits(results))
  _write(folder, results, compiled)
  print(f'\n{folder}: target-NAME.json, and the program of each phase in PHASE-NAME.hlo.txt')
  return results


def _write(folder: pathlib.Path, results: Mapping[str, dict[str, Any]],
           compiled: Mapping[str, Programs]) -> None:
  """Writes the programs and the results; each result names the files of its programs."""
  dumped: dict[str, str] = {}  # the first target of each compute capability
  for name, result in results.items():
    capability = result['target']['capability']
    for phase, described in result['phases'].items():
      described['program'] = f'{phase}-{dumped.get(capability, name)}.hlo.txt'
      if capability not in dumped:
        files.write_text(folder / described['program'],
                         compiled[capability].step(phase).program.text)
    dumped.setdefault(capability, name)
    files.write_json(folder / f'target-{name}.json', result)


def _refuse_unwritable(folder: pathlib.Path) -> None:
  """Raises InputError if nothing can be written to the folder; leaves no trace of the attempt."""
  missing = [place for place in (folder, *folder.parents) if not place.exists()]
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise InputError(f'{folder}: cannot write the profile ({error.strerror or error})') from None
  finally:
    for place in missing:
      with contextlib.suppress(OSError):  # it was not made, or another process has written to it
        place.rmdir()
