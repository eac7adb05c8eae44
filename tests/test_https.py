"""Downloads: nothing goes out unencrypted, neither at once nor by a redirect."""

import io

import pytest
import requests

from sr_jax.data import div2k
from sr_jax.errors import InputError
from sr_jax.system import https


class Server(requests.adapters.BaseAdapter):
  """Answers every https address with a redirect, or with a file."""

  def __init__(self, location=''):
    super().__init__()
    self.location = location

  def send(self, request, **_):
    response = requests.Response()
    response.status_code, response.url, response.request = 200, request.url, request
    if self.location:
      response.status_code, response.headers['Location'] = 302, self.location
    response.raw = io.BytesIO(b'1234')
    return response

  def close(self):
    pass


@pytest.fixture
def served(monkeypatch):
  """served(location): what stands at all https addresses from now on."""
  session = https.session

  def serve(location=''):
    def made():
      ours = session()
      ours.mount('https://', Server(location))
      return ours
    monkeypatch.setattr(https, 'session', made)
  return serve


@pytest.mark.parametrize('url', ['http://example.org/a.pth', 'HTTP://example.org/a.pth'])
def test_http_is_refused(tmp_path, url):
  with pytest.raises(InputError, match=r'(?i)http://example\.org/a\.pth: not fetched'):
    https.fetch(url, tmp_path / 'a')
  archive = div2k.Archive(url, 4, '0' * 64, 'a.zip')
  with pytest.raises(InputError, match='not fetched'):
    div2k._download(archive, tmp_path / 'a.zip.part')
  assert list(tmp_path.iterdir()) == []


def test_so_is_a_redirect_to_it(tmp_path, served):
  served('http://example.org/b.pth')
  with pytest.raises(InputError, match=r'http://example\.org/b\.pth: not fetched'):
    https.fetch('https://example.org/a.pth', tmp_path / 'a')
  with pytest.raises(InputError, match='not fetched'):
    div2k._download(div2k.Archive('https://example.org/a.zip', 4, '0' * 64, 'a.zip'),
                    tmp_path / 'a.zip.part')
  assert list(tmp_path.iterdir()) == []


def test_neither_is_a_file_of_this_machine_fetched(tmp_path, served):
  served('file:///etc/passwd')
  for url in ('file:///etc/passwd', 'ftp://example.org/a.pth', 'https://example.org/a.pth'):
    with pytest.raises((OSError, ValueError)):
      https.fetch(url, tmp_path / 'a')
  assert list(tmp_path.iterdir()) == []


def test_https_is_fetched(tmp_path, served):
  served()
  https.fetch('https://example.org/a.pth', tmp_path / 'a')
  assert (tmp_path / 'a').read_bytes() == b'1234'
