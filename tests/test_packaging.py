"""The package: its metadata, the command sr-jax, and an installed wheel without the repository."""

import contextlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

import sr_jax
from sr_jax import __main__, main
from sr_jax.app import interface
from sr_jax.runs import metadata
from tests import smallest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
EXTRAS = PROJECT['tool']['hatch']['metadata']['hooks']['custom']['extras']


@pytest.mark.parametrize('name', ['requirements.txt', 'tests/requirements.txt'])
def test_requirements_can_be_parsed(name):
  """Hatchling reads these files line by line, so options of pip would fail."""
  lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith('#')]
  assert all(Requirement(line).specifier for line in lines)
  assert len(lines) == len({Requirement(line).name for line in lines})


def test_extras():
  assert set(EXTRAS) == {'cuda12', 'cuda13', 'app', 'heif', 'wandb'}
  for lines in EXTRAS.values():
    assert [Requirement(line) for line in lines]
  # Messages have the same bounds.
  assert EXTRAS['app'][0] in interface.INSTALL_COMMAND
  assert EXTRAS['wandb'][0] in (ROOT / 'sr_jax/runs/wandb_sync.py').read_text()


def test_versions_agree():
  assert re.fullmatch(r'\d+\.\d+\.\d+', sr_jax.__version__)
  assert f'## {sr_jax.__version__}' in (ROOT / 'CHANGELOG.md').read_text()
  assert f'version: {sr_jax.__version__}\n' in (ROOT / 'CITATION.cff').read_text()


@pytest.mark.parametrize('script', PROJECT['project']['scripts'].values())
def test_the_console_script_exists(script, capsys, monkeypatch):
  assert script == f'{__main__.__name__}:main'
  monkeypatch.setattr(sys, 'argv', ['sr-jax', '--version'])
  with pytest.raises(SystemExit) as stop:
    __main__.main()
  assert stop.value.code == 0
  assert capsys.readouterr().out == f'sr_jax {sr_jax.__version__}\n'


def test_the_help_lists_all_commands(capsys):
  assert [__main__.run(arguments) for arguments in (['--help'], [])] == [0, 1]
  out = capsys.readouterr().out
  assert main.MODES == __main__.RUN_COMMANDS
  for name in (*__main__.RUN_COMMANDS, *__main__.MODULES):
    assert out.count(f'\n  {name} ') == 2, name


@pytest.mark.parametrize('name', [*__main__.RUN_COMMANDS, *__main__.MODULES])
def test_each_command_has_help(name, capsys):
  smallest.forget_flags()
  with contextlib.suppress(SystemExit):  # argparse exits
    __main__.run([name, '--help'])
  out = capsys.readouterr().out
  assert f'{name} ' in out
  assert out.count('  sr-jax ') >= 2


@pytest.mark.parametrize(('arguments', 'message'), [
    (['uppscale'], 'uppscale: .*train, .*app; .*sr-jax upscale'),
    (['--mode'], '--mode: .*train, .*app'),
    (['train', '--mode=evaluate'], '--mode: .*sr-jax evaluate'),
    (['evaluate', '--mode', 'evaluate'], '--mode: .*sr-jax evaluate'),
    (['evaluate', '--size=3x3'], '--size: evaluate .*summary'),
    (['train'], '--config .*srgan:sample'),
    (['evaluate'], '--config .*--workdir'),
    (['score'], '.* --sr, '),
    (['resize', 'nowhere', 'out', '--scale', '2'], 'nowhere: ')])
def test_wrong_command_lines(arguments, message, capsys):
  smallest.forget_flags()
  assert __main__.run(arguments) == 1
  err = capsys.readouterr().err
  assert re.match(f'sr_jax: {message}', err)
  assert err.count('\n') == 1


def git(folder, *arguments):
  subprocess.run(['git', '-C', folder, '-c', 'user.name=a', '-c', 'user.email=a@example.org',
                  *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
  """A git repository with a file; the code of `metadata` seems to lie in its folder sr_jax."""
  monkeypatch.setattr(metadata, '__file__', str(tmp_path / 'sr_jax/runs/metadata.py'))
  (tmp_path / 'file').write_text('1')
  git(tmp_path, 'init')
  git(tmp_path, 'add', '.')
  git(tmp_path, 'commit', '-m', 'a')
  return tmp_path


def test_a_checkout_records_its_commit(repository, monkeypatch):
  (repository / 'pyproject.toml').write_text('[project]\nname = "sr-jax"')
  git(repository, 'add', '.')
  git(repository, 'commit', '-m', 'b')
  assert re.fullmatch('[0-9a-f]{12}', metadata.commit())
  (repository / 'file').write_text('2')
  monkeypatch.setenv('GIT_DIR', str(ROOT / 'nowhere'))
  assert re.fullmatch('[0-9a-f]{12}-dirty', metadata.commit())


@pytest.mark.parametrize('project', ['', '[project]\nname = "mine"', 'name = '])
def test_the_commit_of_another_repository_is_not_recorded(repository, project):
  if project:
    (repository / 'pyproject.toml').write_text(project)
  assert metadata.commit() == f'version {sr_jax.__version__}'


def test_a_checkout_without_git_records_its_version(repository, monkeypatch):
  (repository / 'pyproject.toml').write_text('[project]\nname = "sr-jax"')
  monkeypatch.setenv('PATH', '')
  assert metadata.commit() == f'version {sr_jax.__version__}'
