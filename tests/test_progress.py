"""Progress without a terminal: lines with the file, the percentage and the time left."""

import re
import time

import pytest

from sr_jax.system import progress


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch,
                                  capfd: pytest.CaptureFixture[str]) -> None:
  """Lines appear even while a single step of the job takes longer than the interval."""
  monkeypatch.setattr(progress, 'FIRST_SECONDS', 0.1)
  monkeypatch.setattr(progress, 'SECONDS', 0.1)
  with progress.progress('in/clip.mp4', 120, 'frames') as state:
    state.update(30)
    time.sleep(0.3)
    state.write('in/clip.mp4: a note')
    state.update(120)
    state.name = 'b.mp4'
    time.sleep(0.15)
  out, err = capfd.readouterr()
  assert err == ''
  lines = out.splitlines()
  assert re.fullmatch(r'in/clip\.mp4: 25% \(30 of 120 frames\), \d\d:\d\d elapsed, \d\d:\d\d left',
                      lines[0])
  assert 'in/clip.mp4: a note' in lines
  assert re.fullmatch(r'b\.mp4: 100% \(120 of 120 frames\), \d\d:\d\d elapsed', lines[-1])


def test_a_short_job_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
  with progress.progress('a.png', 0, 'pixels') as state:
    state.update(5)
    assert re.fullmatch(r'a\.png: \(5 pixels\), 00:00 elapsed', state.line())
  assert capfd.readouterr() == ('', '')
