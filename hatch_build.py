"""Gives the package the dependencies in the requirement files, so that each is written once."""

import pathlib
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Requirements(MetadataHookInterface):
  """Fills in `dependencies` and `optional-dependencies` of pyproject.toml."""

  def update(self, metadata: dict[str, Any]) -> None:
    metadata['dependencies'] = self._read('requirements.txt')
    metadata['optional-dependencies'] = {
        **self.config['extras'], 'test': self._read('tests/requirements.txt')}

  def _read(self, name: str) -> list[str]:
    lines = pathlib.Path(self.root, name).read_text('utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]
