"""`scann`: Google's ScaNN, told to use our cells as its partition.

S1 is an inner product, so ScaNN can serve it. Its points are the item vectors
[e_c ; E[1, f_1] ... E[L, f_L] ; b_i] and the centres of its leaves are [e_c ; 0 ; 0]: it then
opens leaves in the order of the coarse logits and scores what it finds by S1. ScaNN would choose
leaves of its own; they are replaced in its files (layout of scann 1.4.2).

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from semid_jax import artifacts, disk
from semid_jax.decode.exact import check_query
from semid_jax.decode.index import Index, index_arrays
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query, item_vectors
from semid_jax.decode.topk import tie_hash
from semid_jax.types import InputError

KIND = "scann"
_PARTITIONER = "serialized_partitioner.pb"
_TOKENS = "datapoint_to_token.npy"
_PICKLE = "scann_docids.pkl"


def available() -> bool:
    """Whether the scann package is installed; it exists for Linux only."""
    return importlib.util.find_spec("scann") is not None


class ScannSearcher:
    """One ScaNN searcher per archetype over the cells of an index."""

    def __init__(self, index: Index, searchers: list[Any]) -> None:
        self._index = index
        self._searchers = searchers
        # Row r of archetype a's searcher is the entry lists[a, r]; ScaNN keeps no ids for us,
        # because it would pickle them.
        self._items = np.asarray(index.entry_item)[np.asarray(index.lists)]
        self._sizes = np.diff(np.asarray(index.offsets), axis=1)

    @classmethod
    def build(cls, index: Index, directory: Path) -> ScannSearcher:
        """Builds the searchers, writes them as an artefact and loads them.

        Args:
          index: the catalogue.
          directory: where the artefact will lie; replaced if present.

        Returns:
          The searcher.

        Raises:
          InputError: scann is not installed, or the disk is full.
        """
        _require()
        with disk.atomic_folder(Path(directory)) as folder:
            for a in range(index.n_archetypes):
                part = folder / _name(a)
                part.mkdir()
                _build_one(index, a, part)
            artifacts.seal(folder, KIND, {"index": _fingerprint(index)}, {})
        return cls.load(index, directory)

    @classmethod
    def load(cls, index: Index, directory: Path) -> ScannSearcher:
        """Loads searchers that `build` wrote.

        Args:
          index: the catalogue that they were built from.
          directory: the artefact.

        Returns:
          The searcher.

        Raises:
          InputError: scann is not installed; the artefact is torn, foreign or of another index.
        """
        _require()
        directory = Path(directory)
        manifest = artifacts.check(directory, KIND)
        if manifest["inputs"].get("index") != _fingerprint(index):
            raise InputError(
                f"{directory}: built from another index; delete it and run the index stage again"
            )
        parts = [directory / _name(a) for a in range(index.n_archetypes)]
        return cls(index, [_load_one(part) for part in parts])

    def retrieve(self, query: Query, probes: int, k: int) -> Retrieved:
        """The k best items under S1 inside the P best cells, by ScaNN.

        Not jittable. Ties inside the list go by the tie hash; which of several items that tie
        with rank k is returned is ScaNN's choice.

        Args:
          query: B users.
          probes: P, leaves searched per user.
          k: items returned.

        Returns:
          items, scores (equal to `inverted` up to rounding) and the number of entries scored.
        """
        check_query(self._index, query)
        probes = min(probes, self._index.n_cells)
        vectors = np.asarray(query.vector, np.float32)
        archetypes = np.asarray(query.archetype)
        coarse = np.asarray(query.coarse)
        items = np.zeros((len(vectors), k), np.int32)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        best = np.argpartition(-coarse, probes - 1, axis=1)[:, :probes]
        scored = self._sizes[archetypes[:, None], best].sum(axis=1)
        for a in np.unique(archetypes):
            users = np.flatnonzero(archetypes == a)
            found = self._search(int(a), vectors[users], probes, k)
            width = found[0].shape[1]
            items[users, :width] = found[0]
            scores[users, :width] = found[1]
        return Retrieved(jnp.asarray(items), jnp.asarray(scores), jnp.asarray(scored, jnp.int32))

    def _search(
        self, archetype: int, vectors: np.ndarray, probes: int, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Users of one archetype: (items int32[b, <= k], scores float32[b, <= k])."""
        row, found = self._searchers[archetype].search_batched_parallel(
            np.ascontiguousarray(vectors),
            final_num_neighbors=min(k, self._index.n_items),
            leaves_to_search=probes,
            batch_size=-(-len(vectors) // (os.cpu_count() or 1)),
        )
        missing = np.isnan(found)  # fewer items than asked for
        item: np.ndarray = np.where(missing, 0, self._items[archetype][row])
        score: np.ndarray = np.where(missing, -np.inf, found)
        order = np.lexsort((tie_hash(item), -score), axis=1)
        return np.take_along_axis(item, order, axis=1), np.take_along_axis(score, order, axis=1)


def _build_one(index: Index, archetype: int, folder: Path) -> None:
    """Builds and serialises the searcher of one archetype, with our cells as its leaves."""
    from scann.scann_ops.py import scann_ops_pybind

    entry = index.lists[archetype]
    codes = index.entry_coarse[entry], index.entry_fine[entry]
    points = np.asarray(item_vectors(index.tables, *codes, index.entry_bias[entry]))
    leaves = min(index.n_cells, len(points))
    # The partition is thrown away, so it is trained as little as ScaNN allows.
    builder = scann_ops_pybind.builder(points, 1, "dot_product").tree(
        num_leaves=leaves,
        num_leaves_to_search=1,
        training_sample_size=min(len(points), 4 * leaves),
        training_iterations=1,
    )
    with _quiet():
        builder.score_brute_force().build().serialize(str(folder), relative_path=True)
    _replace_leaves(folder, np.asarray(index.tables.coarse), points.shape[1])
    np.save(folder / _TOKENS, np.asarray(codes[0]))


def _replace_leaves(folder: Path, coarse: np.ndarray, width: int) -> None:
    """Writes centres [e_c ; 0 ; 0] over those of ScaNN, one leaf per cell, also an empty one."""
    from scann.partitioning import partitioner_pb2

    partitioner = partitioner_pb2.SerializedPartitioner()
    partitioner.ParseFromString((folder / _PARTITIONER).read_bytes())
    root = partitioner.kmeans.kmeans_tree.root
    leaf = type(root.children[0])()
    leaf.CopyFrom(root.children[0])
    del root.centers[:]
    del root.children[:]
    centres = np.pad(coarse, ((0, 0), (0, width - coarse.shape[1])))
    for cell, centre in enumerate(centres.tolist()):
        root.centers.add().dimension.extend(centre)
        leaf.leaf_id = cell
        root.children.add().CopyFrom(leaf)
    partitioner.n_tokens = len(centres)
    (folder / _PARTITIONER).write_bytes(partitioner.SerializeToString())


def _load_one(folder: Path) -> Any:
    from scann.scann_ops.py import scann_ops_pybind

    if (folder / _PICKLE).exists():
        raise InputError(f"{folder / _PICKLE}: a pickle, which is never loaded; delete {folder}")
    with _quiet():
        return scann_ops_pybind.load_searcher(str(folder))


def _require() -> None:
    if not available():
        raise InputError(
            "decode.methods: scann is not installed (it exists for Linux only); "
            "pip install scann, or take it out of decode.methods"
        )


def _name(archetype: int) -> str:
    return f"archetype_{archetype}"


def _fingerprint(index: Index) -> str:
    """sha256 over the index's arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(index_arrays(index).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps ScaNN's C++ log of every build, which no setting turns off, out of the terminal."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
