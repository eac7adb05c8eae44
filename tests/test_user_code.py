"""Code of the user's own: what is found, and that runs and weight files import nothing."""

import json
import multiprocessing
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

import sr_jax
from sr_jax import __main__ as commands
from sr_jax import images, main, weights
from sr_jax.errors import InputError
from sr_jax.experiment import values
from sr_jax.experiment.keys import KEYS
from sr_jax.system import files, user_code
from sr_jax.train import train
from tests import smallest

MODULE = """import pathlib
import jax.numpy as jnp
from flax import linen as nn
from sr_jax.models.layers import repeat_pixels
pathlib.Path(__file__).with_suffix('.mark').touch()

class Net(nn.Module):
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, lr, train=False):
    return repeat_pixels(nn.Conv(3, (3, 3))(lr), self.scale)

def run(*images):
  return 0.0
"""


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  monkeypatch.setattr(user_code, '_allowed', set())
  yield
  sys.modules.pop('planted', None)


@pytest.fixture
def planted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
  """The mark that a module leaves when it is imported, in the current folder."""
  (tmp_path / 'planted.py').write_text(MODULE)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  return tmp_path / 'planted.mark'


@pytest.mark.parametrize(('name', 'valid'), [
    ('my:Net', True), ('my.nets:Net', True), ('_a1:b_2', True), ('hr:photos', False),
    ('split:test', False), ('my:os.system', False), ('my:', False), (':Net', False),
    ('my', False), ('a..b:c', False), ('.a:b', False), ('my: Net', False), ('my:Net\n', False),
    ('1a:b', False), ('C:/a', False), (3, False), (None, False)])
def test_the_form_of_a_name(name: object, valid: bool) -> None:
  assert user_code.is_spec(name) == valid


def test_every_key_of_own_code_is_known() -> None:
  own = {name for name, key in KEYS.items() if key.own}
  assert own == {key for key in user_code.KEYS if '*' not in key}
  extra = {'loss': {'extra': {'a': {'fn': 'my:a'}}}, 'eval': {
      'extra': {'b': {'fn': 'my:b'}}, 'sets': 'a/Set5, my:c,hr:d'}, 'data': {'source': 'hr:photos'}}
  assert user_code.named(extra) == {'loss.extra.a.fn': ['my:a'], 'eval.extra.b.fn': ['my:b'],
                                    'eval.sets': ['my:c']}
  assert set(values.IMPORTED) >= set(main.MODES)


def test_a_key_that_is_given_twice_hides_no_name() -> None:
  twice = {'generator.name': 'my:a', 'generator': {'name': 'my:b'}, 'data': {'source': 'my:c'},
           'data.source': 'sample'}
  assert user_code.named(twice) == {'generator.name': ['my:a', 'my:b'], 'data.source': ['my:c']}


@pytest.mark.parametrize(('text', 'words'), [
    ('x = (', 'SyntaxError'), ('import sys\nsys.exit(0)', r'SystemExit.*line 2'),
    ('\n\nraise KeyError("a\\nb")', r'KeyError.*line 3'), ('import no_such_module_x',
                                                         'no_such_module_x'), ('', 'no Net')])
def test_a_module_that_cannot_be_used(text: str, words: str, planted: pathlib.Path) -> None:
  planted.with_suffix('.py').write_text(text)
  user_code.allow(['planted'])
  with pytest.raises(InputError, match=rf"here='planted:Net': .*planted.*{words}"):
    user_code.find('planted:Net', 'here')


@pytest.mark.parametrize('name', ['json:edges', 'time:edges', 'json.mine:edges'])
def test_a_module_that_another_one_hides_is_named(name: str, planted: pathlib.Path) -> None:
  user_code.allow(['json', 'time', 'json.mine'])
  with pytest.raises(InputError, match=f"here='{name}': ") as error:
    user_code.find(name, 'here')
  assert 'rename' not in str(error.value)
  for hidden in ('json.py', 'time.py'):
    planted.with_name(hidden).write_text('edges = 1')
  with pytest.raises(InputError, match=rf'installed.*{planted.parent}/(json|time)\.py.*rename'):
    user_code.find(name, 'here')


def test_a_module_that_lacks_a_name_hides_nothing(planted: pathlib.Path) -> None:
  user_code.allow(['planted'])
  with pytest.raises(InputError) as error:
    user_code.find('planted:nix', 'here')
  assert 'rename' not in str(error.value)


def test_a_file_instead_of_a_module_is_named(planted: pathlib.Path) -> None:
  user_code.allow(['planted.py'])
  with pytest.raises(InputError, match=r"here='planted\.py:Net': .*planted:Net$"):
    user_code.find('planted.py:Net', 'here')
  assert not planted.exists()


def test_objects_become_names() -> None:
  assert user_code.spec_of(pathlib.Path) == f'{pathlib.Path.__module__}:Path'
  with pytest.raises(ValueError, match='top level'):
    user_code.spec_of(pathlib.Path.joinpath)
  Net = type('Net', (), {'__module__': '__main__'})  # noqa: N806
  with pytest.raises(ValueError, match='in the program itself'):
    user_code.spec_of(Net)


@pytest.mark.parametrize('name', ['my:Net', 'my.py', '', 'a b', 3])
def test_only_names_of_modules_can_be_allowed(name: object) -> None:
  with pytest.raises(InputError, match='name of a module'):
    sr_jax.allow_import(name)


# ---- a run from elsewhere ----------------------------------------------------------------------

# Command lines in a folder with the run, and which code of the run they need: that of all keys, of
# the generator, or none.
COMMANDS = {
    'train --config=run/config.json --workdir=run --resume': 'all',
    'train --config=run/config.json --workdir=new': 'all',
    'train --config=ours.py --workdir=run --resume': 'generator',
    'train --config=ours.py --workdir=new --config.init_from=run': 'generator',
    'train --config=ours.py --workdir=new --config.init_from=net.safetensors': 'generator',
    'evaluate --workdir=run': 'all',
    'evaluate --config=run/config.json': 'all',
    'evaluate --workdir=run --config.eval.sets=lr --config.eval.extra.own.fn=': 'generator',
    'replay --workdir=run --step=2': 'all',
    'profile --workdir=run': 'all',
    'summary --workdir=run': 'all',
    'examples --workdir=run --output=sheet.png': 'all',
    'upscale lr.png --output=out --workdir=run': 'generator',
    'upscale lr.png --output=out --weights=net.safetensors': 'generator',
    'app --workdir run': 'generator',
    'report run': 'none',
    'weights info net.safetensors': 'none',
    'weights info run': 'generator',
    'weights import net.safetensors --workdir=new': 'generator',
    'weights export --workdir=run --output=a.safetensors': 'generator',
    'weights interpolate run net.safetensors --alpha=0.5 --output=a.safetensors': 'generator'}
OURS = """from tests import smallest

def get_config():
  config = smallest.get_config()
  config.data.source = 'folder:{folder}'
  return config
"""


def execute(line: str, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
  """Runs a command of sr-jax in this process and returns (exit status, stdout, stderr)."""
  smallest.forget_flags()
  capsys.readouterr()
  status = commands.run(line.split())
  return status, *capsys.readouterr()


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, folder: pathlib.Path) -> pathlib.Path:
  """A folder with a run of two steps of the module's network, and its weights in a file."""
  path, config = tmp_path_factory.mktemp('trained'), smallest.get_config()
  (path / 'planted.py').write_text(MODULE)
  (path / 'ours.py').write_text(OURS.format(folder=folder))
  images.write_image(path / 'lr.png', images.read_image(folder / '2.png')[:8, :8])
  shutil.copytree(folder, path / 'lr')
  config.generator = {'name': 'planted:Net'}
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.steps, config.warmup_steps, config.checkpoint_every, config.log_every = 2, 0, 1, 1
  config.data.source, config.eval.sets = f'folder:{folder}', 'lr'
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(path)
    train(config, path / 'run')
    weights.main(['export', f'--workdir={path / "run"}', f'--output={path / "net.safetensors"}'])
  del sys.modules['planted']
  (path / 'planted.mark').unlink()
  return path


@pytest.fixture
def place(trained: pathlib.Path, planted: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """The mark that the module would leave in the current folder, which has a copy of `trained`."""
  shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
  return planted


def name_code(run: pathlib.Path, generator: str) -> None:
  """Puts names of code into all keys of a run's config.json that may have them."""
  config = json.loads((run / 'config.json').read_text())
  config['generator']['name'] = generator
  config['discriminator'] = {'name': 'planted:Net'}
  config['loss']['pixel']['kind'] = 'planted:run'
  config['loss']['adversarial']['weight'] = 1.0
  config['loss']['extra'] = {'own': {'fn': 'planted:run', 'weight': 1.0}}
  config['data'] |= dict.fromkeys(('source', 'valid', 'test'), 'planted:run')
  config['eval'] |= {'sets': 'planted:run', 'extra': {'own': {
      'fn': 'planted:run', 'better': 'higher'}}}
  config['best_metric'] = 'own'
  files.write_json(run / 'config.json', config)


@pytest.mark.parametrize('line', [
    pytest.param(line, marks=pytest.mark.slow) if line.startswith('app') else line
    for line in COMMANDS])  # Gradio takes seconds to import
def test_a_run_or_a_weight_file_imports_nothing(line: str, place: pathlib.Path,
                                                capsys: pytest.CaptureFixture) -> None:
  name_code(place.parent / 'run', 'planted:Net')
  status, out, err = execute(line, capsys)
  assert not place.exists()
  assert 'planted' not in sys.modules
  assert not user_code._allowed
  if COMMANDS[line] == 'none':
    assert status == 0
    assert 'planted:Net' in out or line.startswith('report')
  else:
    assert status == 1
    assert err.count('\n') == 1
    key = "name='planted:Net'" if COMMANDS[line] == 'generator' else "='planted:"
    assert re.search(rf'(config\.json: |net\.safetensors: ).*{key}.*--import planted', err), err
    assert not pathlib.Path('new').exists()



def test_processes_do_not_search_the_current_folder(tmp_path: pathlib.Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
  for name in ('multiprocessing', 'pickle', 'socket'):
    (tmp_path / f'{name}.py').write_text(f'open({str(tmp_path / "mark")!r}, "w").close()')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('PYTHONSAFEPATH', '')  # is restored after the test
  monkeypatch.setattr(sys, 'argv', ['sr-jax', '--version'])
  with pytest.raises(SystemExit):
    commands.main()
  with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:  # as data.stream does
    assert pool.submit(os.getpid).result() != os.getpid()
  assert not (tmp_path / 'mark').exists()


def test_python_imports_nothing_either(place: pathlib.Path) -> None:
  for call in (lambda: sr_jax.load('run'), lambda: sr_jax.load('net.safetensors'),
               lambda: sr_jax.evaluate.evaluate('run'),
               lambda: sr_jax.get_config('run/config.json')):
    with pytest.raises(InputError, match=r"planted:Net.*allow_import\('planted'\)"):
      call()
  assert not place.exists()


def test_what_the_user_allows_is_used(place: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
  sr_jax.allow_import('planted')
  lr = images.read_image('lr.png')
  assert (sr_jax.load('run')(lr) == sr_jax.load('net.safetensors')(lr)).all()
  assert place.exists()
  user_code._allowed.clear()
  status, out, _ = execute('weights info net.safetensors --import planted', capsys)
  assert status == 0
  assert 'planted:Net' in out
  status, _, err = execute('weights info run --import=nothing_here', capsys)
  assert status == 1
  assert 'nothing_here' in err


@pytest.mark.slow
@pytest.mark.parametrize('line', [
    'train --config=run/config.json --workdir=run --config.steps=3 --resume',
    'evaluate --workdir=run', 'replay --workdir=run --step=2', 'profile --workdir=run',
    'summary --workdir=run', 'examples --workdir=run --output=sheet.png',
    'upscale lr.png --output=out --workdir=run', 'report run',
    'weights import net.safetensors --workdir=new',
    'train --config=ours.py --workdir=new --config.init_from=net.safetensors --config.steps=1 '
    '--config.warmup_steps=0 --config.generator.name=planted:Net'])
def test_all_commands_work_with_a_network_of_the_users_own(
    line: str, place: pathlib.Path, capsys: pytest.CaptureFixture, quick_profile: None) -> None:
  line += '' if line.startswith('report') else ' --import=planted'
  status, out, err = execute(line, capsys)
  assert (status, err) == (0, ''), out
