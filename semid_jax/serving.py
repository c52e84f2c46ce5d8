"""A trained HDNAG served: from a stream of interactions to ranked lists, one program a step.

A run leaves all that it takes: `load` reads its artefacts, `train.streaming` keeps users up to
date, `recommend` answers. Users' states may lie in several pools of different widths T: what a
list costs grows with the history that is read for it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax import artifacts
from semid_jax.checkpoint import tree_hash
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index, index_from_arrays
from semid_jax.decode.methods import retrieve
from semid_jax.decode.rescoring import DenseItems, rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.sketch import KINDS, Sketch, sketch_from_arrays
from semid_jax.decode.topk import top_k_ties
from semid_jax.eval.model import Model, dense_items, user_query
from semid_jax.models.stream import preferences
from semid_jax.train import generator_arrays, tokenizer_arrays
from semid_jax.train.streaming import Streamer, StreamState, make_streamer, read_side
from semid_jax.types import InputError


@struct.dataclass
class Server:
    """What it takes to answer users.

    Attributes:
      streamer: keeps them up to date.
      model: generator, as its run has calibrated it.
      index: of the catalogue.
      sketch: what `leaves` and `pruned` read beside; None for the others.
      dense: the catalogue's side of the dense term; None where S1 is all there is.
      method: of the search.
      decode: how much it reads and returns.
    """

    streamer: Streamer
    model: Model
    index: Index
    sketch: Sketch | None
    dense: DenseItems | None
    method: str = struct.field(pytree_node=False)
    decode: DecodeConfig = struct.field(pytree_node=False)

    @property
    def width(self) -> int:
        """T, the longest history that the generator was trained on."""
        return self.model.generator.max_length


def load(workdir: Path, method: str = "") -> Server:
    """The server of a run of HDNAG.

    Args:
      workdir: of the run.
      method: of the search, of the run's `decode.methods`; default the first of them.

    Raises:
      InputError: no such run, one that has not come to its index, or artefacts that do not belong
        together; a search that the run has not prepared, or ScaNN's.
    """
    workdir = Path(workdir)
    config = _config(workdir)
    if config["recommender"] != "hdnag":
        raise InputError(f"{workdir}: a run of {config['recommender']}; only hdnag is served")
    tokenizer = tokenizer_arrays.load(workdir / "tokenizer")
    generator, params = generator_arrays.load(workdir / "model", tokenizer.centroids)
    arrays, manifest = artifacts.read(workdir / "index" / "lists", "index")
    made_from = {
        "tokenizer": artifacts.content_hash(workdir / "tokenizer"),
        "model": tree_hash(params),
    }
    if manifest["inputs"] != made_from:
        raise InputError(
            f"{workdir}: index, model and tokenizer are of different trainings; run the command "
            "of config.json again"
        )
    model = Model(params, tokenizer.views, tokenizer.centroids, generator)
    method = method or config["decode"]["methods"][0]
    _check(workdir, method, config["decode"]["methods"])
    decode = _decode(workdir, config["decode"], method)
    return Server(
        streamer=make_streamer(tokenizer),
        model=model,
        index=index_from_arrays(arrays),
        sketch=_sketch(workdir, method),
        dense=dense_items(model),
        method=method,
        decode=decode,
    )


@functools.partial(jax.jit, static_argnames="only_new")
def recommend(server: Server, state: StreamState, only_new: bool = False) -> Retrieved:
    """Ranked lists by the model's whole score.

    Args:
      server: of a run.
      state: of B users, in any order; a batch that shares one archetype is searched faster.
      only_new: leaves out the last T items of each, which may well be chosen again.

    Returns:
      k items of each user. A user of whom nothing is known gets none: show what is popular.
    """
    history, coarse, fine = read_side(server.streamer, state)
    known = preferences(server.streamer.perceiver, state.user)
    belief = known.belief.astype(jnp.float16)  # as readings are kept, by which it was trained
    asked = coarse, fine, history, state.archetype, belief, known.alpha
    query, decode = user_query(server.model, server.index.tables, *asked), server.decode
    kept = decode.k + history.shape[1] if only_new else decode.k
    wide = kept if server.dense is None else max(kept, decode.rescored)
    found = retrieve(server.index, server.sketch, query, server.method, decode, wide)
    if server.dense is not None:
        found = rescore(server.dense, query.dense, found, kept)
    begun = history[:, 0] > 0
    shown = begun[:, None]
    if only_new:
        shown &= ~(found.items[:, :, None] == history[:, None, :]).any(axis=2)
    scores = jnp.where(shown, found.scores, -jnp.inf)
    items, scores = top_k_ties(scores, found.items, decode.k)
    return Retrieved(items, scores, jnp.where(begun, found.scored, 0))


def _config(workdir: Path) -> dict:
    """The configuration that a run was made with."""
    path = workdir / "config.json"
    try:
        config: dict = json.loads(path.read_text())["config"]
    except FileNotFoundError as error:
        raise InputError(f"{path}: not there; name the --workdir of a run") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: torn; run its command again") from error
    return config


def _check(workdir: Path, method: str, ready: list[str]) -> None:
    """Refuses a search that the run has not prepared, or that is not served."""
    if method not in (*ready, "inverted", "exact"):
        shown = ", ".join(ready)
        raise InputError(f"{workdir}: {method!r} is not among its decode.methods ({shown})")
    if method == "scann":
        raise InputError("scann: is no program of JAX and is not served; name another method")


def _decode(workdir: Path, settings: dict, method: str) -> DecodeConfig:
    """The searches of a run; how much this one reads as validation has chosen, where asked."""
    with artifacts.of_this_revision(workdir):
        decode = DecodeConfig(**{**settings, "methods": tuple(settings["methods"])})
    chosen = {"inverted": ("probes", "lists"), "leaves": ("leaves", "leaves")}
    name, read = chosen.get(method, ("", ""))
    if not name or settings[name]:
        return decode
    manifest = artifacts.check(workdir / name, name)
    if artifacts.content_hash(workdir / "index" / read) not in manifest["inputs"].values():
        raise InputError(f"{workdir}/{name}: of another index; run the command again")
    return dataclasses.replace(decode, **{name: manifest["extra"][name]})


def _sketch(workdir: Path, method: str) -> Sketch | None:
    """What a search reads beside the index."""
    if method not in KINDS:
        return None
    arrays, manifest = artifacts.read(workdir / "index" / method, "sketch")
    if manifest["inputs"]["index"] != artifacts.content_hash(workdir / "index" / "lists"):
        raise InputError(f"{workdir}/index/{method}: of another index; run the command again")
    return sketch_from_arrays(method, arrays)
