"""The searches of an index by their names: what a run is evaluated with, and served by."""

from __future__ import annotations

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.leaves import retrieve_leaves
from semid_jax.decode.pruned import retrieve_pruned
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query
from semid_jax.decode.sketch import KINDS, Bounds, Leaves, Sketch


def retrieve(
    index: Index, sketch: Sketch | None, query: Query, method: str, config: DecodeConfig, k: int
) -> Retrieved:
    """The k best items under S1.

    Args:
      index: the catalogue.
      sketch: of the index, for `leaves` and `pruned`.
      query: B users.
      method: of `config.METHODS`, but `scann`, which is no program of JAX.
      config: how much is read, 0 being replaced by what validation has chosen.
      k: items returned.
    """
    chosen = {"inverted": config.probes, "leaves": config.leaves}.get(method, 1)
    if not chosen or (method in KINDS and not isinstance(sketch, KINDS[method])):
        raise ValueError(f"{method}: its sketch, and how much is read, are to be given")
    if method == "inverted":
        return retrieve_inverted(index, query, probes=config.probes, k=k)
    if method == "leaves" and isinstance(sketch, Leaves):
        return retrieve_leaves(index, sketch, query, leaves=config.leaves, k=k)
    if method == "pruned" and isinstance(sketch, Bounds):
        return retrieve_pruned(index, sketch, query, k=k)
    if method == "exact":
        return retrieve_exact(index, query, k=k, chunk=config.chunk)
    raise ValueError(f"{method}: no search of this index")
