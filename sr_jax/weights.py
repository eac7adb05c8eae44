"""Inspects, imports, exports and interpolates weight files of super-resolution networks.

  sr-jax weights info RealESRGAN_x4plus.pth
  sr-jax weights import edsr_x2.pt --workdir runs/edsr-x2 --set residual_scale=0.1
  sr-jax weights export --workdir runs/esrgan --output esrgan.safetensors
  sr-jax weights export --workdir runs/esrgan --output esrgan-x4.onnx --check photos
  sr-jax weights interpolate psnr.pth esrgan.pth --alpha 0.8 --output mixed.safetensors

FILE is a `.safetensors` or `.pth` file, an ncnn pair (its `.param` or `.bin`) or the name of a
published network. Supported tensor names are those of BasicSR and Real-ESRGAN (EDSR, MSRResNet,
RRDBNet, SRVGGNetCompact), ESRGAN's old and later ones, EDSR-PyTorch's, SPAN's, SwinIR's, HAT's,
DAT's and PLKSR's (also RealPLKSR's). The network is inferred from names and shapes of the tensors.
What they do not determine has to be given as --set FIELD=VALUE.

Exports are `.safetensors`, `.pth`, `.onnx`, or an ncnn pair (its `.param`).
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sr_jax import restore
from sr_jax.data import folders
from sr_jax.errors import InputError
from sr_jax.metrics import check_export
from sr_jax.pretrained import contents, families, generators
from sr_jax.pretrained.export import graph_files, runtimes
from sr_jax.runs import imported
from sr_jax.system import cli, files

# The formats of exports, and the suffixes that choose them.
SUFFIXES = {'safetensors': ('.safetensors',), 'pth': ('.pth',), 'onnx': ('.onnx',),
            'ncnn': ('.param', '.bin')}
# For --check: a function that refuses if the runtime is missing, and one that opens a file.
RUNTIMES = {'onnx': (runtimes.import_onnxruntime, runtimes.open_onnx),
            'ncnn': (runtimes.import_ncnn, runtimes.open_ncnn)}


def info(args: argparse.Namespace) -> None:
  """Prints which network a weight file contains, or what is known about the file."""
  try:
    model = _load(args.file, args)
  except InputError as error:
    _print_rows(_unknown_network(args, error))
    return
  leaves = jax.tree.leaves(model.variables)
  family = model.family or families.NATIVE
  rows = [('file', model.origin), ('names', family), ('network', model.name),
          *((key, f'{value}{" (assumed, not in the file)" if key in model.assumed else ""}')
            for key, value in model.fields.items()),
          ('parameters', f'{sum(leaf.size for leaf in leaves):,} in {len(leaves)} arrays')]
  _print_rows(rows)
  if args.tensors:
    family = families.fitting_family(model.name, model.generator, family)
    tensors = generators.to_tensors(family, model.name, model.generator, model.variables)
    for name, tensor in tensors.items():
      print(f'{name}  {list(tensor.shape)}  mean {tensor.mean():.4g}  std {np.std(tensor):.4g}')


def _unknown_network(args: argparse.Namespace, error: InputError) -> list[tuple[str, str]]:
  """Returns what is known about a file whose network is not; raises `error` for any other fault."""
  path = files.expand(args.file)
  if args.set or not os.path.isfile(path):  # pathlib raises for names that are too long
    raise error
  try:
    return contents.describe(path, args.key, str(error).removeprefix(f'{path}: '), args.tensors)
  except InputError:  # it is no weight file
    raise error from None


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
  width = max(len(key) for key, _ in rows)
  print('\n'.join(f'{key.ljust(width)}  {value}' for key, value in rows))


def import_(args: argparse.Namespace) -> None:
  """Creates a run from a weight file."""
  model = _load(args.file, args)
  imported.save_imported(args.workdir, model.variables, model.config,
                         {'from': model.origin, 'names': model.family})
  fields = ', '.join(f'{key} {value}' + ' (assumed)' * (key in model.assumed)
                     for key, value in model.fields.items())
  print(f'{args.workdir}: imported {model.name} ({fields}) from {model.origin}, '
        f'{model.family} names')


def export(args: argparse.Namespace) -> None:
  """Writes the generator of a run to a file of other tools."""
  path, kind = _target(args)
  for file in (path, path.with_suffix('.bin')) if kind == 'ncnn' else (path,):
    if file.exists():
      raise InputError(f'{file}: exists already; delete it or choose another --output')
  photos = folders.image_files(args.check) if args.check else []
  if args.check and kind in RUNTIMES:
    RUNTIMES[kind][0]()
  model = restore.load_run(args.workdir, args.step, args.raw)
  _write(model, args, path, kind)
  if not args.check:
    return
  if kind in RUNTIMES:
    run = RUNTIMES[kind][1](path)
  else:
    written = restore.load(path, assumed=model.fields)
    run = check_export.own_run(written.generator, written.variables)
  print('\n'.join(check_export.compare(run, model.generator, model.variables, photos)))


def interpolate(args: argparse.Namespace) -> None:
  """Writes (1 - alpha) * A + alpha * B, where A and B are weight files or runs."""
  paths = [files.expand(source) for source in (args.a, args.b)]
  folders.refuse_originals(dict.fromkeys(paths, args.output))
  # --set and --key only apply to files; the network of a run is known.
  a, b = (restore.load(source) if path.is_dir() else _load(source, args)
          for source, path in zip((args.a, args.b), paths, strict=True))
  model = restore.interpolate(a, b, args.alpha)
  _write(model, args, *_target(args))


def _load(source: str, args: argparse.Namespace) -> restore.Model:
  return restore.load(source, wrapper=args.key, fields=cli.parse_fields(args.set))


def _target(args: argparse.Namespace) -> tuple[pathlib.Path, str]:
  """Returns the path to write and its format."""
  suffix, kind = args.output.suffix.lower(), args.format
  if kind not in (None, *SUFFIXES):
    raise InputError(f'--format {kind!r}: expected one of {", ".join(SUFFIXES)}')
  known = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
  if kind is None and suffix not in known:
    raise InputError(f'{args.output}: expected a file name that ends in .safetensors, .pth, .onnx '
                     'or .param, or --format')
  if kind is not None and known.get(suffix, kind) != kind:
    raise InputError(f'{args.output}: has the suffix of another format than --format {kind}, '
                     f'{SUFFIXES[kind][0]}')
  if kind is not None and suffix not in known:  # a dot in a name such as v1.5 begins no suffix
    return args.output.with_name(args.output.name + SUFFIXES[kind][0]), kind
  kind = known[suffix]
  return args.output.with_suffix('.param') if kind == 'ncnn' else args.output, kind


def _write(model: restore.Model, args: argparse.Namespace, path: pathlib.Path, kind: str) -> None:
  texts, half = cli.parse_texts(args.metadata), args.float16
  if kind in ('onnx', 'ncnn'):
    if args.names:
      raise InputError(f'--names {args.names}: the tensors of an {kind} file have no such names')
    about = graph_files.write(path, kind, model.generator, model.variables, half, texts)
  else:
    family = args.names or families.fitting_family(model.name, model.generator, model.family)
    generators.write_generator(path, family, model.name, model.generator, model.variables, half,
                               texts)
    about = f'{family} names'
  print(f'{path}: wrote {model.name}, {about}, from {model.origin}')


def _parser() -> argparse.ArgumentParser:
  parser = cli.Parser('sr-jax weights', __doc__)
  actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')

  def add_action(function: Callable, name: str, *examples: str) -> argparse.ArgumentParser:
    examples = ''.join(f'  sr-jax weights {name} {example}\n' for example in examples)
    action = actions.add_parser(name, doc=f'{function.__doc__}\n\n{examples}',
                                help=function.__doc__)
    action.set_defaults(function=function)
    return action

  def add_output_options(action: argparse.ArgumentParser) -> None:
    names = '|'.join((*families.FAMILIES, families.NATIVE))
    action.add_argument('--output', required=True, type=cli.path, metavar='FILE',
                        help='a .safetensors, .pth, .onnx or .param file; new, for an export')
    action.add_argument('--format', metavar='|'.join(SUFFIXES),
                        help='by default that of the suffix of --output')
    action.add_argument('--names', default='', metavar=names,
                        help='project whose tensor names to use; by default the one that the '
                        'weights were imported from, or the first that has the network')
    action.add_argument('--float16', action='store_true',
                        help='store weights in float16; an ONNX file is also computed in it')
    action.add_argument('--metadata', action='append', default=[], metavar='KEY=TEXT',
                        help='an entry of the metadata of the file, such as licence=CC0; not in an '
                        'ncnn file')

  action = add_action(info, 'info', 'RealESRGAN_x4plus.pth', 'realesr-animevideov3-x2 --tensors')
  action.add_argument('file', metavar='FILE', help='weight file, run or published network')
  action.add_argument('--tensors', action='store_true',
                      help='also list name, shape, mean and standard deviation of every tensor')
  cli.add_file_options(action)
  action = add_action(import_, 'import', 'RealESRGAN_x4plus.pth --workdir runs/x4plus',
                      'edsr_x2.pt --workdir runs/edsr-x2 --set residual_scale=0.1')
  action.add_argument('file', metavar='FILE', help='weight file or published network')
  action.add_argument('--workdir', required=True, type=cli.path,
                      help='folder of the run to create; must be new or empty')
  cli.add_file_options(action)
  action = add_action(export, 'export', '--workdir runs/esrgan --output esrgan.safetensors',
                      '--workdir runs/esrgan --output esrgan.pth --raw --names esrgan-old',
                      '--workdir runs/esrgan --output esrgan-x4.param --float16 --check photos')
  action.add_argument('--workdir', required=True, type=cli.path, help='folder of the run')
  action.add_argument('--step', default='latest',
                      help="step of a checkpoint, 'latest' (the default) or 'best'")
  action.add_argument('--raw', action='store_true',
                      help='the weights instead of their exponential moving average (EMA)')
  cli.add_import_option(action)
  add_output_options(action)
  action.add_argument('--check', type=cli.path, metavar='DIR',
                      help='run the file on the images in DIR by its own runtime (onnxruntime, '
                      'ncnn) and compare with sr_jax')
  action = add_action(interpolate, 'interpolate',
                      'psnr.pth esrgan.pth --alpha 0.8 --output mixed.safetensors',
                      'runs/rrdb runs/esrgan --alpha 0.5 --output mixed.safetensors')
  action.add_argument('a', metavar='A', help='weight file, run or published network')
  action.add_argument('b', metavar='B', help='weight file, run or published network')
  action.add_argument('--alpha', required=True, type=float, help='from 0 (A) to 1 (B)')
  cli.add_file_options(action)
  add_output_options(action)
  return parser


def main(argv: list[str] | None = None) -> None:
  args = _parser().parse_args(argv)
  args.function(args)


if __name__ == '__main__':
  sys.exit(cli.run(main))
