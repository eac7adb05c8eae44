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


@pytest.mark.parametrize(('arguments', 'flag', 'similar'), [
    (['--weigths', 'X'], '--weigths', '--weights'), (['--WEIGHTS=X'], '--WEIGHTS=X', '--weights'),
    (['-weights', 'X'], '-weights', '--weights'), (['in', '--foo'], '--foo', '--help'),
    (['--count', '--weigths=X'], '--weigths=X', '--weights'), (['-x'], '-x', '--help')])
def test_a_mistyped_flag_is_named_before_a_missing_one(arguments: list[str], flag: str,
                                                       similar: str) -> None:
  parser = cli.Parser('prog', 'First line.')
  parser.add_argument('sources', nargs='+')
  parser.add_argument('--weights', required=True)
  parser.add_argument('--count', type=int)
  with pytest.raises(InputError) as error:
    parser.parse_args(arguments)
  assert str(error.value).startswith(f'{flag}: ')
  assert f' {similar}' in str(error.value)


@pytest.mark.parametrize(('arguments', 'flag'), [
    (['--workdir', 'a', '--workdir', 'b'], '--workdir'),
    (['--workdir=a', '--workdir', 'a'], '--workdir'),
    (['--runs', 'a', '--count', '-1', '--runs', 'b', 'c'], '--runs: .*values')])
def test_a_flag_with_one_value_may_not_be_repeated(arguments: list[str], flag: str) -> None:
  parser = cli.Parser('prog', 'First line.')
  parser.add_argument('--workdir')
  parser.add_argument('--runs', nargs='+')
  parser.add_argument('--count', type=int)
  parser.add_argument('--set', action='append')
  parser.add_argument('--overwrite', action='store_true')
  with pytest.raises(InputError, match=f'^{flag}'):
    parser.parse_args(arguments)
  args = parser.parse_args(['--set', 'a=1', '--set', 'b=2', '--overwrite', '--overwrite'])
  assert args.set == ['a=1', 'b=2']


def test_values_and_flags_of_actions_are_not_unknown_flags() -> None:
  parser = cli.Parser('prog', 'First line.')
  parser.add_argument('--count', type=float)
  action = parser.add_subparsers(dest='action').add_parser('info', doc='Second line.')
  action.add_argument('--key')
  args = parser.parse_args(['--count', '-1000', 'info', '--key=--odd'])
  assert (args.count, args.key) == (-1000, '--odd')
  with pytest.raises(InputError, match=r'--kye: .*--key'):
    parser.parse_args(['info', '--kye', 'a'])
  with pytest.raises(InputError, match=r'--cuont: .*--count'):
    parser.parse_args(['--cuont', '1', 'info'])
