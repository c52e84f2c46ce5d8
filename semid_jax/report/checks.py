"""Tables of what lies beside accuracy, a row per check: what PMAT knows, what IDs look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from semid_jax.eval.updates import BUDGETS, MARGINS
from semid_jax.report.metrics import flatten
from semid_jax.report.records import Record
from semid_jax.report.tables import Column


def _by_share(group: str, shares: Sequence[float], head: str) -> dict[str, str]:
    percents = [round(100 * share) for share in shares]
    return {f"{group}.{percent}": f"{head} {percent} %" for percent in percents}


# Settings of an update, see `update_sweep`: name in the records -> head.
_UPDATES = {
    **_by_share("tradeoff", BUDGETS, "updates that may move"),
    **_by_share("margins", MARGINS, "updates beyond a margin of"),
    "tradeoff.full": "all encoded anew",
}
# Name in the records -> head.
PMAT = {
    "pmat.alpha_spearman": "Spearman of weights with the planted ones",
    "pmat.alpha_spearman_oracle": "the oracle's",
    "pmat.drift_f1_alpha": "F1 of drifts of weights",
    "pmat.drift_f1_interest": "F1 of drifts of interest",
    "pmat.false_trigger_rate": "steady users with a trigger",
    "pmat.churn": "churn of an update",
    "pmat.updated_ndcg@10_stale": "NDCG@10 of updated users, before",
    "pmat.updated_ndcg@10_incremental": "updated",
    "pmat.updated_ndcg@10_full": "encoded anew",
    **{f"pmat.{name}.difference": f"{head}, gain" for name, head in _UPDATES.items()},
    **{f"pmat.{name}.churn": f"{head}, churn" for name, head in _UPDATES.items()},
    "pmat.coherence_stale": "own interest told from others' by the read side, before",
    "pmat.coherence_incremental": "the same, updated",
    "pmat.coherence_full": "the same, encoded anew",
    "pmat.alpha_reliability_random": "weights of random halves",
    "pmat.alpha_reliability_time": "of halves in time",
    "pmat.alpha_coherence_random": "weights and raw coherence",
}
IDS = {
    "sid.collision_rate": "items that share their whole ID",
    "sid.usage": "codewords in use",
    "sid.perplexity": "perplexity of a digit",
    "sid.coarse_perplexity": "perplexity of coarse codes",
    "sid.reconstruction_error": "reconstruction error",
    "sid.purity": "items of their cell's commonest category",
    "sid.nmi": "cell and category, normalised mutual information",
}
LISTS = {"diversity.coverage@10": "coverage@10"}
# An experiment whose name begins so -> what its table is about, and its checks.
TABLES = {
    "pmat": ("What PMAT knows and does", {**PMAT, **LISTS}),
    "tokenizers": ("What the IDs look like", {**IDS, **LISTS}),
}
DIVERSITY = "intra_list_diversity"


def check_table(
    records: Sequence[Record], checks: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[Column]]:
    """What the records of one data set say, a row per check and a column per model.

    Args:
      records: of models that are compared, any number of seeds.
      checks: name in the records -> head; the diversity of lists comes behind them.

    Returns:
      Rows and columns, "mean ± deviation over seeds" in the cells; no rows where nothing is said.
    """
    of_model: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda record: (record.model, record.seed)):
        of_model.setdefault(record.model, []).append(flatten(record.metrics))
    found = {name for runs in of_model.values() for run in runs for name in run}
    diversity = sorted(name for name in found if name.startswith(f"diversity.{DIVERSITY}"))
    heads = {**checks, **{name: name.split(f"{DIVERSITY}_")[1] for name in diversity}}
    rows = []
    for name, head in heads.items():
        row: dict[str, Any] = {"check": head if name in checks else f"diversity of lists, {head}"}
        for model, runs in of_model.items():
            values = [run[name] for run in runs if run.get(name) is not None]
            if values:
                row[model] = _shown(values)
        if len(row) > 1:
            rows.append(row)
    return rows, [Column("check"), *(Column(model) for model in of_model)]


def _shown(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"
