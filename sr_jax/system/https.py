"""Downloads over https only, redirects included."""

import os
from typing import Any, NoReturn

import requests
import tqdm

from sr_jax.errors import InputError


class _HttpsOnly(requests.adapters.BaseAdapter):
  """A transport adapter that refuses every http request, whether direct or redirected."""

  def send(self, request: requests.PreparedRequest, **_: Any) -> NoReturn:
    raise InputError(f'{request.url}: not downloaded; only https is supported')

  def close(self) -> None:
    pass


def session() -> requests.Session:
  """Returns a session whose http requests raise InputError before anything is sent."""
  https_session = requests.Session()
  https_session.mount('http://', _HttpsOnly())
  return https_session


def fetch(url: str, target: os.PathLike | str, _: Any = None) -> None:
  """Writes the content of `url` to the file `target`, with a progress bar.

  A `downloader` for pooch, which passes itself as the third argument and verifies the hash.

  Raises:
    InputError: the address or a redirect is not https.
    requests.RequestException: the request failed; an OSError.
  """
  with session() as https, https.get(url, stream=True, timeout=60) as response:
    response.raise_for_status()
    size = int(response.headers.get('Content-Length', 0)) or None
    with (open(target, 'wb') as file,
          tqdm.tqdm(total=size, unit='B', unit_scale=True, leave=False, disable=None) as bar):
      for chunk in response.iter_content(1 << 16):
        bar.update(file.write(chunk))
