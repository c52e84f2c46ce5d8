"""The decoders of one trained model, as a benchmark sees them: something to call, and its work."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.benchmarks.machine import Work
from semid_jax.benchmarks.served import Served
from semid_jax.decode.config import DecodeConfig, GraphConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.exact_matmul import retrieve_exact_matmul
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import cell_places, retrieve_inverted
from semid_jax.decode.leaves import leaf_places, retrieve_leaves
from semid_jax.decode.pruned import LEAST, retrieve_pruned
from semid_jax.decode.recjpqprune import build_code_lists, retrieve_recjpqprune
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.rpg_graph import build_graph, retrieve_rpg_graph
from semid_jax.decode.scann_search import ScannSearcher, available
from semid_jax.decode.score import Query
from semid_jax.decode.sketch import Bounds, Leaves, build_bounds, build_leaves, shape_of
from semid_jax.types import InputError

NUMBERS = 8  # bytes of an entry beside its Fine-ID that every search reads: cell, bias
METHODS = (
    "exact",
    "exact_matmul",
    "inverted",
    "leaves",
    "pruned",
    "recjpqprune",
    "rpg_graph",
    "scann",
)
GRAPH_ITEMS = 200_000  # all pairs of more take hours


def check_methods(methods: Sequence[str]) -> None:
    """Refuses a decoder that is not there.

    Raises:
      InputError: names those that are.
    """
    for name in methods:
        if name not in METHODS:
            raise InputError(f"benchmark.methods: {name!r} is unknown; use {', '.join(METHODS)}")


@dataclasses.dataclass(frozen=True)
class Decoder:
    """One way to search.

    Attributes:
      name: as in results.
      run: (*arrays, query) to what is retrieved.
      arrays: what it reads; passed as arguments, so that nothing large is compiled in.
      work: (users of a call, mean entries scored) to what a call must do at least.
      compiles: False for one that is not JAX.
      build_s: what it took to build beside codes and lists.
      most: users of a call; for one that is too slow to be asked for more, or for all users.
      least: users of a call; for fewer it does what `exact` does.
      reads: the argument of `run` that says how much is read of the index, where there is one.
      size: its value.
      parts: the most it can be: how many cells or leaves there are.
      place: (query, items) to how many of them must be read to come upon each item.
    """

    name: str
    run: Callable[..., Retrieved]
    arrays: tuple[Any, ...]
    work: Callable[[int, float], Work]
    compiles: bool = True
    build_s: float | None = None
    most: int | None = None
    least: int = 1
    reads: str = ""
    size: int = 0
    parts: int = 0
    place: Callable[[Query, jax.Array], jax.Array] | None = None

    def search(self, query: Query) -> Retrieved:
        """What is retrieved for a batch of users."""
        return self.run(*self.arrays, query)

    def resized(self, size: int) -> Decoder:
        """The same decoder reading so many cells or leaves."""
        run = functools.partial(self.run, **{self.reads: size})
        return dataclasses.replace(self, size=size, run=run)

    def finding(self, items: int) -> Decoder:
        """The same decoder returning so many items."""
        return dataclasses.replace(self, run=functools.partial(self.run, k=items))


def make_decoders(
    methods: Sequence[str], served: Served, decode: DecodeConfig, directory: Path
) -> list[Decoder]:
    """The decoders that are asked for.

    Args:
      methods: of METHODS; `scann` is left out, and said so, where it is not installed, and
        `rpg_graph` where there are more than GRAPH_ITEMS items or several archetypes.
      served: the index; P of `inverted` and `scann`; the users that `pruned` and `leaves` are
        fitted to and by whom the number of leaves is chosen.
      decode: items returned, items of a leaf, and how many leaves if not chosen.
      directory: for ScaNN's files.
    """
    k, index, probes, vectors = decode.k, served.index, served.probes, served.vectors
    digits, width = index.entry_fine.shape[1], index.tables.coarse.shape[1]
    width += digits * index.tables.fine.shape[2] + 1
    entry = digits + NUMBERS

    def scan(users: int, _: float) -> Work:
        n = index.n_entries
        return Work(bytes=n * entry, lookups=users * n * (digits + 1))

    def product(users: int, _: float) -> Work:
        n = index.n_entries
        return Work(bytes=n * entry, operations=2.0 * users * n * width)

    def lists(users: int, scored: float) -> Work:
        n = users * scored
        read = min(n, index.n_entries)  # what several users probe may stay in the cache
        return Work(bytes=read * entry, lookups=n * (digits + 1))

    def vector_lists(users: int, scored: float) -> Work:
        n = users * scored
        read = min(n, index.n_entries)
        return Work(bytes=4.0 * read * width, operations=2.0 * n * width)

    made = []
    for name in methods:
        started = time.perf_counter()
        if name == "exact":
            made.append(Decoder(name, functools.partial(retrieve_exact, k=k), (index,), scan))
        elif name == "exact_matmul":
            run = functools.partial(retrieve_exact_matmul, k=k)
            made.append(Decoder(name, run, (index,), product))
        elif name == "inverted":
            run = functools.partial(retrieve_inverted, k=k)
            place = functools.partial(cell_places, index)
            sized: dict[str, Any] = {"reads": "probes", "parts": index.n_cells, "place": place}
            made.append(Decoder(name, run, (index,), lists, **sized).resized(probes))
        elif name == "leaves":
            leaves = build_leaves(index, vectors, shape_of(name, decode.leaf_items))
            built = time.perf_counter() - started

            def guesses(users: int, scored: float, leaves: Leaves = leaves) -> Work:
                n = float(leaves.leaf.size)
                return Work(bytes=4.0 * n, operations=2.0 * users * n) + lists(users, scored)

            run = functools.partial(retrieve_leaves, k=k)
            arrays, parts = (index, leaves), len(leaves.blocks.item)
            place = functools.partial(leaf_places, index, leaves)
            sized = {"reads": name, "parts": parts, "place": place}
            decoder = Decoder(name, run, arrays, guesses, True, built, **sized)
            size = decode.leaves or served.validation.fewest(place, parts, name)
            made.append(decoder.resized(size))
        elif name == "pruned":
            sketch = build_bounds(index, vectors, shape_of(name, decode.leaf_items))
            built = time.perf_counter() - started

            def bounds(users: int, scored: float, sketch: Bounds = sketch) -> Work:
                if users < LEAST:
                    return scan(users, scored)
                n = float(sketch.vector.size)
                bound = Work(bytes=4.0 * n, operations=2.0 * users * n)
                return bound + lists(users, scored)

            run = functools.partial(retrieve_pruned, k=k)
            made.append(Decoder(name, run, (index, sketch), bounds, True, built, least=LEAST))
        elif name == "recjpqprune":
            of_codes = build_code_lists(index)
            built = time.perf_counter() - started
            run = functools.partial(retrieve_recjpqprune, k=k)
            made.append(Decoder(name, run, (index, of_codes), lists, build_s=built, most=1))
        elif name == "rpg_graph":
            if index.n_items > GRAPH_ITEMS or index.n_archetypes > 1:
                print(f"decode_speed: {name} is for one ID of at most {GRAPH_ITEMS:,} items each")
                continue
            walk = GraphConfig()
            graph = jax.block_until_ready(build_graph(unit_digits(index), walk.edges))
            built = time.perf_counter() - started
            run = functools.partial(retrieve_rpg_graph, k=k, beam=walk.beam, hops=walk.hops)
            made.append(Decoder(name, run, (index, graph), lists, build_s=built))
        else:
            if not available():
                print("decode_speed: scann is not installed, its row is missing")
                continue
            found = ScannSearcher.build(index, directory)
            built = time.perf_counter() - started
            run = functools.partial(found.retrieve, probes=probes, k=k)
            made.append(Decoder(name, run, (), vector_lists, compiles=False, build_s=built))
    return made


def unit_digits(index: Index) -> Index:
    """The same IDs, all embeddings of digits of unit length, as RPG's are."""
    fine = index.tables.fine
    length = jnp.linalg.norm(fine, axis=-1, keepdims=True)
    tables = dataclasses.replace(index.tables, fine=fine / jnp.maximum(length, 1e-9))
    return dataclasses.replace(index, tables=tables)
