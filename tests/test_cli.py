"""The exit status of a command whose output streams are broken."""

import pathlib
import subprocess
import sys

import pytest

from sr_jax.errors import InputError
from sr_jax.system import cli


def test_the_status_is_kept_if_no_message_can_be_printed() -> None:
  code = ('import sys; from sr_jax.system import cli; '
          'sys.exit(cli.run(lambda: cli.refuse("y", 129)))')
  with open('/dev/full', 'w') as full:
    assert subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full).returncode == 129


def test_fields_are_literals_or_text() -> None:
  assert cli.parse_fields(['a=0.1', 'b=relu', 'c=[1, 2]', 'd==']) == {
      'a': 0.1, 'b': 'relu', 'c': [1, 2], 'd': '='}
  for setting in ('a', 'a=', '=1', '1=a'):
    with pytest.raises(InputError, match=f'--set {setting}: '):
      cli.parse_fields([setting])
  with pytest.raises(InputError, match='--set a=2: '):
    cli.parse_fields(['a=1', 'a=2'])


def test_the_parser_raises_instead_of_exiting() -> None:
  parser = cli.Parser('prog', 'First line.\n\n  prog --example\n')
  parser.add_argument('--output', type=cli.path)
  assert '\n  prog --example\n' in parser.format_help()
  assert parser.parse_args(['--output', 'a']).output == pathlib.Path('a')
  for arguments, message in ((['--output', ''], '--output: .*empty'),
                             (['--outpu', 'a'], '--outpu')):
    with pytest.raises(InputError, match=message):
      parser.parse_args(arguments)
