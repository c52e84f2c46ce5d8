"""The report stage: metrics, lists, figures, page and the terminal's tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semid_jax import disk
from semid_jax.data.source import RawDataset
from semid_jax.eval.evaluation import Evaluation, IdEvaluation
from semid_jax.quantize.cell_names import cell_names
from semid_jax.report.config import ReportConfig
from semid_jax.report.figures import (
    draw_bars,
    draw_list_sizes,
    draw_tradeoff,
    draw_training,
)
from semid_jax.report.metrics import nest, read_history, write_metrics
from semid_jax.report.page import (
    ACCURACY,
    RETRIEVAL_COLUMNS,
    build_page,
    comparison_rows,
    retrieval_rows,
)
from semid_jax.report.recommendations import write_recommendations
from semid_jax.report.stories import tell_users
from semid_jax.report.tables import Column, metric_columns, shown_columns, text_table
from semid_jax.report.users import write_users
from semid_jax.report.weights import draw_alpha
from semid_jax.train.semantic_ids import Tokenizer


def report(
    config: ReportConfig,
    workdir: Path,
    raw: RawDataset,
    tokenizer: Tokenizer | None,
    evaluation: Evaluation,
    run: Mapping[str, Any],
) -> None:
    """Fills WORKDIR/results from an evaluation, and prints its tables.

    Args:
      config: what is shown.
      workdir: the run's folder.
      raw: data set.
      tokenizer: of the run; None for a model without semantic IDs.
      evaluation: of the test.
      run: flat metrics of the run itself: run.seed, run.seconds, run.stage_seconds.<stage>, ….
    """
    flat = {**evaluation.metrics, **run}
    results, catalogue, side = workdir / "results", raw.catalogue, evaluation.side
    figures = results / "figures"
    shutil.rmtree(figures, ignore_errors=True)  # of a report on other users
    write_metrics(results / "metrics.json", flat)
    write_recommendations(
        results / "recommendations.parquet",
        raw.interactions.user_ids[side.users],
        catalogue.item_ids,
        evaluation.lists.items,
        evaluation.lists.scores,
    )
    metrics = nest(flat)
    models, searches = comparison_rows(metrics), retrieval_rows(metrics)
    draw_training(read_history(results / "history.jsonl"), figures / "training.png")
    draw_bars(models, "ndcg@10", figures / "comparison.png")
    if searches:
        draw_bars(searches, "ndcg@10", figures / "retrieval.png", "search")
    if tokenizer is not None and isinstance(evaluation, IdEvaluation):
        draw_tradeoff(metrics["pmat"].get("tradeoff", {}), figures / "tradeoff.png")
        _show_ids(config, results, raw, tokenizer, evaluation)
    page = build_page(workdir)
    print("\nTest, history not excluded (best marked with a star)")
    columns = shown_columns([Column("model"), *metric_columns(ACCURACY)], models)
    print(text_table(models, columns))
    if searches:
        print("\nSeveral searches of the same model")
        print(text_table(searches, shown_columns(RETRIEVAL_COLUMNS, searches)))
    for name in ("alpha_spearman", "alpha_spearman_oracle", "drift_f1", "churn"):
        if f"pmat.{name}" in flat:
            print(f"pmat.{name}: {flat[f'pmat.{name}']:.3f}")
    spent = ", ".join(f"{stage} {n:.0f}" for stage, n in metrics["run"]["stage_seconds"].items())
    print(f"\nseed {flat['run.seed']}, {flat['run.seconds']:.0f} s ({spent})\nreport: {page}")


def _show_ids(
    config: ReportConfig,
    results: Path,
    raw: RawDataset,
    tokenizer: Tokenizer,
    evaluation: IdEvaluation,
) -> None:
    """Weights, cells and users, of a model that has semantic IDs."""
    figures = results / "figures"
    at = raw.interactions.offsets[1:] - 1
    if tokenizer.reads_users:
        draw_alpha(
            tokenizer.readings.alpha[at],
            np.asarray(tokenizer.archetypes.alpha),
            tokenizer.readings.archetype[at],
            tokenizer.module.modalities,
            figures / "alpha.png",
        )
    cells = tokenizer.book.cells
    sizes = np.stack([np.bincount(column[1:], minlength=cells) for column in tokenizer.coarse])
    draw_list_sizes(sizes, figures / "list_sizes.png")
    names = cell_names(tokenizer.coarse[0], raw.catalogue.titles, cells)
    disk.write_json(results / "cells.json", names)
    stories = tell_users(raw, tokenizer, evaluation, config.users, figures)
    write_users(results / "users.json", stories)
