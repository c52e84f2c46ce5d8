"""The tokenizer of the baselines on semantic IDs: one ID per item, kept as an artefact."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from ml_collections import ConfigDict

from semid_jax import artifacts
from semid_jax.data.sequences import train_items
from semid_jax.data.source import RawDataset
from semid_jax.quantize import static
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.static import StaticIds
from semid_jax.recommenders.common import hashes, section, since
from semid_jax.recommenders.fused_items import fuse_settings, fused_items
from semid_jax.types import ItemFeatures


def static_ids_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> StaticIds:
    """Quantises the catalogue, or reads what was made from the same features and settings.

    Where `fuse.method` names a tokenizer, the codes are its own and `quantize` does not matter.
    """
    directory, kind = workdir / "tokenizer", "static_ids"
    inputs = hashes(workdir, "data", "expanded", "features")
    quantize = section(config, "quantize", QuantizeConfig)
    quantize = dataclasses.replace(quantize, seed=quantize.seed + config.seed)
    settings = dataclasses.asdict(quantize) | {"fuse": fuse_settings(config)}
    if not artifacts.matches(directory, kind, inputs, settings):
        started = time.perf_counter()
        fused = fused_items(config, features, raw.interactions)
        if fused is None:
            made = static.make_static_ids(features, train_items(raw.interactions), quantize)
        elif fused.contexts is None:
            made = static.native_ids(fused.points, fused.book)
        else:
            made = StaticIds(fused.book, **dataclasses.asdict(fused.contexts))
        artifacts.write(directory, kind, static.to_arrays(made), inputs, settings, since(started))
    ids = static.from_arrays(artifacts.read(directory, kind)[0])
    print(
        f"tokenize: {ids.book.cells} coarse cells, {ids.book.digits} digits of "
        f"{ids.book.codewords} codewords, the same for every user"
    )
    return ids
