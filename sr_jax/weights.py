"""Networks of other tools in, networks of ours out.

  python -m sr_jax.weights info RealESRGAN_x4plus.pth
  python -m sr_jax.weights import edsr_x2.pt --workdir runs/edsr-x2 --set residual_scale=0.1
  python -m sr_jax.weights export --workdir runs/esrgan --output esrgan.safetensors
  python -m sr_jax.weights interpolate psnr.pth esrgan.pth --alpha 0.8 --output mixed.safetensors

FILE is `.safetensors`, `.pth`, an ncnn pair (`.param` or `.bin`) or the name of a published
network. Read are BasicSR's and Real-ESRGAN's names (EDSR, MSRResNet, RRDBNet,
SRVGGNetCompact), ESRGAN's old and later ones and EDSR-PyTorch's; the network is told from
names and shapes, and what these can't tell is asked for, as --set FIELD=VALUE.
"""

import sys

import jax
import numpy as np

from sr_jax import restore
from sr_jax.data import folders
from sr_jax.pretrained import generators
from sr_jax.runs import imported
from sr_jax.system import cli, files


def info(args) -> None:
  """Prints which network a file holds."""
  model = _load(args.file, args)
  leaves = jax.tree.leaves(model.variables)
  rows = [('file', model.origin), ('names', model.names or generators.OWN), ('network', model.name),
          *((key, f'{value}{" (usual; the file does not say)" if key in model.usual else ""}')
            for key, value in model.fields.items()),
          ('parameters', f'{sum(leaf.size for leaf in leaves):,} in {len(leaves)} arrays')]
  width = max(len(key) for key, _ in rows)
  print('\n'.join(f'{key.ljust(width)}  {value}' for key, value in rows))
  if args.tensors:
    family = generators.fitting_family(model.name, model.generator, model.names or generators.OWN)
    tensors = generators.to_tensors(family, model.name, model.generator, model.variables)
    for name, tensor in tensors.items():
      print(f'{name}  {list(tensor.shape)}  mean {tensor.mean():.4g}  std {np.std(tensor):.4g}')


def import_(args) -> None:
  """Makes a run of a file."""
  model = _load(args.file, args)
  imported.save_imported(args.workdir, model.variables, model.config,
                {'from': model.origin, 'names': model.names})
  fields = ', '.join(f'{key} {value}' + ' (usual)' * (key in model.usual)
                     for key, value in model.fields.items())
  print(f'{args.workdir}: {model.name} ({fields}) from {model.origin}, {model.names} names')


def export(args) -> None:
  """Writes the generator of a run to a file."""
  model = restore.load_run(args.workdir, args.step, args.raw)
  _write(model, args.output, args.names)


def interpolate(args) -> None:
  """Writes (1 - alpha) * A + alpha * B, of two files or runs."""
  paths = [files.expand(source) for source in (args.a, args.b)]
  folders.refuse_originals(dict.fromkeys(paths, args.output))
  # --set and --key are for files; of a run all is known.
  a, b = (restore.load(source) if path.is_dir() else _load(source, args)
          for source, path in zip((args.a, args.b), paths, strict=True))
  _write(restore.interpolate(a, b, args.alpha), args.output, args.names)


def _load(source, args) -> restore.Model:
  return restore.load(source, wrapper=args.key, fields=cli.parse_fields(args.set))


def _write(model: restore.Model, path, names: str) -> None:
  names = names or generators.fitting_family(model.name, model.generator, model.names)
  generators.write_generator(path, names, model.name, model.generator, model.variables)
  print(f'{path}: {model.name}, {names} names, {model.origin}')


def main(argv: list[str] | None = None) -> None:
  parser = cli.Parser('python -m sr_jax.weights', __doc__)
  actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')

  def action(function, name, *examples):
    examples = ''.join(f'  python -m sr_jax.weights {name} {example}\n' for example in examples)
    added = actions.add_parser(name, doc=f'{function.__doc__}\n\n{examples}', help=function.__doc__)
    added.set_defaults(function=function)
    return added

  def writes(added):
    added.add_argument('--output', required=True, type=cli.path, metavar='FILE.safetensors')
    added.add_argument('--names', default='', metavar='|'.join((*generators.FAMILIES,
                                                                generators.OWN)),
                       help='whose names; those that the weights came with, or the usual')

  added = action(info, 'info', 'RealESRGAN_x4plus.pth', 'realesr-animevideov3-x2 --tensors')
  added.add_argument('file', metavar='FILE')
  added.add_argument('--tensors', action='store_true', help='every tensor, too')
  cli.add_file_options(added)
  added = action(import_, 'import', 'RealESRGAN_x4plus.pth --workdir runs/x4plus',
                 'edsr_x2.pt --workdir runs/edsr-x2 --set residual_scale=0.1')
  added.add_argument('file', metavar='FILE')
  added.add_argument('--workdir', required=True, type=cli.path, help='the run, a new folder')
  cli.add_file_options(added)
  added = action(export, 'export', '--workdir runs/esrgan --output esrgan.safetensors',
                 '--workdir runs/esrgan --output esrgan.safetensors --raw --names esrgan-old')
  added.add_argument('--workdir', required=True, type=cli.path, help='the run')
  added.add_argument('--step', default='latest', help="a number, 'latest' or 'best'")
  added.add_argument('--raw', action='store_true', help='the weights, not their average (EMA)')
  writes(added)
  added = action(interpolate, 'interpolate',
                 'psnr.pth esrgan.pth --alpha 0.8 --output mixed.safetensors',
                 'runs/rrdb runs/esrgan --alpha 0.5 --output mixed.safetensors')
  added.add_argument('a', metavar='A')
  added.add_argument('b', metavar='B')
  added.add_argument('--alpha', required=True, type=float, help='0 is A, 1 is B')
  cli.add_file_options(added)
  writes(added)
  args = parser.parse_args(argv)
  args.function(args)


if __name__ == '__main__':
  sys.exit(cli.run(main))
