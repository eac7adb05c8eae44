# Sourced by the other scripts: creates .venv, or updates it if requirements.txt has changed, and
# activates it. Uses $PYTHON, or the first Python of a supported version.

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

# install_requirements FILE... installs these files, unless their content has been installed before.
install_requirements() {
  local wanted stamp=.venv/installed-$(cat "$@" | cksum | cut -d ' ' -f 1)
  if [ -e "$stamp" ]; then return; fi
  echo "Installing $* into .venv ..."
  wanted=()
  for file in "$@"; do wanted+=(-r "$file"); done
  python -m pip install --quiet --disable-pip-version-check "${wanted[@]}" && touch "$stamp"
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
install_requirements requirements.txt || exit 1
