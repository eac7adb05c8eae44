"""The package: its metadata, the command sr-jax, and an installed wheel without the repository."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import tomllib
import venv
import zipfile
from importlib.metadata import distributions

import jax
import numpy as np
import pytest
from packaging.requirements import Requirement

import sr_jax
from sr_jax import __main__, images, main
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
  monkeypatch.setenv('PYTHONSAFEPATH', '')  # is restored after the test
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
    (['--version', 'x'], 'x: --version '), (['--help', 'train'], 'train: --help '),
    (['train', '--mode=evaluate'], '--mode: .*sr-jax evaluate'),
    (['evaluate', '--mode', 'evaluate'], '--mode: .*sr-jax evaluate'),
    (['evaluate', '--size=3x3'], '--size: evaluate .*summary'),
    (['train'], '--config .*srgan:sample'),
    (['evaluate'], '--config .*--workdir'),
    (['score'], '.* --sr$'),
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


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """A wheel of this repository, built without the network; the sdist lies beside it."""
  pytest.importorskip('hatchling')
  folder = tmp_path_factory.mktemp('wheel')
  subprocess.run([sys.executable, '-m', 'hatchling', 'build', '-d', folder], cwd=ROOT, check=True,
                 capture_output=True)
  assert len(list(folder.glob('*.tar.gz'))) == 1
  return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def sdist_wheel(wheel, tmp_path_factory):
  """The wheel that the sdist makes, as `pip install` of an sdist does."""
  folder = tmp_path_factory.mktemp('sdist')
  with tarfile.open(next(wheel.parent.glob('*.tar.gz'))) as archive:
    archive.extractall(folder, filter='data')
  subprocess.run([sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', folder],
                 cwd=next(folder.iterdir()), check=True, capture_output=True)
  return next(folder.glob('*.whl'))


@pytest.mark.slow
def test_the_wheel_contains_the_package_alone(wheel, sdist_wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  assert names == set(zipfile.ZipFile(sdist_wheel).namelist())
  assert {name.split('/')[0] for name in names} == {
      'sr_jax', f'sr_jax-{sr_jax.__version__}.dist-info'}
  package = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'sr_jax').rglob('*')
             if path.is_file() and path.suffix != '.pyc'}
  configs = {f'sr_jax/{path.relative_to(ROOT).as_posix()}'
             for path in (ROOT / 'configs').glob('*.py')}
  assert {'sr_jax/py.typed', 'sr_jax/report/page.js', 'sr_jax/report/page.css',
          'sr_jax/metrics/niqe.npz'} <= package
  assert {name for name in names if name.startswith('sr_jax/')} == package | configs
  assert any(name.endswith('licenses/LICENSE') for name in names)


@pytest.mark.slow
def test_an_installed_wheel_trains_and_upscales_without_the_repository(wheel, tmp_path):
  """In an environment that has the packages of the tests, but no path to the repository."""
  environment, folder = tmp_path / 'environment', tmp_path / 'empty'
  venv.create(environment, symlinks=True)
  site = next(environment.glob('lib/python*/site-packages'))
  installed = [str(found.locate_file('')) for found in distributions(name='sr-jax')]
  # Without --ignore-installed pip uninstalls the package from the environment of this test.
  subprocess.run([sys.executable, '-m', 'pip', 'install', '--no-deps', '--quiet', '--prefix',
                  environment, '--ignore-installed', '--no-index', wheel], check=True)
  assert [str(found.locate_file('')) for found in distributions(name='sr-jax')] == installed
  # Paths in a .pth file come after the environment's own packages.
  (site / 'tests.pth').write_text(sysconfig.get_paths()['purelib'])
  (site / 'sitecustomize.py').write_text(textwrap.dedent('''
      import atexit, os, sys

      @atexit.register
      def list_modules():
        files = [getattr(module, '__file__', None) or '' for module in sys.modules.values()]
        with open(os.environ['MODULES'], 'a') as out:
          out.write('\\n'.join(files))
      '''))
  folder.mkdir()
  variables = {name: value for name, value in os.environ.items()
               if not name.startswith(('PYTHON', 'VIRTUAL_ENV'))} | {
      'JAX_PLATFORMS': 'cpu', 'MODULES': str(tmp_path / 'modules.txt'),
      'JAX_COMPILATION_CACHE_DIR': str(jax.config.jax_compilation_cache_dir)}

  def run(*arguments):
    # The script's first line names the Python that ran pip, not that of the environment.
    command = environment / 'bin/python', '-P', environment / 'bin/sr-jax', *arguments
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)

  trained = run(
      'train', '--config', 'srgan:sample', '--config.steps=3', '--config.warmup_steps=2',
      '--config.generator.features=4', '--config.generator.blocks=1', '--config.hr_patch=32',
      '--config.batch_size=2', '--config.discriminator.widths=(4, 8)', '--config.ema=0.5',
      '--config.discriminator.hidden=8', '--config.eval.lpips=none', '--config.eval.every=3',
      '--config.best_metric=psnr_y', '--config.loss.perceptual.weight=0',
      '--config.optimizer.warmup.ramp=1', f'--config.data.cache={tmp_path / "cache"}')
  assert trained.returncode == 0, trained.stderr
  images.write_image(folder / 'image.png', np.zeros((8, 9, 3), np.uint8))
  upscaled = run('upscale', 'image.png', '--output', 'out.png', '--workdir', 'runs/srgan-sample')
  assert upscaled.returncode == 0, upscaled.stderr
  assert images.read_image(folder / 'out.png').shape == (32, 36, 3)
  assert (folder / 'runs/srgan-sample/report.html').is_file()
  record = metadata.start_records(folder / 'runs/srgan-sample')[0]
  assert record['commit'] == f'version {sr_jax.__version__}'
  modules = (tmp_path / 'modules.txt').read_text().splitlines()
  assert str(site / 'sr_jax/upscale.py') in modules
  assert not [file for file in modules if pathlib.Path(file).is_relative_to(ROOT)
              and not pathlib.Path(file).is_relative_to(sys.prefix)]  # .venv may lie in ROOT
  assert sorted(path.name for path in folder.iterdir()) == ['image.png', 'out.png', 'runs']
