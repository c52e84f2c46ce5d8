"""Settings of the search."""

from __future__ import annotations

import dataclasses

from semid_jax.settings import check_least, check_share
from semid_jax.types import InputError

METHODS = ("inverted", "leaves", "scann", "pruned", "exact")
GRAPH_METHODS = ("exact", "rpg_graph")
LEAST_ITEMS = 10  # of lists whose NDCG@10 is compared


@dataclasses.dataclass(frozen=True)
class ListConfig:
    """What is returned by a model that has only the exact search.

    Attributes:
      k: items returned per user.
    """

    k: int = 50

    def __post_init__(self) -> None:
        """Refuses lists without items."""
        check_least(self, "decode", {"k": 1})


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How the index is searched.

    Attributes:
      methods: searches that the evaluation runs side by side, the first one being of record:
        of METHODS; `pruned` is exact as well.
      probes: P, cells probed per user by `inverted` and `scann`; 0 for as few as `loss` allows.
      leaf_items: S, items of a leaf; more where more items are alike than that, see BUILD_NOTES.
      leaves: that `leaves` reads for a user; 0 for as few as hold `recall` of the exact lists.
      recall: share of the exact lists on validation, by the lower end of its interval of 95 %.
      loss: share of the exact search's NDCG@10 that may be lost on validation, where P is chosen,
        by the upper end of the loss's interval of 95 %.
      k: items returned per user.
      chunk: entries scored at once by `exact`, 0 for what suits the platform.
      rescored: R, the best items under S1 that the dense term ranks again, where there is one.
    """

    methods: tuple[str, ...] = ("inverted", "scann", "exact")
    probes: int = 0
    leaf_items: int = 16
    leaves: int = 0
    recall: float = 0.99
    loss: float = 0.005
    k: int = 50
    chunk: int = 0
    rescored: int = 100

    def __post_init__(self) -> None:
        """Checks what a reader can get wrong.

        Raises:
          InputError: an unknown search or none, or a number out of its range.
        """
        check_methods(self.methods, METHODS)
        least = {"leaf_items": 1, "probes": 0, "leaves": 0, "chunk": 0, "k": LEAST_ITEMS}
        check_least(self, "decode", least | {"rescored": self.k})
        check_share(self, "decode", ("recall", "loss"))
        if not self.recall:
            raise InputError("decode.recall=0.0: give more than 0")


def check_methods(named: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuses what is no search.

    Raises:
      InputError: none is named, or an unknown one.
    """
    if not named:
        raise InputError(f"decode.methods: name one or more of {', '.join(known)}")
    for method in named:
        if method not in known:
            shown = ", ".join(known)
            raise InputError(f"decode.methods: {method!r} is unknown; use some of {shown}")


@dataclasses.dataclass(frozen=True)
class GraphConfig:
    """How RPG's catalogue is searched.

    Attributes:
      methods: searches that the evaluation runs side by side, the first one being of record:
        "exact" and "rpg_graph".
      k: items returned per user.
      chunk: items scored at once by `exact`, 0 for what suits the platform.
      beam: b of the graph search, items whose neighbours are looked at in a hop.
      edges: neighbours of an item.
      hops: q.
    """

    methods: tuple[str, ...] = ("exact", "rpg_graph")
    k: int = 50
    chunk: int = 0
    beam: int = 20
    edges: int = 200
    hops: int = 3

    def __post_init__(self) -> None:
        """Checks what a reader can get wrong.

        Raises:
          InputError: an unknown search or none, or a number out of its range.
        """
        check_methods(self.methods, GRAPH_METHODS)
        least = {"k": LEAST_ITEMS, "beam": 1, "edges": 1, "hops": 1, "chunk": 0}
        check_least(self, "decode", least)


@dataclasses.dataclass(frozen=True)
class BeamConfig:
    """How codes are generated one after another.

    Attributes:
      beam: hypotheses kept per user.
      k: items returned per user, at most `beam`.
    """

    beam: int = 50
    k: int = 50

    def __post_init__(self) -> None:
        """Refuses lists without items."""
        check_least(self, "decode", {"beam": 1, "k": 1})
