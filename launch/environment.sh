# Makes .venv in the repository; sourced by the scripts beside it.
# Needs nothing but Python 3.11 or newer; PYTHON=/path/to/python chooses one.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
python="$venv/bin/python"
stamp="$venv/installed.txt"
# glibc then asks for huge pages: a training step on a CPU takes up to a fifth less time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
# Else every process compiles the two thousand modules that it imports: 8 to 13 seconds.
unset PYTHONDONTWRITEBYTECODE

fail() {
  echo "error: $*" >&2
  exit 2
}

# Prints the first Python that is new enough and can make environments.
find_python() {
  local name
  for name in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
    then
      command -v "$name"
      return
    fi
  done
  fail "found no Python 3.11 or newer with venv: install one" \
    "(Debian, Ubuntu: apt install python3.11 python3.11-venv) or name it by PYTHON=/path/to/python"
}

# Changes whenever the environment must be installed again; moving the repository counts.
fingerprint() {
  { echo "$root"; cat "$root/pyproject.toml" "$root/constraints.txt"; } | cksum
}

# prepare [EXTRA]: makes .venv and installs the package with an extra (dev, cuda, tpu) into it.
# Does nothing if that was done already and neither pyproject.toml nor constraints.txt changed.
prepare() {
  local extra="${1:-}" print base log="$venv/install.log" start=$SECONDS
  print="$(fingerprint)"
  if "$python" -c '' 2>/dev/null; then
    # Whatever was installed, the plain package is part of it.
    if grep -qsx "${extra:-.*}: $print" "$stamp"; then
      return
    fi
  else
    base="$(find_python)"
    echo "Making $venv with $("$base" --version)" >&2
    "$base" -m venv --clear "$venv" || fail "$base -m venv $venv failed; see above"
  fi
  echo "Installing semid_jax${extra:+[$extra]} and what it needs (some minutes the first time)" >&2
  if ! PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --no-input \
    --disable-pip-version-check --no-compile --constraint "$root/constraints.txt" \
    --editable "$root${extra:+[$extra]}" >"$log" 2>&1
  then
    tail -n 5 "$log" >&2
    fail "pip could not install semid_jax${extra:+[$extra]}; the whole log is $log"
  fi
  # Lines of an older fingerprint are no longer true.
  { grep -s ": $print\$" "$stamp" || true; echo "$extra: $print"; } >"$stamp.new"
  mv "$stamp.new" "$stamp"
  echo "Installed in $((SECONDS - start)) s" >&2
}
