"""k-means with a k-means++ start, for many sub-spaces at once and on all devices."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from semid_jax.quantize import nearest

# k-means++ looks at this many points at least: enough for a start, and its steps are sequential.
START_POINTS = 8192
START_POINTS_PER_CENTROID = 16
WIDTHS = tuple(2**power for power in range(2, 16))  # axes of `fit_progressive`'s stages


def fit_kmeans(
    points: np.ndarray,
    centroids: int,
    iterations: int,
    seed: int,
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray:
    """Lloyd's k-means from a k-means++ start, independently in each group of coordinates.

    Args:
      points: f32[n, G, d], n >= centroids; G = 1 for plain k-means.
      centroids: K.
      iterations: Lloyd steps.
      seed: of the start.
      devices: where to run; None = all devices. The result does not depend on their number
        (beyond rounding).

    Returns:
      f32[G, K, d].

    See Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
    """
    sample = start_sample(points, centroids, seed)
    start = np.asarray(start_centroids(sample, centroids, jax.random.key(seed)))
    sharded = shard_points(points, groups_times=points.shape[1] * centroids, devices=devices)
    return np.asarray(lloyd(sharded, start, sample, iterations))


def fit_plain(points: np.ndarray, centroids: int, iterations: int, seed: int) -> np.ndarray:
    """`fit_kmeans` of whole vectors: f32[n, D] to f32[K, D]."""
    return fit_kmeans(points[:, None], centroids, iterations, seed)[0]


def fit_progressive(points: np.ndarray, centroids: int, iterations: int, seed: int) -> np.ndarray:
    """k-means along the widest axes first, then along twice as many, each from the one before.

    For wide points that have little structure, as what is left over by a level of a residual
    quantiser: there a k-means++ start draws outliers, keeps them as cells of one point, and most
    points share what is left. In few directions cells fill evenly, and more directions move them
    only.

    Args:
      points: f32[n, D], n >= centroids.
      centroids: K.
      iterations: Lloyd steps with all axes, and as many in all before.
      seed: of the start.

    Returns:
      f32[K, D].

    See Liu, Lu & Shao 2015, "Improved residual vector quantization for high-dimensional approximate
    nearest neighbor search" (1509.05195).
    """
    mean = points.mean(axis=0)
    centred = points - mean
    axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, ::-1]
    turned = np.ascontiguousarray(centred @ axes.astype(np.float32))
    width = turned.shape[1]
    widths = [w for w in WIDTHS if w < width] + [width]
    each = max(-(-iterations // len(widths)), 1)
    words = fit_kmeans(turned[:, None, : widths[0]], centroids, each, seed)
    for wide in widths[1:]:
        part = turned[:, None, :wide]
        start = np.pad(words, ((0, 0), (0, 0), (0, wide - words.shape[2])))
        steps = iterations if wide == width else each
        sharded = shard_points(part, groups_times=centroids)
        words = np.asarray(lloyd(sharded, start, start_sample(part, centroids, seed), steps))
    return np.asarray(words[0] @ axes.T.astype(np.float32) + mean, np.float32)


def start_sample(points: np.ndarray, centroids: int, seed: int) -> np.ndarray:
    """A sample of the points, the same whatever the devices, for starts and for empty cells.

    Args:
      points: f32[n, G, d].
      centroids: K.
      seed: of the draw.

    Returns:
      f32[S, G, d], S = max(8192, 16 K) or n if that is less.
    """
    size = max(START_POINTS, START_POINTS_PER_CENTROID * centroids)
    if len(points) <= size:
        return points
    chosen = np.random.default_rng(seed).choice(len(points), size, replace=False)
    return points[np.sort(chosen)]


@functools.partial(jax.jit, static_argnums=1)
def start_centroids(points: jax.Array, centroids: int, key: jax.Array) -> jax.Array:
    """k-means++: each next centroid is a point drawn by its squared distance to those before.

    Args:
      points: f32[S, G, d].
      centroids: K.
      key: random key.

    Returns:
      f32[G, K, d].
    """
    n, groups, width = points.shape
    rows = points.transpose(1, 0, 2)
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (groups,), 0, n)

    def squared(chosen: jax.Array) -> jax.Array:
        return jnp.sum((rows - chosen[:, None, :]) ** 2, axis=-1)

    def pick(number: jax.Array) -> jax.Array:
        return jnp.take_along_axis(rows, number[:, None, None], axis=1)[:, 0]

    def step(distance: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        mass = jnp.cumsum(distance, axis=1)
        # In (0, total]: a point of distance zero is never drawn while any other is left.
        draw = (1.0 - jax.random.uniform(key, (groups, 1))) * mass[:, -1:]
        number = jnp.minimum(jnp.sum(mass < draw, axis=1), n - 1)
        chosen = pick(number)
        return jnp.minimum(distance, squared(chosen)), chosen

    start = pick(first)
    _, others = jax.lax.scan(step, squared(start), jax.random.split(key, centroids - 1))
    return jnp.concatenate([start[None], others]).transpose(1, 0, 2).reshape(groups, -1, width)


def shard_points(
    points: np.ndarray, groups_times: int, devices: Sequence[jax.Device] | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cuts the points into chunks and lays the chunks over the devices.

    Args:
      points: f32[n, G, d].
      groups_times: G K, scores per point, which sets the chunk.
      devices: None = all devices.

    Returns:
      (f32[chunks, G, chunk, d], f32[chunks, chunk] weight 1 for a point and 0 for padding), both
      sharded along the chunks.
    """
    devices = list(jax.devices() if devices is None else devices)
    n, groups, width = points.shape
    chunk = min(nearest.chunk_size(groups_times), -(-n // len(devices)))
    chunks = -(-n // (chunk * len(devices))) * len(devices)
    padded = np.zeros((chunks * chunk, groups, width), np.float32)
    padded[:n] = points
    tiles = np.ascontiguousarray(padded.reshape(chunks, chunk, groups, width).transpose(0, 2, 1, 3))
    weights = (np.arange(chunks * chunk) < n).astype(np.float32).reshape(chunks, chunk)
    mesh = Mesh(np.array(devices), ("points",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("points"))

    def put(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return put(tiles), put(weights)


def cell_sums(
    points: jax.Array, weight: jax.Array, cells: jax.Array, size: int, dense: bool
) -> tuple[jax.Array, jax.Array]:
    """Adds points up by cell.

    Args:
      points: f32[G, n, d].
      weight: f32[n].
      cells: int32[G, n], values below `size`.
      size: K.
      dense: by a product with the one-hot matrix instead of by scattering.

    Returns:
      (f32[G, K, d] sums, f32[G, K] sums of weights).
    """
    if dense:
        member = jax.nn.one_hot(cells, size, dtype=points.dtype) * weight[None, :, None]
        sums = jnp.einsum("gnk,gnd->gkd", member, points, precision=jax.lax.Precision.HIGHEST)
        return sums, jnp.sum(member, axis=1)
    groups, _, width = points.shape
    flat = (cells + jnp.arange(groups, dtype=jnp.int32)[:, None] * size).reshape(-1)
    weights = jnp.broadcast_to(weight, cells.shape)
    sums = (
        jnp.zeros((groups * size, width))
        .at[flat]
        .add((points * weights[:, :, None]).reshape(-1, width))
    )
    counts = jnp.zeros((groups * size,)).at[flat].add(weights.reshape(-1))
    return sums.reshape(groups, size, width), counts.reshape(groups, size)


def lloyd(
    sharded: tuple[jax.Array, jax.Array], start: np.ndarray, sample: np.ndarray, iterations: int
) -> jax.Array:
    """Lloyd steps; a cell left empty restarts at the sample's point that is worst served.

    Args:
      sharded: points and weights from `shard_points`.
      start: f32[G, K, d].
      sample: f32[S, G, d], candidates for empty cells.
      iterations: number of steps.

    Returns:
      f32[G, K, d].
    """
    tiles, weights = sharded
    sharding = tiles.sharding
    if not isinstance(sharding, NamedSharding):
        raise ValueError("lloyd needs points from shard_points")
    return _compiled_lloyd(sharding.mesh)(
        tiles, weights, start, sample, jnp.asarray(iterations, jnp.int32)
    )


@functools.lru_cache(maxsize=8)
def _compiled_lloyd(mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted Lloyd loop over one mesh: each device sums its own chunks, then all add up."""

    # Scatter-add is quickest on a CPU; elsewhere it is slow or adds in no fixed order.
    dense = mesh.devices.flat[0].platform != "cpu"

    def local_sums(
        tiles: jax.Array, weights: jax.Array, centroids: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        def add(
            total: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            points, weight = tile
            cells = nearest.nearest(points, centroids)[0]
            sums, counts = cell_sums(points, weight, cells, centroids.shape[1], dense)
            return (total[0] + sums, total[1] + counts), None

        zeros = (jnp.zeros(centroids.shape), jnp.zeros(centroids.shape[:2]))
        return jax.lax.psum(jax.lax.scan(add, zeros, (tiles, weights))[0], "points")

    spread, whole = PartitionSpec("points"), PartitionSpec()
    global_sums = jax.shard_map(
        local_sums,
        mesh=mesh,
        in_specs=(spread, spread, whole),
        out_specs=(whole, whole),
        check_vma=False,
    )

    @jax.jit
    def run(
        tiles: jax.Array,
        weights: jax.Array,
        start: jax.Array,
        sample: jax.Array,
        iterations: jax.Array,
    ) -> jax.Array:
        def step(_: int, centroids: jax.Array) -> jax.Array:
            sums, counts = global_sums(tiles, weights, centroids)
            means = sums / jnp.maximum(counts, 1.0)[:, :, None]
            moved = jnp.where(counts[:, :, None] > 0, means, centroids)
            return jax.lax.cond(
                jnp.any(counts == 0), _refill, lambda c, *_: c, moved, counts, sample
            )

        return jax.lax.fori_loop(0, iterations, step, start)

    return run


def _refill(centroids: jax.Array, counts: jax.Array, sample: jax.Array) -> jax.Array:
    """Puts the e-th empty cell of each group on the e-th worst served point of the sample."""
    size = centroids.shape[1]
    distances = nearest.nearest_chunked(sample, centroids)[1].T
    wanted = min(size, distances.shape[1])
    distance, worst = jax.lax.top_k(distances, wanted)
    order = jnp.minimum(jnp.cumsum(counts == 0, axis=1) - 1, wanted - 1)
    order = jnp.maximum(order, 0)
    chosen = jnp.take_along_axis(worst, order, axis=1)
    points = jnp.take_along_axis(sample.transpose(1, 0, 2), chosen[:, :, None], axis=1)
    useful = (counts == 0) & (jnp.take_along_axis(distance, order, axis=1) > 0)
    return jnp.where(useful[:, :, None], points, centroids)
