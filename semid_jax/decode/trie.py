"""The codes that items have, as a prefix tree in flat arrays.

Nodes of a level are numbered in the order of their prefixes, so that the children of a node are
neighbours, an edge's place is the number of the node it leads to, and a level is two arrays:
compressed rows. The first levels, where nearly every code has a child, may be tables of children
besides (both as in STATIC, Su et al., 2602.22647).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.types import InputError


@struct.dataclass
class Trie:
    """A prefix tree of L levels.

    Attributes:
      code: per level, int32[edges], the code on each edge; edge e leads to node e of the next.
      first: per level, int32[nodes + 1]; edges first[i] .. first[i + 1] leave node i.
      item: int32[N], the item of each leaf.
      dense: for the first levels, int32[nodes, K], the edge of each code; -1 for none.
      branching: per level, the most edges that leave a node.
    """

    code: tuple[jax.Array, ...]
    first: tuple[jax.Array, ...]
    item: jax.Array
    dense: tuple[jax.Array, ...]
    branching: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def levels(self) -> int:
        """L."""
        return len(self.code)


def build_trie(codes: np.ndarray, dense: int = 0) -> Trie:
    """Builds the tree of a catalogue.

    Args:
      codes: uint8[N + 1, L], row 0 is padding.
      dense: levels that have tables; a level's takes 4 K bytes a node.

    Raises:
      InputError: two items have the same code.
    """
    levels = codes.shape[1]
    order = np.lexsort(codes[1:, ::-1].T)
    rows = codes[1:][order].astype(np.int32)
    new = np.ones((len(rows), levels + 1), bool)
    new[:, 0] = np.arange(len(rows)) == 0
    new[1:, 1:] = np.cumsum(rows[1:] != rows[:-1], axis=1) > 0
    if not new[:, levels].all():
        alike = order[[np.flatnonzero(~new[:, levels])[0] - 1, np.flatnonzero(~new[:, levels])[0]]]
        raise InputError(
            f"codes: items {alike[0] + 1} and {alike[1] + 1} have the same; give them a last digit "
            "that tells them apart"
        )
    code, first, branching = [], [], []
    for level in range(levels):
        edges = np.flatnonzero(new[:, level + 1])
        starts = np.searchsorted(edges, np.flatnonzero(new[:, level]))
        starts = np.append(starts, len(edges))
        code.append(jnp.asarray(rows[edges, level]))
        first.append(jnp.asarray(starts.astype(np.int32)))
        branching.append(int(np.diff(starts).max()))
    item = jnp.asarray((order + 1).astype(np.int32))
    tables = [_table(*of_level) for of_level in zip(code[:dense], first[:dense], strict=True)]
    return Trie(tuple(code), tuple(first), item, tuple(tables), tuple(branching))


def next_codes(codes: np.ndarray) -> np.ndarray:
    """Which codes follow an item's prefixes, as bits: the children of the nodes on its path.

    Args:
      codes: uint8[N + 1, L], row 0 is padding.

    Returns:
      uint32[N + 1, L, W]; bit v % 32 of word v // 32 says whether some item has code v at that
      level after the same codes. All bits are set for padding.
    """
    rows, levels = codes.shape
    words = -(-(int(codes.max()) + 1) // 32)
    found = np.full((rows, levels, words), 0xFFFFFFFF, np.uint32)
    bit = np.left_shift(np.uint32(1), (codes % 32).astype(np.uint32))
    node = np.zeros(rows - 1, np.int64)
    for level in range(levels):
        code = codes[1:, level]
        children = np.zeros((int(node.max()) + 1, words), np.uint32)
        np.bitwise_or.at(children, (node, code // 32), bit[1:, level])
        found[1:, level] = children[node]
        node = np.unique(node * 256 + code, return_inverse=True)[1].ravel()
    return found


def _table(code: jax.Array, first: jax.Array) -> jax.Array:
    """int32[nodes, K]: the edge of each code, -1 for none."""
    made = np.full((len(first) - 1, int(code.max()) + 1), -1, np.int32)
    made[np.repeat(np.arange(len(made)), np.diff(first)), code] = np.arange(len(code))
    return jnp.asarray(made)
