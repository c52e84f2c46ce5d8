#!/usr/bin/env bash
# Makes .venv if needed and checks everything: bash launch/test.sh [FLAGS OF pytest]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare dev
cd "$root"
"$python" -m ruff check
"$python" -m ruff format --check
"$python" -m mypy
# Most of the time is compilation, on one core each.
exec "$python" -m pytest -n 2 --dist=worksteal "$@"
