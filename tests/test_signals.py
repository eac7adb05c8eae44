"""DeferredSignals defers the first signal; the second one interrupts."""

import signal
import subprocess
import sys
import textwrap

import pytest

from sr_jax.system.signals import ENDING, DeferredSignals


@pytest.mark.parametrize('number', ENDING)
def test_the_first_signal_is_deferred_and_the_second_raises(number: int) -> None:
  previous = signal.getsignal(number)
  with DeferredSignals() as deferred:
    signal.raise_signal(number)
    assert deferred.caught == number
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(number)
  assert signal.getsignal(number) == previous


def test_an_ignored_sighup_stays_ignored() -> None:
  previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with DeferredSignals() as deferred:
      signal.raise_signal(signal.SIGHUP)
    assert not deferred.caught
  finally:
    signal.signal(signal.SIGHUP, previous)


def test_the_second_signal_ends_a_process_that_executes_no_bytecode() -> None:
  # Each child is inside C for minutes, as XLA is while it compiles, and runs no Python handler. One
  # interpreter imports the module and forks a child for each number.
  script = textwrap.dedent('''
      import hashlib, os, signal, sys
      from sr_jax.system.signals import ENDING, DeferredSignals, exit_on_second_signal
      for number in ENDING:
        read, write = os.pipe()
        child = os.fork()
        if not child:
          signal.signal(signal.SIGINT, signal.default_int_handler)
          signal.signal(signal.SIGHUP, signal.SIG_DFL)
          os.dup2(write, 2)
          with exit_on_second_signal(), DeferredSignals():
            print('ready', file=sys.stderr, flush=True)
            hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
        with open(read) as stderr:
          assert stderr.readline() == 'ready\\n'
          os.kill(child, number)
          lines = [stderr.readline(), stderr.readline()]
          os.kill(child, number)
          _, status = os.waitpid(child, 0)
          print(lines, os.waitstatus_to_exitcode(status), flush=True)
      ''')
  done = subprocess.run([sys.executable, '-c', script], text=True, capture_output=True, timeout=60)
  assert (done.returncode, done.stderr) == (0, '')
  results = done.stdout.splitlines()
  assert len(results) == len(ENDING)
  for number, result in zip(ENDING, results, strict=True):
    assert f"['\\n', 'sr_jax: {signal.Signals(number).name}: " in result
    assert 'second signal' in result
    assert result.endswith(f'] {128 + number}')
