"""Writes HTML reports of runs, and comparison figures.

  sr-jax report runs/srgan                          (writes runs/srgan/report.html)
  sr-jax report runs/srresnet runs/srgan --output both.html
  sr-jax report runs/rates                          (all runs inside: runs/rates/report.html)
  sr-jax report compare --hr data/Set14/HR --sr SRResNet=results/srresnet \\
      --sr SRGAN=results/srgan --output figure.pdf

`compare --help` describes the comparison figure.
"""

import sys

from sr_jax.errors import InputError, listed
from sr_jax.report import page, sweeps
from sr_jax.system import cli


def main(argv: list[str] | None = None) -> None:
  argv = sys.argv[1:] if argv is None else argv
  if argv[:1] == ['compare']:
    from sr_jax.report import figure
    figure.main(argv[1:])
    return
  parser = cli.Parser('sr-jax report', __doc__)
  parser.add_argument('runs', nargs='+', metavar='RUN', type=cli.path,
                      help='run folders, or folders whose subfolders are runs')
  parser.add_argument('--output', metavar='FILE', type=cli.path,
                      help='the HTML file to write; required for several runs (default for one: '
                      'RUN/report.html, for one folder of runs: FOLDER/report.html)')
  args = parser.parse_args(argv)
  output = args.output
  if output is None and len(args.runs) > 1:
    raise InputError('--output is missing: a report of several runs needs a file name')
  if output is not None and output.suffix.lower() not in ('.html', '.htm'):
    raise InputError(f'--output {output}: expected a file name that ends in .html')
  if output is not None and output.is_dir():
    raise InputError(f'{output}: cannot write the report (it is a folder)')
  runs = sweeps.read(args.runs)
  for note in runs.notes:
    print(note)
  running = [run.name for run in runs.histories if run.running]
  if running:
    print(f'still running: {listed(running)}')
  print(page.write_runs(runs, output))


if __name__ == '__main__':
  sys.exit(cli.run(main))
