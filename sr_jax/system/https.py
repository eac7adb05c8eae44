"""Fetches over https and nothing else, wherever a server may send one on to."""

import requests
import tqdm

from sr_jax.errors import InputError


class _Refused(requests.adapters.BaseAdapter):
  """What is asked for over http, the first time or by a redirect, is not asked for."""

  def send(self, request, **_):
    raise InputError(f'{request.url}: not fetched: files come over https alone')

  def close(self):
    pass


def session() -> requests.Session:
  """For requests, each of which raises InputError before it goes out unencrypted."""
  made = requests.Session()
  made.mount('http://', _Refused())
  return made


def fetch(url: str, target, _=None) -> None:
  """Writes what is at `url` to the file `target`; pooch's `downloader`, who compares the hash.

  Raises:
    InputError: it is not over https. requests' errors, which are OSErrors.
  """
  with session() as https, https.get(url, stream=True, timeout=60) as response:
    response.raise_for_status()
    size = int(response.headers.get('Content-Length', 0)) or None
    with (open(target, 'wb') as file,
          tqdm.tqdm(total=size, unit='B', unit_scale=True, leave=False, disable=None) as bar):
      for chunk in response.iter_content(1 << 16):
        bar.update(file.write(chunk))
