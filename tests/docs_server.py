"""Runs `sr-jax` and `python` for the pages, in forks of one process that has imported everything.

  python -m tests.docs_server SOCKET    serves until it is killed

A command of a page would spend most of its time on importing JAX. Here `sr-jax` and `python` on the
PATH are `CLIENT`, which sends its arguments and its open files to the server; a fork of it then is
what a new process would be: own folder, environment, modules, flags, signals and exit status.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pathlib
import pkgutil
import runpy
import select
import signal
import socket
import sys
import traceback
import types
from typing import Any, NoReturn

import sr_jax
from tests import docs_small

CLIENT = """#!{python} -IS
import json, os, socket, sys
name = os.path.basename(sys.argv[0])
argv = sys.argv[1:]
if name != 'sr-jax' and not (argv and (argv[0] in ('-m', '-c') or argv[0].endswith('.py'))):
    os.execv({python!r}, [{python!r}] + argv)
server = socket.socket(socket.AF_UNIX)
server.connect(os.environ['DOCS_SERVER'])
request = dict(argv=[name] + argv, folder=os.getcwd(), environment=dict(os.environ))
socket.send_fds(server, [json.dumps(request).encode() + b'\\n'], [0, 1, 2])
sys.exit(int(server.makefile().readline() or 1))
"""
# Modules that are started as __main__ and define absl flags, which may be defined only once.
NOT_IMPORTED = ('sr_jax.main', 'sr_jax.__main__')


def write_clients(folder: pathlib.Path) -> None:
  """Writes the commands `sr-jax`, `python` and `python3` into a folder for the PATH."""
  for name in ('sr-jax', 'python', 'python3'):
    (folder / name).write_text(CLIENT.format(python=sys.executable))
    (folder / name).chmod(0o755)


def import_everything() -> None:
  """Imports all modules of sr_jax that can be imported here."""
  for module in pkgutil.walk_packages(sr_jax.__path__, 'sr_jax.'):
    if module.name not in NOT_IMPORTED:
      with contextlib.suppress(ImportError):  # of an optional package
        importlib.import_module(module.name)


def serve(path: str) -> None:
  """Answers every connection in a fork."""
  listener = socket.socket(socket.AF_UNIX)
  listener.bind(path)
  listener.listen()
  gc.collect()
  gc.disable()  # going through all that was imported takes a third of many commands
  gc.freeze()
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks are not waited for
  while True:
    connection, _ = listener.accept()
    if not os.fork():
      listener.close()
      signal.signal(signal.SIGCHLD, signal.SIG_DFL)
      _answer(connection)
      os._exit(0)  # what runs a command has left by its own exit
    connection.close()


def _answer(connection: socket.socket) -> None:
  """Runs a request and sends its exit status; ends it if the client is gone."""
  data, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
  while not data.endswith(b'\n'):
    data += connection.recv(1 << 16)
  request = json.loads(data)
  for number, file in enumerate(files):
    os.dup2(file, number)
    os.close(file)
  os.chdir(request['folder'])
  os.environ.clear()
  os.environ.update(request['environment'])
  sys.path[0] = ''
  if not request['argv']:
    _run_blocks(connection)
    return
  child = os.fork()
  if not child:
    connection.close()
    _run_and_leave(request['argv'])
  while not select.select([connection], [], [], 0.005)[0]:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
      connection.send(b'%d\n' % os.waitstatus_to_exitcode(status))
      return
  os.kill(child, signal.SIGTERM)


def _run_and_leave(argv: list[str]) -> NoReturn:
  """Runs a command and ends the process as it asks for.

  What was imported is not cleaned up, which would take longer than many commands.
  """
  status = [1]

  def leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status[0])

  atexit.register(leave)  # called after threads have ended and what the command registers is done
  try:
    _run(argv)
  except SystemExit as stop:
    status[0] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    raise


def _run(argv: list[str]) -> NoReturn:
  """Becomes `sr-jax ...`, `python -m ...`, `python -c ...` or `python FILE ...`, until its exit."""
  command, *rest = argv
  if command == 'sr-jax':
    rest = ['-m', 'sr_jax', *rest]
  what, *sys.argv[:] = rest
  if what == '-m':
    module = sys.argv[0]
    if module.split('.')[0] == 'sr_jax':
      sys.argv[1:] = docs_small.shrink(module, sys.argv[1:])
    else:
      docs_small.shrink_configs()
    docs_small.use_stand_ins()
    sys.modules.pop(module, None)  # runpy warns of a module that is imported already
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  elif what == '-c':
    docs_small.use_stand_ins()
    docs_small.shrink_configs()
    code, sys.argv[0] = sys.argv[0], '-c'
    exec(compile(code, '<string>', 'exec'), _new_main())
  else:
    docs_small.use_stand_ins()
    docs_small.shrink_configs()
    sys.argv.insert(0, what)
    sys.path[0] = str(pathlib.Path(what).parent.absolute())
    runpy.run_path(what, run_name='__main__')
  sys.exit()


def _new_main() -> dict[str, Any]:
  """Returns the namespace of a new module __main__."""
  sys.modules['__main__'] = module = types.ModuleType('__main__')
  return module.__dict__


def _run_blocks(connection: socket.socket) -> None:
  """Runs the Python blocks of a page in one namespace; sends '' or what they raised."""
  namespace = _new_main()
  docs_small.use_stand_ins()
  docs_small.shrink_configs()
  with connection.makefile('r') as requests:
    for line in requests:
      code, page = json.loads(line)
      fault = ''
      try:
        exec(compile(code, page, 'exec'), namespace)
      except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = [frame.lineno for frame in frames if frame.filename == page]
        at += [error.lineno] if isinstance(error, SyntaxError) else []
        fault = f'{at[-1] if at else 1}\n{traceback.format_exc()}'
      sys.stdout.flush()
      connection.send(json.dumps(fault).encode() + b'\n')


if __name__ == '__main__':
  import_everything()
  serve(sys.argv[1])
