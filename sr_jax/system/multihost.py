"""Several processes, on one host or on many: how they join and how they communicate.

Every process runs the same program on its own devices (sr_jax/system/sharding.py) and, where the
host makes the batches, makes its own rows of them. Only process 0 uses the run's folder: it reads,
logs, scores and saves from its copy of the state, and broadcasts what it has read. So the
processes need no shared file system and no agreement about files. What they must agree on goes
through `gather`: JAX's coordination service, which neither waits for the devices nor is subject to
the time limits of their collectives.
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
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sr_jax.errors import InputError, brief
from sr_jax.system import cli

PyTree = Any

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
SLURM_VARIABLES = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID',
                   'SLURM_LOCALID')
HEARTBEAT_TIMEOUT_SECONDS = 60  # a process that is silent for longer is lost, and all end
MAX_WAIT_SECONDS = 24 * 3600  # for a process that is alive but busy packing or scoring
LOST_PROCESS_WORDS = ('gloo', 'nccl', 'connection', 'coordination', 'deadline', 'unavailable',
                      'heartbeat')


def process_env(environ: Mapping[str, str] = os.environ) -> tuple[int | None, int]:
  """Returns (number of processes, index of this one) according to the environment.

  VARIABLES set them explicitly. JAX itself recognises a SLURM step (srun) with several tasks, and
  an indexed Kubernetes Job if the package `kubernetes` is installed; it asks the cluster for the
  number of processes (None). A single process, including a SLURM allocation without srun, is
  (1, 0).

  Raises:
    InputError: only some of VARIABLES are set, or their values make no sense.
  """
  count, number = (environ.get(name) for name in VARIABLES[1:])
  if count is not None or number is not None:
    if count == '1':
      return 1, 0
    for name in VARIABLES:
      if not environ.get(name):
        raise InputError(f'{name}: is not set; set all of {", ".join(VARIABLES)} or none of them')
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
      raise InputError(f'JAX_PROCESS_ID={number}: expected 0 to JAX_NUM_PROCESSES - 1, which is '
                       f'{count}')
    if not re.fullmatch(r'.+:[0-9]+', environ[VARIABLES[0]]):
      raise InputError(f'{VARIABLES[0]}={environ[VARIABLES[0]]}: expected HOST:PORT')
    return int(count), int(number)
  if all(name in environ for name in SLURM_VARIABLES) and int(environ['SLURM_NTASKS']) > 1:
    return int(environ['SLURM_NTASKS']), int(environ['SLURM_PROCID'])
  if {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= environ.keys() and (
      importlib.util.find_spec('kubernetes')):
    return None, int(environ['JOB_COMPLETION_INDEX'])
  if environ.get(VARIABLES[0]):  # otherwise each process would train a run by itself
    raise InputError(f'{VARIABLES[0]}: is set, but {" and ".join(VARIABLES[1:])} are not; set all '
                     'three or none of them')
  return 1, 0


@contextlib.contextmanager
def distributed(seconds: float) -> Iterator[None]:
  """Joins the processes that were started together for the block; does nothing for a single one.

  For command lines, before anything else uses JAX. A process that fails prints the reason and
  exits at once, because it would wait in vain for the others, which are waiting elsewhere. They
  receive the reason at their next `gather`, or end when their devices or the coordination service
  notice that it is gone.

  Args:
    seconds: how long to wait until all processes have joined.

  Raises:
    InputError: the coordinator could not be determined or reached.
  """
  if process_env()[0] == 1:
    yield
    return
  _join(seconds)
  try:
    with _report_failure():
      yield
      gather(None)  # process 0 may still print tables, or report that it could not save
    jax.distributed.shutdown()
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      _exit('interrupted', 130)
    if not isinstance(error, InputError):
      traceback.print_exc()
    _exit(str(error), 1)


def _join(seconds: float) -> None:
  """Connects this process to the others, or ends it after `seconds`."""
  count, number = process_env()
  given = {}
  if VARIABLES[2] in os.environ:  # JAX reads the address itself, but not the two numbers
    given = {'coordinator_address': os.environ[VARIABLES[0]], 'num_processes': count,
             'process_id': number}
  # JAX's own SIGTERM handler would conflict with sr_jax/system/signals.py.
  jax.config.update('jax_enable_preemption_service', False)

  def give_up() -> None:
    # At JAX's own timeout, C++ would abort the process with a stack trace.
    address = getattr(_coordination_service(), 'coordinator_address', None) or given.get(
        'coordinator_address') or 'the coordinator'
    _exit(f'{address}: not all of {count or "the"} processes have joined within {seconds:g} s '
          f'(config.join_seconds); this is process {number} on {socket.gethostname()}', 1)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    while not _initialise(given, seconds):
      time.sleep(1)
  except Exception as error:  # JAX, the cluster interfaces and gRPC raise many types
    address = given.get('coordinator_address', 'jax.distributed')
    raise InputError(
        f'{address}: process {number} cannot join ({brief(error, 300)})') from None
  finally:
    timer.cancel()


def _initialise(given: dict[str, Any], seconds: float) -> bool:
  """Initialises jax.distributed; returns whether it succeeded, or should be tried again.

  The first pod of a Kubernetes Job has no address while it waits for a node, and JAX looks for
  the address for less than a minute.
  """
  try:
    jax.distributed.initialize(**given, initialization_timeout=int(seconds) + 3600,
                               heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS)
  except RuntimeError as error:
    if given or 'all attempts exhausted' not in str(error):
      raise
    return False
  return True


def _exit(message: str, status: int) -> NoReturn:
  """Exits without JAX's shutdown barrier, which processes that wait elsewhere never reach."""
  with contextlib.suppress(OSError):
    sys.stdout.flush()
  cli.refuse(message, status)
  if process_env()[1] == 0:
    time.sleep(1)  # the service ends with this process; first let the others read the reason
  os._exit(status)


def is_first() -> bool:
  """Returns whether this process uses the run's folder and prints; a single process does."""
  return jax.process_index() == 0


# Agreement ------------------------------------------------------------------------------------

_round = 0  # number of the next `gather`; the same in all processes


def gather(value: Any) -> list[Any]:
  """Returns the values that all processes pass, in their order; waits for every process.

  Args:
    value: anything that JSON can represent.

  Raises:
    InputError: another process has failed; the message contains its reason.
  """
  global _round
  if jax.process_count() == 1:
    return [value]
  number, index, client = _round, jax.process_index(), _coordination_service().client
  client.key_value_set(f'sr_jax/{number}/{index}', json.dumps([None, value]))
  received = [json.loads(client.blocking_key_value_get(f'sr_jax/{number}/{other}',
                                                       1000 * MAX_WAIT_SECONDS))
              for other in range(jax.process_count())]
  for other, (failure, _) in enumerate(received):
    if failure is not None:
      raise InputError(f'process {index} ends because process {other} has failed: {failure}')
  if number:  # every process that takes part in this round has read the previous one
    client.key_value_delete(f'sr_jax/{number - 1}/{index}')
  _round += 1
  return [value for _, value in received]


def broadcast_json(make: Callable[[], Any]) -> Any:
  """Returns `make()` of process 0, a JSON value, in all processes; the others do not call it."""
  return gather(make() if is_first() else None)[0]


def refuse_different(values: Mapping[str, Any]) -> None:
  """Verifies that all processes have the same values.

  Raises:
    InputError: a value differs; the message names the first one.
  """
  all_values = gather(dict(values))
  first = all_values[0]
  for other, theirs in enumerate(all_values):
    for name in (name for name in first | theirs if theirs.get(name) != first.get(name)):
      raise InputError(f'{name} is {theirs.get(name)!r} in process {other} and '
                       f'{first.get(name)!r} in process 0; start all processes alike')


def broadcast_arrays(tree: PyTree) -> PyTree:
  """Returns the arrays of process 0; the other processes pass arrays of the same shapes."""
  if jax.process_count() == 1 or not jax.tree.leaves(tree):
    return tree
  gather(None)  # so that no device waits for a process that is still busy elsewhere
  leaves, structure = jax.tree.flatten(tree)
  arrays = [np.asarray(leaf) for leaf in leaves]
  # As bytes: JAX broadcasts by adding zeros, which would turn -0.0 into 0.0.
  received = multihost_utils.broadcast_one_to_all(
      [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays])
  return jax.tree.unflatten(structure, [
      jnp.asarray(np.asarray(data).view(array.dtype).reshape(array.shape))
      for data, array in zip(received, arrays, strict=True)])


@contextlib.contextmanager
def _report_failure() -> Iterator[None]:
  """Reports an error that is raised in the block to the other processes, at their next `gather`."""
  try:
    yield
  except Exception as error:
    text = brief(error, 300).splitlines()[0] if str(error) else type(error).__name__
    with contextlib.suppress(Exception):  # the service itself may be lost
      _coordination_service().client.key_value_set(
          f'sr_jax/{_round}/{jax.process_index()}', json.dumps([text, None]), allow_overwrite=True)
    if isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in str(error).lower() for word in LOST_PROCESS_WORDS):
      raise InputError(
          f'process {jax.process_index()} ends because another process was lost ({text}); the same '
          'command resumes from the last checkpoint') from None
    raise


def _coordination_service() -> Any:
  """Returns JAX's coordination service, which has no public name; Orbax uses it the same way."""
  from jax._src import distributed
  return distributed.global_state
