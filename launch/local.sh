#!/usr/bin/env bash
# Makes .venv if needed and runs the launcher: bash launch/local.sh [FLAGS OF semid_jax.launch]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare
export SEMID_LAUNCHER="bash $0"
exec "$python" -m semid_jax.launch "$@"
