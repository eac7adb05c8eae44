"""Signals: the first is held, the second is not."""

import signal
import subprocess
import sys
import textwrap

import pytest

from sr_jax.system.signals import DeferredSignals


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_is_held_back_and_the_second_is_not(number):
  before = signal.getsignal(number)
  with DeferredSignals() as held:
    signal.raise_signal(number)
    assert held.caught == number
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(number)
  assert signal.getsignal(number) == before


def test_nohup_stays_nohup():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with DeferredSignals() as held:
      signal.raise_signal(signal.SIGHUP)
    assert not held.caught
  finally:
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_second_ends_what_python_can_not_be_asked_to_end(number):
  # In C for minutes, as XLA is while it compiles: Python's handlers are not called there.
  script = textwrap.dedent('''
      import hashlib, signal
      from sr_jax.system.signals import DeferredSignals, exit_on_second_signal
      signal.signal(signal.SIGINT, signal.default_int_handler)
      with exit_on_second_signal(), DeferredSignals():
        print('ready', flush=True)
        hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
      ''')
  with subprocess.Popen([sys.executable, '-c', script], text=True, stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE) as process:
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(number)
    assert process.stderr.readline() == '\n'
    assert process.stderr.readline() == (
        f'sr_jax: {signal.Signals(number).name}: what is in hand is finished and saved; a second '
        'one ends it at once\n')
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number
