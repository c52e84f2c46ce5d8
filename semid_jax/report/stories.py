"""Some users told one by one: history, weights, IDs before and after an update, the list."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from semid_jax.data.source import RawDataset
from semid_jax.eval.evaluation import IdEvaluation
from semid_jax.models.stream import drift_score
from semid_jax.report.figures import draw_user
from semid_jax.report.users import Recommended, UserStory
from semid_jax.train.semantic_ids import Tokenizer

SHOWN = 10


def tell_users(
    raw: RawDataset, tokenizer: Tokenizer, evaluation: IdEvaluation, count: int, figures: Path
) -> list[UserStory]:
    """Stories of `count` users, those with an update and then long histories first.

    Args:
      raw: data set.
      tokenizer: of the run.
      evaluation: of the test.
      count: how many.
      figures: receives one figure per user of whom anything is said.
    """
    side, before, lists = evaluation.side, evaluation.before, evaluation.lists
    lengths = (side.history > 0).sum(axis=1)
    order = np.lexsort((side.users, -lengths, ~evaluation.fired))[:count]
    interactions, titles = raw.interactions, raw.catalogue.titles
    readings, modalities = tokenizer.readings, tokenizer.module.modalities
    drift = np.asarray(drift_score(jnp.asarray(readings.drift.T)))
    drift = np.where(np.isfinite(drift), drift, np.nan)  # not judged
    stories = []
    for row in order:  # a handful of users
        user = int(side.users[row])
        flat = slice(int(interactions.offsets[user]), int(interactions.offsets[user + 1]))
        name, weights = "", {}
        if tokenizer.reads_users:
            name = f"user_{user}.png"
            weights = dict(zip(modalities, map(float, readings.alpha[flat][-1]), strict=True))
            planted = int(raw.truth["drift_time"][user]) if raw.truth else -1
            draw_user(
                readings.alpha_short[flat],
                readings.alpha[flat],
                drift[flat],
                float(tokenizer.threshold),
                [int(u) for u in np.flatnonzero(readings.fired[flat])],
                modalities,
                figures / name,
                planted if planted >= 0 else None,
            )
        n = int(lengths[row])
        stories.append(
            UserStory(
                user_id=str(interactions.user_ids[user]),
                history=[str(titles[i]) for i in side.history[row, :n]],
                weights=weights,
                archetype=int(side.archetype[row]),
                ids_before=_ids(before.coarse[row, :n], before.fine[row, :n]),
                ids_after=_ids(side.coarse[row, :n], side.fine[row, :n]),
                recommendations=[
                    Recommended(
                        rank + 1,
                        str(titles[item]),
                        str(raw.catalogue.item_ids[item]),
                        float(lists.scores[row, rank]),
                    )
                    for rank, item in enumerate(lists.items[row, :SHOWN])
                    if item
                ],
                target=str(titles[side.targets[row]]),
                figure=name,
            )
        )
    return stories


def _ids(coarse: np.ndarray, fine: np.ndarray) -> list[list[int]]:
    return [[int(c), *map(int, f)] for c, f in zip(coarse, fine, strict=True)]
