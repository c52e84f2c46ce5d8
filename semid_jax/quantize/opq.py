"""Optimised product quantisation: a rotation, then codewords per sub-space."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.quantize import kmeans, nearest


def fit_opq(
    z: np.ndarray,
    digits: int,
    codewords: int,
    iterations: int,
    rotation_iterations: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits the rotation and the sub-spaces' codewords by turns (OPQ, non-parametric).

    Args:
      z: f32[n, D], n >= codewords.
      digits: L, divides D.
      codewords: K.
      iterations: Lloyd steps in all; at least 5 of them after the last turn.
      rotation_iterations: turns of (Lloyd step, rotate).
      seed: of the k-means++ start.

    Returns:
      (f32[D, D] orthogonal rotation, applied as z @ rotation; f32[L, K, D // L] codewords).

    See Ge, He, Ke & Sun 2013, "Optimized product quantization for approximate nearest neighbor
    search", sections 3.1 (turns) and 3.2 (start by eigenvalue allocation).
    """
    rotation = allocate_eigenvalues(z, digits)
    parts = (z @ rotation).reshape(len(z), digits, -1)
    sample = kmeans.start_sample(parts, codewords, seed)
    start = kmeans.start_centroids(sample, codewords, jax.random.key(seed))
    fine = np.asarray(start)
    for turn in range(rotation_iterations + 1):
        parts = (z @ rotation).reshape(len(z), digits, -1)
        sharded = kmeans.shard_points(parts, groups_times=digits * codewords)
        sample = kmeans.start_sample(parts, codewords, seed)
        # The turns were Lloyd steps too: only the rest is left for the end.
        steps = 1 if turn < rotation_iterations else max(iterations - rotation_iterations, 5)
        fine = np.asarray(kmeans.lloyd(sharded, fine, sample, steps))
        if turn < rotation_iterations:
            codes = np.asarray(nearest.nearest_chunked(parts, fine)[0])
            rotation = procrustes(z, fine[np.arange(digits), codes].reshape(len(z), -1))
    return rotation, fine


def allocate_eigenvalues(z: np.ndarray, digits: int) -> np.ndarray:
    """The principal axes, dealt out so that every sub-space has about the same product of them.

    Args:
      z: f32[n, D].
      digits: L, divides D.

    Returns:
      f32[D, D] orthogonal.
    """
    centred = z - z.mean(axis=0, keepdims=True)
    width = z.shape[1]
    values, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(z))
    # Logs shifted to be positive, so that an axis always fills its bucket up.
    logs = np.log(np.maximum(values, 1e-10 * max(values[-1], 1e-30)))
    logs = logs - logs.min() + 1.0
    buckets: list[list[int]] = [[] for _ in range(digits)]
    filled = np.zeros(digits)
    for axis in np.argsort(-values, kind="stable"):
        bucket = int(np.argmin(filled))
        buckets[bucket].append(int(axis))
        filled[bucket] += logs[axis]
        if len(buckets[bucket]) == width // digits:
            filled[bucket] = np.inf
    return np.asarray(axes[:, np.concatenate(buckets).astype(int)], np.float32)


def procrustes(z: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The orthogonal R that brings z @ R closest to the target (Schönemann 1966).

    Args:
      z: f32[n, D].
      target: f32[n, D].

    Returns:
      f32[D, D].
    """
    left, _, right = np.linalg.svd((z.T @ target).astype(np.float64))
    return np.asarray(left @ right, np.float32)


def fit_levels(
    left: np.ndarray,
    levels: int,
    codewords: int,
    iterations: int,
    seed: int,
    fit: Callable[[np.ndarray, int, int, int], np.ndarray] = kmeans.fit_progressive,
) -> np.ndarray:
    """Residual k-means: each level quantises what the levels before it leave over.

    Args:
      left: f32[n, D].
      levels: L.
      codewords: K.
      iterations: Lloyd steps per level.
      seed: of the starts.
      fit: k-means of a level, points, K, steps and seed to f32[K, D].

    Returns:
      f32[L, K, D].
    """
    fine = []
    for level in range(levels):
        words = fit(left, codewords, iterations, seed + level)
        codes = nearest.nearest_chunked(jnp.asarray(left)[:, None, :], words[None])[0]
        left = left - words[np.asarray(codes)[:, 0]]
        fine.append(words)
    return np.stack(fine)
