"""What `command.run` returns where nobody can be told."""

import subprocess
import sys


def test_the_status_stays_where_nobody_can_be_told():
  code = ('import sys; from sr_jax.system import cli; '
          'sys.exit(cli.run(lambda: cli.refuse("y", 129)))')
  with open('/dev/full', 'w') as full:
    assert subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full).returncode == 129
