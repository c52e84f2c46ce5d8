#!/usr/bin/env bash
# Runs the launcher on a Cloud TPU VM, one host with all its chips. Called where gcloud is:
#   export TPU_NAME=... ZONE=... [PROJECT=...]
#   bash launch/tpu_vm.sh setup                                 copies this commit, installs it
#   bash launch/tpu_vm.sh run [FLAGS OF semid_jax.launch]       runs it; Ctrl-C stops it
#   bash launch/tpu_vm.sh fetch WORKDIR TO                      copies results from worker 0
# Called on a worker by `run`:
#   bash launch/tpu_vm.sh worker [FLAGS OF semid_jax.launch]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# The folder on each worker; relative to the home folder there.
remote="${REMOTE:-semid_jax}"

require() {
  local name
  for name in "$@"; do
    [[ -n "${!name:-}" ]] || fail "$name is not set: export $name=..., see the head of $0"
  done
  command -v gcloud >/dev/null || fail "gcloud is missing: install the Google Cloud CLI"
}

tpu() {
  local verb="$1"
  shift
  gcloud compute tpus tpu-vm "$verb" "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
}

on_all_workers() {
  tpu ssh "$TPU_NAME" --worker=all --command="$1"
}

setup() {
  require TPU_NAME ZONE
  local archive
  archive="$(mktemp -d)/semid_jax.tar.gz"
  trap 'rm -r "$(dirname "'"$archive"'")"' EXIT
  git -C "$root" archive --format=tar.gz --output="$archive" HEAD
  tpu scp "$archive" "$TPU_NAME:semid_jax.tar.gz" --worker=all
  # The images of TPU VMs come with Python 3.10.
  on_all_workers "set -e
    command -v python3.11 >/dev/null || {
      sudo apt-get update -q && sudo apt-get install -qy python3.11 python3.11-venv
    }
    mkdir -p $remote && tar -xzf semid_jax.tar.gz -C $remote
    cd $remote && source launch/environment.sh && prepare tpu"
}

case "${1:-}" in
  setup)
    setup
    ;;
  run)
    require TPU_NAME ZONE
    shift
    # Quoted again, since the worker's shell reads the line once more.
    on_all_workers "cd $remote && bash launch/tpu_vm.sh worker ${1+$(printf '%q ' "$@")}"
    ;;
  fetch)
    require TPU_NAME ZONE
    [[ $# -eq 3 ]] || fail "fetch needs WORKDIR and TO"
    [[ ! -e "$3/results" ]] || fail "$3/results is there already: name another folder"
    mkdir -p "$3"
    tpu scp --recurse "$TPU_NAME:$remote/$2/results" "$3" --worker=0
    ;;
  worker)
    shift
    prepare tpu
    export SEMID_LAUNCHER="bash launch/tpu_vm.sh run"
    export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu}"
    exec "$python" -m semid_jax.launch "$@"
    ;;
  *)
    fail "expected setup, run, fetch or worker; see the head of $0"
    ;;
esac
