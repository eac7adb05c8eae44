# Sourced by the other scripts: creates .venv, installs this repository into it, again if what it
# requires has changed, and activates it. Uses $PYTHON, or the first Python of a supported version.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; }
version_of() { "$1" -c 'import platform; print(platform.python_version())'; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    if is_supported "$PYTHON"; then echo "$PYTHON"; return; fi
    echo "PYTHON=$PYTHON: expected Python 3.11, 3.12 or 3.13." >&2
    return 1
  fi
  for candidate in python3 python3.13 python3.12 python3.11; do
    if is_supported "$candidate" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.11, 3.12 or 3.13 found. Install one, or set PYTHON to its path." >&2
  return 1
}

# install ARGUMENTS... passes them to pip install, unless that was done before with the same files.
install() {
  local stamp
  stamp=.venv/installed-$({ echo "$*"; cat pyproject.toml requirements.txt tests/requirements*.txt; } |
    cksum | cut -d ' ' -f 1)
  if [ -e "$stamp" ]; then return; fi
  echo "Installing $* into .venv ..."
  python -m pip install --quiet --disable-pip-version-check "$@" && touch "$stamp"
}

if [ ! -e .venv/bin/activate ]; then
  chosen=$(find_python) || exit 1
  echo "Creating .venv with $("$chosen" --version) ..."
  "$chosen" -m venv .venv || { rm -rf .venv; exit 1; }
fi
source .venv/bin/activate
if [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$(version_of python)" ]; then
  echo "PYTHON=$PYTHON: .venv was created with Python $(version_of python); delete .venv first." >&2
  exit 1
fi
install -e . || exit 1  # editable: .venv/bin/sr-jax runs the code of this repository
