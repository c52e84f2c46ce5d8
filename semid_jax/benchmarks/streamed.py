"""From an interaction to a ranked list: a server's whole step, users' states and all."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.benchmarks.decode_rows import STREAM
from semid_jax.benchmarks.decoders import Decoder
from semid_jax.benchmarks.programs import Program
from semid_jax.benchmarks.reranked import AGAIN
from semid_jax.benchmarks.served import Served
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.sketch import Sketch
from semid_jax.serving import Server, recommend
from semid_jax.train import streaming
from semid_jax.train.streaming import StreamState


def streamed_program(served: Served, decoder: Decoder, decode: DecodeConfig, batch: int) -> Program:
    """One program that takes in an interaction of every user and answers them.

    Args:
      served: the model and all users.
      decoder: "inverted" or "leaves", of `reranked` where the model has S2.
      decode: R and k.
      batch: users of a call.
    """
    server = make_server(served, decoder, decode)
    part = served.some_side(batch)
    state = streaming.begin(server.streamer, batch, server.width)
    for items in part.history.T:
        state, _ = streaming.update(server.streamer, state, jnp.asarray(items))
    users = state, jnp.asarray(part.targets)
    name = STREAM + decoder.name + ("" if served.dense is None else AGAIN)
    return Program(name, _answer, (server,), [users])


def make_server(served: Served, decoder: Decoder, decode: DecodeConfig) -> Server:
    """The benchmark's model as a server, reading as much of the index as the decoder does."""
    sketch = next((a for a in decoder.arrays if isinstance(a, Sketch)), None)
    reads: dict[str, Any] = {"methods": (decoder.name,), decoder.reads: decoder.size}
    return Server(
        streaming.make_streamer(served.tokenizer),
        served.model,
        served.index,
        sketch,
        served.dense,
        decoder.name,
        dataclasses.replace(decode, **reads),
    )


def _answer(server: Server, users: tuple[StreamState, jax.Array]) -> tuple[StreamState, Retrieved]:
    state, _ = streaming.update(server.streamer, *users)
    return state, recommend(server, state)
