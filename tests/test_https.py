"""Downloads never use an unencrypted connection, neither directly nor by a redirect."""

import io
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import requests

from sr_jax.data import div2k
from sr_jax.errors import InputError
from sr_jax.system import https


class Server(requests.adapters.BaseAdapter):
  """Answers every https request with a redirect to `location`, or with a file."""

  def __init__(self, location: str = '') -> None:
    super().__init__()
    self.location = location

  def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
    response = requests.Response()
    response.status_code, response.url, response.request = 200, request.url, request
    if self.location:
      response.status_code, response.headers['Location'] = 302, self.location
    response.raw = io.BytesIO(b'1234')
    return response

  def close(self) -> None:
    pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
  """Returns serve(location), which replaces every https server by `Server(location)`."""
  session = https.session

  def replace(location: str = '') -> None:
    def mocked_session() -> requests.Session:
      mocked = session()
      mocked.mount('https://', Server(location))
      return mocked
    monkeypatch.setattr(https, 'session', mocked_session)
  return replace


@pytest.mark.parametrize('url', ['http://example.org/a.pth', 'HTTP://example.org/a.pth'])
def test_http_is_refused(tmp_path: pathlib.Path, url: str) -> None:
  with pytest.raises(InputError, match=r'(?i)http://example\.org/a\.pth: .*https'):
    https.fetch(url, tmp_path / 'a')
  archive = div2k.Archive(url, 4, '0' * 64, 'a.zip')
  with pytest.raises(InputError, match=r'(?i)http://example\.org/a\.pth: .*https'):
    div2k._download(archive, tmp_path / 'a.zip.part')
  assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_http_is_refused(tmp_path: pathlib.Path, serve: Callable[..., None]) -> None:
  serve('http://example.org/b.pth')
  with pytest.raises(InputError, match=r'http://example\.org/b\.pth: .*https'):
    https.fetch('https://example.org/a.pth', tmp_path / 'a')
  with pytest.raises(InputError, match=r'http://example\.org/b\.pth: .*https'):
    div2k._download(div2k.Archive('https://example.org/a.zip', 4, '0' * 64, 'a.zip'),
                    tmp_path / 'a.zip.part')
  assert list(tmp_path.iterdir()) == []


def test_other_schemes_and_local_files_are_refused(
    tmp_path: pathlib.Path, serve: Callable[..., None]) -> None:
  serve('file:///etc/passwd')
  for url in ('file:///etc/passwd', 'ftp://example.org/a.pth', 'https://example.org/a.pth'):
    with pytest.raises((OSError, ValueError)):
      https.fetch(url, tmp_path / 'a')
  assert list(tmp_path.iterdir()) == []


def test_https_is_fetched(tmp_path: pathlib.Path, serve: Callable[..., None]) -> None:
  serve()
  https.fetch('https://example.org/a.pth', tmp_path / 'a')
  assert (tmp_path / 'a').read_bytes() == b'1234'
