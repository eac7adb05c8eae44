"""The layout of sr_jax: imports go one way, and some packages are never imported early."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LEVELS = (  # a module imports from its own package and from earlier levels only
    ('errors',),
    ('system',),
    ('images',),
    ('models', 'losses', 'data', 'media'),
    ('step', 'inference', 'pretrained', 'resize'),
    ('runs', 'metrics'),
    ('restore', 'experiment', 'report', 'score'),
    ('train', 'profiling', 'evaluate', 'upscale', 'weights', 'app'),
    ('main',), ('__main__',))
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
# Imported inside functions, where needed.
OPTIONAL = ('tensorflow', 'torch', 'onnx', 'onnxruntime', 'ncnn', 'gradio', 'pillow_heif')
FILES = sorted((ROOT / 'sr_jax').rglob('*.py'))


def part_of(name: str) -> str:
  """Returns the entry of sr_jax/ that a module belongs to: 'data' for 'sr_jax.data.feed'."""
  parts = name.split('.')
  return parts[1] if len(parts) > 1 else ''


def module_name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_names(tree: ast.AST) -> list[str]:
  """Returns the full names that import statements name, wherever in the file they are."""
  names = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  return names


def at_module_level(tree: ast.Module) -> ast.Module:
  """Returns the tree without functions and without what only a type checker reads."""
  class Cut(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.If | None:
      return None if ast.unparse(node.test).endswith('TYPE_CHECKING') else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
      return None

  return Cut().visit(tree)


def test_every_entry_has_a_level():
  entries = {path.stem for path in (ROOT / 'sr_jax').iterdir()
             if path.suffix == '.py' or (path / '__init__.py').exists()} - {'__init__'}
  assert entries == set(LEVEL)
  assert len(entries) <= 25


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
  own = part_of(module_name(path))
  if not own:  # sr_jax/__init__.py hands on `load` and loads it late
    return
  for name in imported_names(ast.parse(path.read_text())):
    other = part_of(name) if name.split('.')[0] == 'sr_jax' else own
    if name == 'sr_jax':  # the package itself, for its version
      continue
    assert other == own or LEVEL[other] < LEVEL[own], f'{own} imports {name}'


def test_modules_of_a_package_import_one_another_without_a_cycle():
  names = {module_name(path): path for path in FILES}
  graph = {}
  for name, path in names.items():
    found = imported_names(at_module_level(ast.parse(path.read_text())))
    graph[name] = {candidate for full in found for candidate in (full, full.rpartition('.')[0])
                   if candidate in names and candidate != name}
  done, active = set(), []

  def visit(name: str) -> None:
    assert name not in active, ' -> '.join([*active[active.index(name):], name])
    if name not in done:
      active.append(name)
      for other in sorted(graph[name]):
        # `from sr_jax.images import color` names the package, too; its __init__ hands on names.
        if names[other].name != '__init__.py':
          visit(other)
      active.pop()
      done.add(name)

  for name in sorted(graph):
    visit(name)


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')),
                         ids=lambda path: path.name)
def test_configs_import_nothing_but_sr_jax(path):
  """A wheel has them as data below sr_jax/, where no config file could import another one."""
  names = imported_names(ast.parse(path.read_text()))
  assert {name.split('.')[0] for name in names} <= {'sr_jax', 'ml_collections'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_late(path):
  names = imported_names(at_module_level(ast.parse(path.read_text())))
  assert not [name for name in names if name.split('.')[0] in OPTIONAL]


@pytest.mark.parametrize('path', [path for path in FILES if part_of(module_name(path)) in LEVEL
                                  and LEVEL[part_of(module_name(path))] < LEVEL['experiment']],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_no_config_below_the_experiment(path):
  """Plain values and plain dicts only: config.json is read as a dict."""
  tree = ast.parse(path.read_text())
  assert not [name for name in imported_names(tree) if name.split('.')[0] == 'ml_collections']
  for node in ast.walk(tree):
    if isinstance(node, ast.arg) and node.arg == 'config':
      text = ast.unparse(node.annotation) if node.annotation else ''
      assert text.startswith(('dict', 'Mapping')), f'{path.name}: config: {text or "untyped"}'
    assert not (isinstance(node, (ast.Name, ast.Attribute))
                and getattr(node, 'id', getattr(node, 'attr', '')) == 'ConfigDict')
