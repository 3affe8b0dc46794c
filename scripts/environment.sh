# Sourced by the other scripts: makes .venv and installs a lock file into it. Needs only Python >= 3.11 with venv.
# shellcheck shell=sh
# The pip of the environment is used with the machine's own configuration; nothing here names where packages come from.

say() { printf '%s\n' "» $*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

find_python() {
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$name" -c 'import ensurepip, venv' 2>/dev/null || die "$name has no venv module. On Debian and Ubuntu: apt install python3-venv"
      printf '%s\n' "$name"
      return
    fi
  done
  die "no Python >= 3.11 found (tried python3, python3.14 … python3.11)"
}

# A virtual environment that was moved or copied still names its old place in its scripts: it is made anew.
usable() {
  .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
    head -n 2 .venv/bin/pip | grep -qF "$(pwd -P)/.venv/bin/python"
}

make_venv() {
  if usable; then return; fi
  [ ! -e .venv ] || [ -e .venv/pyvenv.cfg ] || die ".venv exists and is no virtual environment; move it away"
  python=$(find_python) || exit 1
  say "making .venv with $("$python" -V)"
  "$python" -m venv --clear .venv
}

# The stamp holds what was installed; equal bytes mean there is nothing to do.
wanted() { cat "requirements/$1.txt" pyproject.toml; }
installed() { wanted "$1" | cmp -s - ".venv/.installed-$1"; }

install() { # install demo|test
  make_venv
  if installed "$1"; then return; fi
  say "installing $(grep -c '^[a-z0-9]' "requirements/$1.txt") locked packages into .venv (once; up to a minute)"
  .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement "requirements/$1.txt"
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
  wanted "$1" >".venv/.installed-$1"
  [ "$1" = demo ] || wanted demo >.venv/.installed-demo # test.txt holds all of demo.txt, at the same versions
}
