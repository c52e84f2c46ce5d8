#!/usr/bin/env bash
# Makes .venv with CUDA if needed and runs the launcher on the GPUs of this machine:
#   bash launch/gpu.sh [FLAGS OF semid_jax.launch]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

command -v nvidia-smi >/dev/null ||
  fail "found no NVIDIA driver (nvidia-smi): install it, or use launch/local.sh"
nvidia-smi --list-gpus >&2 || fail "the NVIDIA driver sees no GPU; nvidia-smi says why"
prepare cuda
export SEMID_LAUNCHER="bash $0"
# Without this, jax would go on quietly on the CPU if CUDA did not start.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}"
# To choose among kernels for many small products takes minutes, and the products no time at all.
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false}"
exec "$python" -m semid_jax.launch "$@"
