"""The command line of sr_jax.main: correct and wrong input."""

import functools
import json
import os
import pathlib
import re
import sys
import textwrap
import time

import jax
import pytest

from sr_jax import main
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, values
from sr_jax.experiment.check import check
from sr_jax.experiment.config_file import load as load_config
from sr_jax.models import factory
from sr_jax.system import cli as commands
from sr_jax.system import files, user_code
from tests import smallest
from tests.conftest import interrupt

ROOT = pathlib.Path(main.__file__).parents[1]


def write_config(path, folder):
  """A config file for the images of the tests: four steps, two of them adversarial.

  They are those of the smallest experiment, so that most tests find them compiled.
  """
  file = path / 'tiny.py'
  file.write_text(textwrap.dedent(f'''
      from sr_jax.experiment.base_config import defaults, parse_variants

      def get_config(variant=''):
        parse_variants(variant, ('one', 'two'))
        config = defaults()
        config.scale, config.batch_size, config.hr_patch = 2, 4, 16
        config.steps, config.warmup_steps = 4, 2
        config.generator.update({{'features': 4, 'blocks': 1, 'kernel': 3}})
        config.discriminator.update({{
            'name': 'vgg_style', 'widths': (4, 8), 'head': 'conv', 'hidden': 8}})
        config.loss.adversarial.weight = 1e-3
        for adam in config.optimizer.values():
          adam.learning_rate = 1e-3
        config.data.source, config.data.valid = 'folder:{folder}', ''
        config.eval.sets, config.eval.lpips = '{folder}', 'none'
        return config
      '''))
  return file


@pytest.fixture
def config_file(tmp_path, folder):
  return write_config(tmp_path, folder)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, config_file):
  """command('--flag', ...) -> (exit status, stdout, stderr), in this process."""
  monkeypatch.chdir(tmp_path)

  def run(*arguments, config=config_file):
    argv = ['main', *([f'--config={config}'] if config else []), *arguments]
    smallest.forget_flags()
    try:
      status = main.main(argv)
    except SystemExit as stop:
      status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err

  return run


@pytest.mark.slow
def test_train_evaluate_profile(command, tmp_path, folder, quick_profile):
  status, out, _ = command('--workdir=run')
  assert status == 0
  assert 'step 4 of 4' in out
  status, out, _ = command('--workdir=run', '--mode=evaluate')
  assert status == 0
  assert re.search(r'bicubic  +\d', out)
  assert 'mean' in out
  saved = json.loads((tmp_path / 'run' / 'eval' / f'{folder.name}-4.json').read_text())
  assert set(saved['images']) == set('01234')
  assert 'luma' in saved['protocol']['psnr_y']
  assert (tmp_path / 'run' / 'eval' / f'{folder.name}-4' / '3.png').exists()
  status, out, _ = command('--workdir=run', '--mode=evaluate', '--step=2',
                           '--config.eval.correct.kind=replace',
                           '--config.eval.correct.thresholds=(0.05, 0.05, 0.05)', config=None)
  assert status == 0
  saved = json.loads((tmp_path / 'run' / 'eval' / f'{folder.name}-2.json').read_text())
  assert '0.05, 0.05, 0.05' in saved['protocol']['corrected']
  assert re.search(r'corrected  +\d', out)
  assert (tmp_path / 'run' / 'eval' / f'{folder.name}-2-corrected' / '3.png').exists()
  status, _, err = command('--workdir=run', '--mode=evaluate',
                           f'--config.eval.sets={folder},{folder}/')
  assert (status, err.count('\n')) == (1, 1)
  assert 'two sets are called' in err
  status, out, _ = command('--workdir=run', '--mode=profile', config=None)
  assert status == 0
  for text in ('warm-up step', 'gan step', 'verdict', 'perfetto_trace.json.gz'):
    assert text in out, text
  assert list(tmp_path.glob('run/profile/gan/**/perfetto_trace.json.gz'))


@pytest.mark.slow
def test_fields_of_networks_are_config_keys(command):
  status, out, _ = command(
      '--mode=summary', '--config.generator.upsample=transposed',
      '--config.discriminator.head=dense', '--config.generator.batch_norm=False',
      '--config.discriminator.widths=(4,4)')
  assert status == 0
  assert 'stages_0/ConvTranspose_0' in out
  assert 'body_0/BatchNorm_0' not in out
  assert 'Dense_1' in out


def test_default_workdir_is_named_after_config_and_variants(command, config_file):
  _, _, err = command('--mode=evaluate', config=f'{config_file}:two,one')
  assert re.match('sr_jax: runs/tiny-two-one: .*config.json', err)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--mode=dance'], 'dance'),
    (['--nonsense=1'], 'nonsense'),
    (['stray'], "'stray'"),
    (['--config.data.augment={"a": 1}'], r'--config\.data\.augment: .*section'),
    (['--config.generator.features=9223372036854775808'], r'config\.generator\.features=\d+: .*\d'),
    (['--config.seeed=1'], r'config\.seeed: .*config\.seed\?'),
    (['--config.data.nothing=1'], r'config\.data\.nothing: .*crops_per_picture'),
    (['--config.learning_rate=1'], r'config\.learning_rate: .*config\.optimizer\.g\.learning_rate'),
    (['--config.loss.fft=1'], r'config\.loss\.fft: .*pixel, perceptual'),
    (['--config.steps=many'], 'config.steps=many: .*integer'),
    (['--config.data.download=maybe'], 'config.data.download=maybe: .*True'),
    (['--config.steps'], '--config.steps: .*VALUE'),
    (['--noconfig.steps'], '--noconfig.steps: '),
    (['--config.lr=1', '--config.steps=0', '--config.dtype=half'],
     r'config\.lr: .*config\.steps=0: .*config\.dtype=.half.: '),
    (['--size=3x3'], '--size: train .*summary'),
    (['--step=3'], '--step: train .*evaluate, replay, examples'),
    (['--mode=summary', '--step=3'], '--step: summary'),
    (['--target=h200'], '--target: train .*profile'),
    (['--mode=profile', '--target=h300'], "--target 'h300': .*h200, h100, .*, all"),
    (['--mode=profile', '--data-gib=3'], '--data-gib: .*--target'),
    (['--mode=profile', '--target=l4', '--data-gib=many'], "--data-gib 'many': .*number"),
    (['--mode=profile', '--target=l4', '--data-gib=0'], "--data-gib '0': .*0.001"),
    (['--mode=summary', '--workdir=run'], '--workdir run: summary .*tiny.py'),
    (['--mode=examples'], '--output is missing: '),
    (['--mode=examples', '--output=a.gif'], r'--output a\.gif: .*\.png'),
    (['--output=a.png'], '--output: train .*examples'),
    (['--mode=evaluate', '--resume'], '--resume: evaluate .*train'),
    (['--workdir='], '--workdir: '),
    (['--wrokdir=a'], '--wrokdir=a: .*--workdir'),
    (['--config.steps=0'], 'config.steps=0'),
    (['--config.generator.name=unet'], 'config.generator.name.*unet.*srresnet'),
    (['--config.loss.pixel.kind=l3'], "config.loss.pixel.kind='l3'"),
    (['--config.data.source=folder:/nowhere'], r'/nowhere: .*folder'),
    (['--config.hr_patch=1000'], r'0\.png: .*40x52.*1000x1000'),
    (['--workdir=/proc/none'], r'/proc/none: .*\('),
    (['--mode=evaluate', '--workdir=nothing'], 'nothing: .*config.json'),
    (['--config.loss.perceptual.weight=1', '--config.loss.perceptual.weights=/no.pth'], '/no.pth'),
    (['--config.generator.features=0'], 'config.generator'),
    (['--config.scale=5', '--config.hr_patch=20'], 'scale=5'),
    (['--config.generator.upsample=linear'], "upsample='linear'"),
    (['--config.optimizer.g.ramp=5', '--config.warmup_steps=2'],
     r'config\.optimizer\.g\.ramp=5: .*\b2\b.*--config\.optimizer\.g\.ramp=2'),
    (['--config.warmup_steps=9'], r'config\.warmup_steps=9: .*config\.steps=4'),
    (['--config.epochs=2', '--config.warmup_epochs=3'],
     r'config\.warmup_epochs=3\b.*\b6\b.*config\.epochs=2\b.*\b4\b'),
    (['--config.epochs=9999999999'], r'config\.epochs=9999999999\b.*\d'),
    (["--config.optimizer.g.boundaries=('a',)"], r"config\.optimizer\.g\.boundaries=.*'a'"),
    (['--config.optimizer.g.boundaries=(-5,)'], 'config.optimizer.g.boundaries='),
    (['--config.optimizer.g.weight_decay=nan'], 'config.optimizer.g.weight_decay=nan'),
    (['--config.loss.pixel.weight=inf'], 'config.loss.pixel.weight=inf'),
    (['--config.optimizer.d.beta2=1.0'], r'config\.optimizer\.d\.beta2=1\.0: .*\b1'),
    (['--config.freeze=,'], r"config\.freeze=',': "),
    (['--config.init_from=nothing'], 'config.init_from: nothing: .*realsr-df2k'),
    (['--config.train_only=boddy_*'], r"config\.train_only: .*'boddy_\*'.*body_"),
    (['--config.freeze=*'], r'config\.freeze=.\*.: .*every array'),
    (['--config.generator.init=xaver'], r"config\.generator\.init='xaver': .*\bxavier,"),
    (['--config.optimizer.d.schedule=linear'], "config.optimizer.d.schedule='linear'"),
    (['--mode=evaluate', '--config.dtype=float8'], "config.dtype='float8'"),
    (['--mode=evaluate', '--config.eval.lpips=squeeze'], "config.eval.lpips='squeeze'"),
    (['--mode=evaluate', '--config.eval.correct.thresholds=(0.1,-1,0)'], 'correct.thresholds'),
    (['--mode=evaluate', '--workdir=/proc/version'], '/proc/version: .*config.json'),
    (['--mode=replay', '--workdir=nothing', '--step=3'], 'nothing: .*config.json'),
    (['--mode=replay'], r'--step latest: .*number'),
    (['--mode=summary', '--size=180'], "--size.*180.*HEIGHTxWIDTH"),
    (['--config.max_bad_steps=0'], r'config\.max_bad_steps=0: .*\b1'),
    (['--config.saturated_steps=-1'], r'config\.saturated_steps=-1: .*\b0'),
])
def test_wrong_input_is_one_line_and_a_status(command, tmp_path, arguments, message):
  status, _, err = command(*arguments)
  assert status == 1
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1, err
  assert re.search(message, err), err
  assert not (tmp_path / 'runs').exists()


def test_invalid_config_files(command, tmp_path, config_file):
  (tmp_path / 'broken.py').write_text('\n\nx = undefined')
  (tmp_path / 'exit.py').write_text('import sys\ndef get_config():\n  sys.exit(0)')
  (tmp_path / 'typing.py').write_text('def get_config():\n  return {}')
  (tmp_path / 'run.json').write_text('[]')
  (tmp_path / 'train.log').write_text('raise KeyError')
  for config, message in (
      (tmp_path / 'none.py', 'none.py: no such config file'),
      (f'{tmp_path / "none.py"}:sample', 'none.py: no such config file'),
      (tmp_path, 'is a folder'), (f'{config_file}:three', "tiny.py:three: unknown variant 'three'"),
      (tmp_path / 'broken.py', 'broken.py: cannot load, line 3 (NameError): '),
      (tmp_path / 'exit.py', 'exit.py: cannot load, line 3 (SystemExit): 0'),
      (tmp_path / 'typing.py', 'typing.py: get_config() returned {}'),
      (f'{tmp_path / "typing.py"}:small', 'typing.py:small: has no variants'),
      (tmp_path / 'train.log', 'train.log: expected'),
      (tmp_path / 'run.json', 'run.json: cannot read'), (f'{tmp_path / "run.json"}:x', 'variants'),
      (ROOT / 'sr_jax/errors.py', 'errors.py: defines no get_config()')):
    for more in ((), ('--config.steps=3',), ('--mode=summary', '--config.steps', '3')):
      status, _, err = command(*more, config=config)
      assert status == 1
      assert err.count('\n') == 1
      assert message in err


@pytest.mark.parametrize(('statement', 'words'), [
    ('config.loss.extra.f.fn = max', r'no key f; .*config\.loss\.extra\.f = dict\(fn=.*weight='),
    ('config.eval.extra["f"].fn = max', r'no key f; .*config\.eval\.extra\.f = dict\(.*better='),
    ('config.los.pixel.weight = 1', r'no key los; did you mean loss\?$'),
    ('config["los"].pixel.weight = 1', r'no key los; did you mean loss\?$'),
    ('config.generator.foo.bar = 1', r'no key foo; .*--helpkeys'),
    ('{}["los"]', r"\(KeyError\): 'los'"), ('{}.los', r"\(AttributeError\): .*'dict'")])
def test_a_key_that_a_config_file_reads_and_does_not_exist(statement, words, tmp_path):
  path = tmp_path / 'exp.py'
  path.write_text('from sr_jax.experiment.base_config import defaults\n\ndef get_config():\n'
                  f'  config = defaults()\n  {statement}\n')
  with pytest.raises(InputError, match=r'exp\.py: cannot load, line 5.*' + words) as error:
    load_config(str(path))
  assert '\n' not in str(error.value)
  assert '\\' not in str(error.value)


def test_all_wrong_keys_of_a_config_file_are_named(command, tmp_path, config_file):
  text = config_file.read_text().replace('  return config', textwrap.dedent('''
      config.bach_size = 8
      config.optimizer.g.lr = 3e-4
      config.loss.fft = dict(weight=0.1)
      config.steps, config.ema, config.data.mode = '100', 1, 'disk'
      config.data.augment = dict(flip=True)
      return config''').replace('\n', '\n  '))
  (tmp_path / 'exp.py').write_text(text)
  status, _, err = command('--config.log_every=0', config=tmp_path / 'exp.py')
  assert (status, err.count('\n')) == (1, 1)
  for words in (r'exp\.py: .*config\.bach_size: .*config\.batch_size\?',
                r'config\.optimizer\.g\.lr: .*learning_rate', r'config\.loss\.fft: ',
                r"config\.steps='100': .*integer", r'config\.ema=1\.0: .*less than 1',
                r"config\.data\.mode='disk': .*bank", r'config\.data\.augment\.turn, .*: missing',
                r'config\.log_every=0: .*1'):
    assert re.search(words, err), words
  # A flag replaces an invalid value of the file.
  (tmp_path / 'exp.py').write_text(config_file.read_text().replace(
      '  return config', '  config.batch_size = 0\n  return config'))
  assert 'config.batch_size=0' in command('--mode=summary', config=tmp_path / 'exp.py')[2]
  smallest.forget_flags()
  assert main.parse(['main', f'--config={tmp_path / "exp.py"}', '--config.batch_size', '2']
                    ).config.batch_size == 2


def test_a_network_of_the_users_own_has_fields_of_its_own(command, tmp_path, config_file,
                                                          monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(user_code, '_allowed', set())
  (tmp_path / 'own_of_main.py').write_text(
      'from sr_jax.models import EDSR\n\nclass Own(EDSR):\n  depth: int = 1\n')
  (tmp_path / 'exp.py').write_text('import own_of_main\n' + config_file.read_text().replace(
      '  return config',
      "  config.generator = {'name': own_of_main.Own, 'features': 4, 'depth': 2}\n"
      '  return config'))
  smallest.forget_flags()
  parsed = main.parse(['main', f'--config={tmp_path / "exp.py"}', '--config.generator.depth=3'])
  fields = dict(check(parsed.config).generator.items())
  assert (fields['name'], fields['features']) == ('own_of_main:Own', 4)
  assert factory.build_generator(fields, 2, 'float32').depth == 3
  smallest.forget_flags()  # a flag names it: the fields of the config's network do not apply
  parsed = main.parse(['main', f'--config={config_file}', '--config.generator.depth=3',
                       '--config.generator.name=own_of_main:Own'])
  assert dict(check(parsed.config).generator.items()) == {'name': 'own_of_main:Own', 'depth': 3}
  status, _, err = command('--mode=summary', '--config.generator.depht=3',
                           config=tmp_path / 'exp.py')
  assert (status, err.count('\n')) == (1, 1)
  assert re.search(r'config\.generator\.depht: .*depth', err)


@pytest.fixture
def run_folder(tmp_path, config):
  """A folder with the config.json of a run, whose settings are not those of `config_file`."""
  config.steps = config.warmup_steps = 7
  files.write_json(tmp_path / 'old' / 'config.json', compatibility.as_json(config))
  return tmp_path / 'old'


def parse(*arguments):
  smallest.forget_flags()
  return main.parse(['main', *map(str, arguments)])


@pytest.mark.parametrize('mode', ['evaluate', 'replay', 'summary', 'profile', 'examples'])
def test_modes_take_the_settings_of_a_run(run_folder, config, mode):
  for arguments in ((f'--workdir={run_folder}',), (f'--config={run_folder / "config.json"}',),
                    (f'--config={run_folder / "config.json"}', f'--workdir={run_folder}')):
    if mode == 'summary' and len(arguments) > 1:
      continue  # it is refused: a summary needs no run
    parsed = parse(f'--mode={mode}', *arguments)
    assert parsed.workdir == run_folder
    assert check(parsed.config) == check(config)
  with pytest.raises(InputError, match=r'--config is missing: .*--workdir'):
    parse(f'--mode={mode}')


@pytest.mark.parametrize(('key', 'modes'), [
    ('generator.name', ('train', 'profile', 'replay', 'evaluate', 'summary')),
    ('discriminator.name', ('train', 'profile', 'replay', 'summary')),
    ('loss.pixel.kind', ('train', 'profile', 'replay')),
    ('data.source', ('train', 'profile', 'replay', 'examples')),
    ('eval.sets', ('train', 'evaluate'))])
def test_a_run_cannot_name_code_for_the_modes_that_import_it(key, modes, run_folder, monkeypatch,
                                                             tmp_path):
  monkeypatch.setattr(user_code, '_allowed', set())
  file = run_folder / 'config.json'
  run = json.loads(file.read_text())
  section, _, last = key.rpartition('.')
  functools.reduce(dict.get, section.split('.'), run)[last] = 'os:system'
  files.write_json(file, run)
  for mode in main.MODES:
    commands = [[f'--config={file}'], [f'--workdir={run_folder}']]
    if mode == 'train':
      commands = [[f'--config={file}', f'--workdir={tmp_path / "new"}']]
    for arguments in commands:
      arguments = [f'--mode={mode}', *arguments, *['--step=3'] * (mode == 'replay')]
      if mode in modes:
        with pytest.raises(InputError, match=rf"config\.json: {key}='os:system': .*--import os"):
          parse(*arguments)
      else:
        assert values.flat(parse(*arguments).config.to_dict())[key] == 'os:system'
  assert not user_code._allowed
  parse(f'--config={file}', f'--workdir={tmp_path / "new"}', '--import=os')
  assert user_code._allowed == {'os'}
  user_code._allowed.clear()
  parse(f'--config={file}', f'--workdir={tmp_path / "new"}', '--config.loss.extra.a.fn=os:abort',
        '--config.loss.extra.a.weight=0')  # a flag names the module
  assert user_code._allowed == {'os'}
  files.write_json(file, {key: 'evil:system'} | run)  # the key is given twice
  with pytest.raises(InputError, match=rf"config\.json: {key}='evil:system': .*--import evil"):
    parse(f'--config={file}', f'--workdir={tmp_path / "new"}')


@pytest.mark.parametrize('flags', [('generator=x', 'generator.name=edsr'),
                                   ('generator.name=edsr', 'generator=x'),
                                   ('loss.extra=3', 'loss.extra.e.fn=my:f')])
def test_a_section_that_is_given_a_value_beside_its_keys(flags):
  name = min(flags, key=len).partition('=')[0]
  with pytest.raises(InputError, match=rf'--config\.{name}: is a section of keys'):
    parse('--config=srgan:sample', *(f'--config.{flag}' for flag in flags))


@pytest.mark.parametrize(('given', 'words'), [
    ('my.py', 'my for my.py'), ('', 'name of a module'), ('no_such_module', 'no_such_module'),
    ('a b', 'name of a module')])
def test_a_module_that_cannot_be_imported(given, words):
  with pytest.raises(InputError, match=rf'--import .*{words}'):
    parse('--config=srgan:sample', f'--import={given}')


@pytest.mark.parametrize(('given', 'advice'), [
    ('configs/srresnet:sample', 'configs/srresnet.py:sample?'),
    ('configs/sresnet.py', 'configs/srresnet.py?'), ('nothing-like-it.py', ''),
    ('elsewhere/srgan.py:sample', '--config srgan:sample?')])
def test_a_config_file_that_does_not_exist(given, advice, monkeypatch):
  monkeypatch.chdir(ROOT)
  with pytest.raises(InputError) as error:
    parse(f'--config={given}')
  assert str(error.value).startswith(f'{given.partition(":")[0]}: no such config file')
  assert str(error.value).endswith(advice or 'no such config file')


def test_experiments_by_name_work_in_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'own').write_text('')
  config, workdir, *_ = parse('--config=srgan:sample', '--config.steps=1700')
  assert (config.steps, config.generator.blocks, str(workdir)) == (1700, 6, 'runs/srgan-sample')
  assert parse('--config=srresnet:small,x2').workdir == pathlib.Path('runs/srresnet-small-x2')
  for given, *parts in (
      ('srgn:sample', 'srgn: ', 'celeba_srgan, coco_gan, ', 'did you mean srgan:sample?'),
      ('SRGAN', 'SRGAN: ', 'srgan?'), (':sample', '--config: ', 'srgan'),
      ('own', 'own: ', './own'), ('nothing-like-it', 'nothing-like-it: ', 'srgan'),
      ('srgan:tiny', "srgan:tiny: unknown variant 'tiny'", 'torchvision'),
      ('configs/srgan.py:sample', 'configs/srgan.py: ', '--config srgan:sample?')):
    with pytest.raises(InputError) as error:
      parse(f'--config={given}')
    assert str(error.value).startswith(parts[0])
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_settings_that_a_run_has_fixed_are_refused(run_folder):
  evaluate = f'--workdir={run_folder}', '--mode=evaluate'
  parsed = parse(*evaluate, '--config.eval.sets=a,b', '--config.dtype=bfloat16')
  assert (parsed.config.eval.sets, parsed.config.dtype) == ('a,b', 'bfloat16')
  for key in ('generator.features', 'steps', 'data.source'):
    with pytest.raises(InputError, match=rf'--config\.{key}: .*old.*; .*eval\.\*, data'):
      parse(*evaluate, f'--config.{key}=3')
  with pytest.raises(InputError, match=r'config\.eval\.stes: .*config\.eval\.sets'):
    parse(*evaluate, '--config.eval.stes=3')
  replay = f'--workdir={run_folder}', '--mode=replay', '--step=3'
  assert parse(*replay, '--config.data.workers=0').config.data.workers == 0
  with pytest.raises(InputError, match=r'--config\.optimizer\.g\.ramp: '):
    parse(*replay, '--config.optimizer.g.ramp=3')


@pytest.mark.parametrize('mode', ['evaluate', 'replay'])
def test_settings_beside_a_config_are_those_of_the_run_or_refused(run_folder, config_file, mode):
  both = f'--config={config_file}', f'--workdir={run_folder}', f'--mode={mode}'
  assert parse(*both, '--config.steps=7', '--config.warmup_steps=7').config.steps == 7
  for key, value in (('steps', 9), ('optimizer.g.ramp', 3), ('wandb', 'project'),
                     ('log_every', 12345), ('discriminator.hidden', 9)):
    with pytest.raises(InputError, match=rf'--config\.{key}: .*old'):
      parse(*both, *['--config.steps=7'] * (key != 'steps'), f'--config.{key}={value}')


def test_a_split_may_be_chosen_for_imported_weights_only(run_folder, config_file):
  evaluate = f'--config={config_file}', f'--workdir={run_folder}', '--mode=evaluate'
  with pytest.raises(InputError, match=r'--config\.data\.split_seed: '):
    parse(*evaluate, '--config.data.split_seed=3')
  values = json.loads((run_folder / 'config.json').read_text())
  files.write_json(run_folder / 'config.json', {
      key: values[key] for key in ('scale', 'dtype', 'generator')} | {'imported': {'from': 'x'}})
  assert parse(*evaluate, '--config.data.split_seed=3').config.data.split_seed == 3
  for key, value in (('batch_size', 3), ('scale', 8), ('generator.features', 9)):
    with pytest.raises(InputError, match=rf'--config\.{key}: '):
      parse(*evaluate, f'--config.{key}={value}')


def test_training_with_the_settings_of_a_run_needs_a_folder(run_folder, tmp_path):
  config = f'--config={run_folder / "config.json"}'
  parsed = parse(config, '--config.steps=9', f'--workdir={tmp_path / "new"}')
  assert (parsed.config.steps, parsed.config.warmup_steps) == (9, 7)
  assert parsed.workdir == tmp_path / 'new'
  with pytest.raises(InputError, match=r'--workdir is missing: .*old resumes'):
    parse(config)
  with pytest.raises(InputError, match=r'--config is missing: .*old/config\.json'):
    parse(f'--workdir={run_folder}')
  # Imported weights have a few keys only; a key of another version is named.
  values = json.loads((run_folder / 'config.json').read_text())
  files.write_json(run_folder / 'config.json', {
      key: values[key] for key in ('scale', 'dtype', 'generator')} | {'imported': {'from': 'x'}})
  assert parse('--mode=evaluate', f'--workdir={run_folder}').config.scale == 2
  files.write_json(run_folder / 'config.json', values | {'bach_size': 3, 'ema': 2})
  with pytest.raises(InputError, match=r'old/config\.json: config\.ema=2: .*\.bach_size: '):
    parse('--mode=evaluate', f'--workdir={run_folder}')


def test_a_summary_needs_no_images_and_writes_nothing(command, tmp_path, config_file):
  before = sorted(tmp_path.iterdir())
  status, out, err = command('--mode=summary', '--config.data.source=folder:nowhere',
                             '--size=20x30')
  assert (status, err) == (0, '')
  assert 'Generator srresnet: 1x20x30x3 to 1x40x60x3; ' in out
  assert 'Discriminator vgg_style: 1x16x16x3 to 1; ' in out
  assert sorted(path for path in tmp_path.iterdir() if path.name != '__pycache__') == before


def test_help_has_two_examples(command, monkeypatch):
  status, out, _ = command('--help')
  assert status == 0
  assert out.count('  sr-jax ') >= 2
  for flag in ('--config', '--data-gib', '--mode', '--[no]resume', '--size', '--step', '--target',
               '--workdir'):
    assert flag in out, flag


def environment(*folders):
  """The environment of a process that finds modules in these folders, then in the repository."""
  return os.environ | {
      'PYTHONPATH': os.pathsep.join(map(str, (*folders, ROOT))), 'JAX_PLATFORMS': 'cpu',
      # Programs that the tests of this process have compiled are not compiled again.
      'JAX_COMPILATION_CACHE_DIR': str(jax.config.jax_compilation_cache_dir),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0'}


def test_ctrl_c_is_not_lost_if_the_exception_is_ignored():
  class RaisesInDel:
    def __del__(self):
      raise KeyboardInterrupt

  def work():
    RaisesInDel()
    time.sleep(60)

  hook = sys.unraisablehook
  assert commands.run(work) == 130
  assert sys.unraisablehook is hook


# A run in a process of its own ---------------------------------------------------------------


@pytest.fixture(scope='module')
def interrupted(tmp_path_factory, folder):
  """(exit status, stderr, folder) of a run of sr_jax.main that was sent Ctrl-C.

  Packages called tensorflow and torch, found by any import of them, leave a file in the folder.
  """
  path = tmp_path_factory.mktemp('interrupted')
  for name in ('tensorflow', 'torch'):
    (path / name).mkdir()
    (path / name / '__init__.py').write_text(f'open({str(path / "imported")!r}, "a")')
  metrics = path / 'run' / 'metrics.jsonl'
  status, err = interrupt(
      ['-m', 'sr_jax.main', f'--config={write_config(path, folder)}', '--workdir=run',
       '--config.steps=1000000', '--config.warmup_steps=2', '--config.log_every=1'], path,
      lambda: metrics.exists() and '"gan"' in metrics.read_text(), environment(path))
  return status, err, path


def test_ctrl_c_saves_and_exits_with_130(interrupted):
  status, err, path = interrupted
  assert status == 130
  assert 'Traceback' not in err
  assert 'by SIGINT' in err
  steps = [int(folder.name) for folder in (path / 'run' / 'checkpoints').glob('[0-9]*')]
  assert len(steps) == 2  # the end of the warm-up, and the step at which it was interrupted
  assert max(steps) > min(steps) == 2


def test_training_never_imports_tensorflow_or_pytorch(interrupted):
  _, err, path = interrupted
  assert (path / 'run' / 'report.html').exists(), err
  assert not (path / 'imported').exists()


@pytest.mark.parametrize('name', ['workdir', 'mode', 'config'])
def test_a_flag_given_twice_is_refused(name: str) -> None:
  with pytest.raises(InputError, match=f'^--{name}: .*2 times'):
    parse('--mode=summary', *[f'--{name}=summary'] * (2 - (name == 'mode')))


@pytest.mark.parametrize(('key', 'flags'), [
    ('steps', ('--config.steps=1', '--config.steps', '1')),
    ('generator.width', ('--config.generator.width=1', '--config.generator.width=2')),
    ('data.augment.turn', ('--config.data.augment.turn', '--noconfig.data.augment.turn'))])
def test_a_key_given_twice_is_refused(key: str, flags: tuple[str, ...]) -> None:
  with pytest.raises(InputError, match=f'^--config.{key}: .*2 times'):
    parse('--config=srresnet:sample', *flags)
