"""Several processes, on one host or on many: how they join and what they tell one another.

Each runs the same program on its own devices (parallel.py), and makes of a batch's crops (where
the host makes them) its own rows. Process 0 alone has the run's folder: it reads, logs, scores
and saves, from its copy of the state, and what it has read it tells the others. So nothing of
that needs to be agreed on, and no file system be shared for it. What does need to be, `gather`
tells: through JAX's coordination service, which neither waits for the devices nor runs into the
time limits of their collectives.
"""

import contextlib
import importlib.util
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sr_jax.errors import InputError, brief
from sr_jax.system import cli

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')
SILENT_SECONDS = 60  # after which a process that gives no sign of life is lost, and all end
LONGEST_SECONDS = 24 * 3600  # that one may wait for another, which lives: it packs, it scores
LOST = ('gloo', 'nccl', 'connection', 'coordination', 'deadline', 'unavailable', 'heartbeat')


def process_env(environ: Mapping[str, str] = os.environ) -> tuple[int | None, int]:
  """(how many processes were started, the number of this one), as the environment has it.

  The three of VARIABLES say it anywhere; JAX itself knows a step of SLURM (srun) with several
  tasks, and an indexed Job of Kubernetes where the package `kubernetes` is installed, whose size
  (None) it asks for. (1, 0) is alone: a laptop, an allocation of SLURM without srun, one task.

  Raises:
    InputError: some of VARIABLES and not all, or no such numbers.
  """
  count, number = (environ.get(name) for name in VARIABLES[1:])
  if count is not None or number is not None:
    if count == '1':
      return 1, 0
    for name in VARIABLES:
      if not environ.get(name):
        raise InputError(f'{name}: is not set; {", ".join(VARIABLES)} belong together')
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
      raise InputError(f'JAX_PROCESS_ID={number}: expected 0 to JAX_NUM_PROCESSES - 1, which is '
                       f'{count}')
    if not re.fullmatch(r'.+:[0-9]+', environ[VARIABLES[0]]):
      raise InputError(f'{VARIABLES[0]}={environ[VARIABLES[0]]}: expected HOST:PORT')
    return int(count), int(number)
  if all(name in environ for name in SLURM) and int(environ['SLURM_NTASKS']) > 1:
    return int(environ['SLURM_NTASKS']), int(environ['SLURM_PROCID'])
  if {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= environ.keys() and (
      importlib.util.find_spec('kubernetes')):
    return None, int(environ['JOB_COMPLETION_INDEX'])
  if environ.get(VARIABLES[0]):  # each alone would train a run of its own
    raise InputError(f'{VARIABLES[0]}: is set and {" and ".join(VARIABLES[1:])} are not; they '
                     'belong together')
  return 1, 0


@contextlib.contextmanager
def distributed(seconds: float) -> Iterator[None]:
  """Inside, this process is one of those that were started with it; alone, nothing happens.

  For command lines, before anything else touches JAX: where one of several processes fails, it
  says so and ends at once, for it would never hear from those that wait for it. They are told
  where they listen (`gather`), or end when their devices or the coordination service miss it.

  Args:
    seconds: that the others have to join.

  Raises:
    InputError: no coordinator could be made out.
  """
  if process_env()[0] == 1:
    yield
    return
  _join(seconds)
  try:
    with _telling():
      yield
      gather(None)  # the first may still be at its tables, or say that it could not save
    jax.distributed.shutdown()
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      _leave('interrupted', 130)
    if not isinstance(error, InputError):
      traceback.print_exc()
    _leave(str(error), 1)


def _join(seconds: float) -> None:
  count, number = process_env()
  given = {}
  if VARIABLES[2] in os.environ:  # which JAX does not read itself
    given = {'coordinator_address': os.environ[VARIABLES[0]], 'num_processes': count,
             'process_id': number}
  # JAX's own handler of SIGTERM would be in the way of ours.
  jax.config.update('jax_enable_preemption_service', False)

  def give_up():
    # Where JAX's own limit is passed, C++ ends the process with a stack trace.
    at = getattr(_service(), 'coordinator_address', None) or given.get(
        'coordinator_address') or 'the coordinator'
    _leave(f'{at}: not all of {count or "the"} processes have joined there in {seconds:g} s '
           f'(config.join_seconds); this is process {number} on {socket.gethostname()}', 1)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    while not _initialized(given, seconds):
      time.sleep(1)
  except Exception as error:  # of JAX, of the clusters that it asks, of gRPC
    at = given.get('coordinator_address', 'jax.distributed')
    raise InputError(f'{at}: process {number} can not join ({brief(error, 300)})') from None
  finally:
    timer.cancel()


def _initialized(given: dict, seconds: float) -> bool:
  """False where the first pod of a Kubernetes Job has no address yet, as it waits for a node: JAX
  asks for it for less than a minute.
  """
  try:
    jax.distributed.initialize(**given, initialization_timeout=int(seconds) + 3600,
                               heartbeat_timeout_seconds=SILENT_SECONDS)
  except RuntimeError as error:
    if given or 'all attempts exhausted' not in str(error):
      raise
    return False
  return True


def _leave(message: str, status: int) -> None:
  """Without the barrier at JAX's end, at which the others, who wait elsewhere, never come."""
  with contextlib.suppress(OSError):
    sys.stdout.flush()
  cli.refuse(message, status)
  if process_env()[1] == 0:
    time.sleep(1)  # the service ends with it: who listens hears why
  os._exit(status)


def is_first() -> bool:
  """Whether this process has the run's folder and talks; one that is alone does."""
  return jax.process_index() == 0


# What is agreed on -------------------------------------------------------------------------

_round = 0  # number of the next one; all processes take the same ones


def gather(value) -> list:
  """What each process gives, a value of JSON, in their order; each waits for all.

  Raises:
    InputError: another has failed meanwhile, and says so here.
  """
  global _round
  if jax.process_count() == 1:
    return [value]
  number, me, client = _round, jax.process_index(), _service().client
  client.key_value_set(f'sr_jax/{number}/{me}', json.dumps([None, value]))
  found = [json.loads(client.blocking_key_value_get(f'sr_jax/{number}/{other}',
                                                    1000 * LONGEST_SECONDS))
           for other in range(jax.process_count())]
  for other, (failure, _) in enumerate(found):
    if failure is not None:
      raise InputError(f'process {me} ends, for process {other} has failed: {failure}')
  if number:  # who is here is through with the round before
    client.key_value_delete(f'sr_jax/{number - 1}/{me}')
  _round += 1
  return [value for _, value in found]


def broadcast_json(make: Callable[[], Any]):
  """make() of process 0, a value of JSON, for all; the others do not call it."""
  return gather(make() if is_first() else None)[0]


def refuse_different(values: Mapping[str, Any]) -> None:
  """Refuses processes that are not about the same.

  Raises:
    InputError: naming the first value that differs.
  """
  every = gather(dict(values))
  for other, theirs in enumerate(every):
    for name in (name for name in every[0] | theirs if theirs.get(name) != every[0].get(name)):
      raise InputError(f'{name} is {theirs.get(name)!r} in process {other} and '
                       f'{every[0].get(name)!r} in process 0: all are to be started alike')


def broadcast_arrays(tree):
  """Arrays of process 0, for all; the others give such of the same shapes."""
  if jax.process_count() == 1 or not jax.tree.leaves(tree):
    return tree
  gather(None)  # the devices wait for nobody who is still at work elsewhere
  leaves, structure = jax.tree.flatten(tree)
  arrays = [np.asarray(leaf) for leaf in leaves]
  # As bytes: zeros are added to them, which would make of -0.0 another zero.
  told = multihost_utils.broadcast_one_to_all(
      [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays])
  return jax.tree.unflatten(structure, [
      jnp.asarray(np.asarray(found).view(array.dtype).reshape(array.shape))
      for found, array in zip(told, arrays, strict=True)])


@contextlib.contextmanager
def _telling() -> Iterator[None]:
  """Inside, an error of this process is told to the others, where they listen next."""
  try:
    yield
  except Exception as error:
    text = brief(error, 300).splitlines()[0] if str(error) else type(error).__name__
    with contextlib.suppress(Exception):  # the service may be what is gone
      _service().client.key_value_set(f'sr_jax/{_round}/{jax.process_index()}',
                                      json.dumps([text, None]), allow_overwrite=True)
    if isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in str(error).lower() for word in LOST):
      raise InputError(f'process {jax.process_index()} ends, for another was lost ({text}); the '
                       'same command goes on from the last checkpoint') from None
    raise


def _service():
  """JAX's coordination service, which has no other name; Orbax uses it likewise."""
  from jax._src import distributed
  return distributed.global_state
