"""Tables, files, figures and the page."""

import base64
import dataclasses
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from semid_jax.disk import whole_file
from semid_jax.report import figures, weights
from semid_jax.report.metrics import flatten, nest, read_history, read_metrics, write_metrics
from semid_jax.report.page import build_page, comparison_rows
from semid_jax.report.recommendations import write_recommendations
from semid_jax.report.tables import (
    Column,
    format_value,
    html_table,
    markdown_table,
    metric_columns,
    text_table,
)
from semid_jax.report.users import Recommended, UserStory, read_users, write_users
from semid_jax.types import InputError

ROWS = [
    {"model": "hdnag", "ndcg@10": 0.12345, "ndcg@10_low": 0.12, "ndcg@10_high": 0.13, "ms": 2.0},
    {"model": "pop|ularity", "ndcg@10": 0.01, "ms": 0.5},
    {"model": "broken", "ndcg@10": float("nan"), "items": 3416},
]
COLUMNS = [
    Column("model"),
    *metric_columns(["ndcg@10"]),
    Column("ms", best="min", digits=1),
    Column("items"),
]


def test_text_table_is_aligned_with_the_best_starred():
    assert text_table(ROWS, COLUMNS).splitlines() == [
        "model        NDCG@10    ms  items",
        "───────────  ───────  ────  ─────",
        "hdnag        0.1235*  2.0       -",
        "pop|ularity  0.0100   0.5*      -",
        "broken            -     -   3,416",
    ]


def test_bold_codes_do_not_disturb_the_alignment():
    plain = re.sub(r"\033\[\d+m", "", text_table(ROWS, COLUMNS, bold=True)).splitlines()
    assert plain[2] == "hdnag         0.1235  2.0      -"
    assert "\033[1m 0.1235\033[0m" in text_table(ROWS, COLUMNS, bold=True)


def test_markdown_and_html_mark_the_best_and_escape():
    assert markdown_table(ROWS, COLUMNS).splitlines() == [
        "| model | NDCG@10 | ms | items |",
        "|---|---:|---:|---:|",
        "| hdnag | **0.1235** | 2.0 | - |",
        r"| pop\|ularity | 0.0100 | **0.5** | - |",
        "| broken | - | - | 3,416 |",
    ]
    html = html_table([{"model": "<a>", "x": 1.0}, {"model": "b", "x": 2.0}],
                      [Column("model"), Column("x", best="max", digits=1)])  # fmt: skip
    assert "&lt;a&gt;" in html
    assert "<b>2.0</b>" in html
    assert "<b>1.0</b>" not in html


def test_numbers_that_look_equal_are_all_best_and_a_single_one_is_not():
    column = [Column("x", best="max", digits=2)]
    assert markdown_table([{"x": 0.501}, {"x": 0.502}, {"x": 0.1}], column).count("**0.50**") == 2
    assert "**" not in markdown_table([{"x": 0.5}], column)


def test_cells_with_percent_and_interval():
    shown = markdown_table(ROWS[:1], [Column("ndcg@10", digits=3, percent=True, interval=True)])
    assert shown.splitlines()[-1] == "| 12.3 % [12.0 %, 13.0 %] |"
    assert format_value(np.float32(0.5)) == "0.5000"
    assert format_value(np.int64(1234567)) == "1,234,567"
    assert format_value(True) == "True"


def test_metrics_go_to_disk_nested_and_come_back(tmp_path):
    flat = {"test.ndcg@10": 0.25, "latency.exact.ms": 1.5, "pmat.churn": float("nan")}
    write_metrics(tmp_path / "metrics.json", flat)
    found = read_metrics(tmp_path / "metrics.json")
    assert found == {
        "test": {"ndcg@10": 0.25},
        "latency": {"exact": {"ms": 1.5}},
        "pmat": {"churn": None},
    }
    assert flatten(nest({"a.b": 1, "a.c.d": 2})) == {"a.b": 1, "a.c.d": 2}
    with pytest.raises(ValueError, match="a is a number already"):
        nest({"a": 1, "a.b": 2})
    with pytest.raises(ValueError, match="a is a group of metrics already"):
        nest({"a.b": 2, "a": 1})
    with pytest.raises(InputError, match=r"other\.json: no readable metrics; run the evaluation"):
        read_metrics(tmp_path / "other.json")


def test_history_survives_a_torn_last_line_only(tmp_path):
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    path.write_text('{"step": 1, "validation": {"ndcg@10": 0.1}}\n{"step": 2, "lo')
    assert read_history(path) == [{"step": 1, "validation.ndcg@10": 0.1}]
    path.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 1 is no JSON"):
        read_history(path)


def test_recommendations_are_rows_in_list_order(tmp_path):
    path = tmp_path / "results" / "recommendations.parquet"
    items = np.array([[2, 1], [3, 0], [1, 3]], np.int32)
    scores = np.array([[2.0, 1.5], [9.0, -np.inf], [0.5, 0.25]], np.float32)
    write_recommendations(
        path, np.array(["u1", "7", "ü"]), np.array(["", "a", "b", "c"]), items, scores, chunk=2
    )
    table = pq.read_table(path)
    assert [str(field.type) for field in table.schema] == ["string", "int32", "string", "float"]
    assert table.to_pydict() == {
        "user_id": ["u1", "u1", "7", "ü", "ü"],
        "rank": [1, 2, 1, 1, 2],
        "item_id": ["b", "a", "c", "a", "c"],
        "score": [2.0, 1.5, 9.0, 0.5, 0.25],
    }
    assert [p.name for p in path.parent.iterdir()] == ["recommendations.parquet"]


def test_whole_file_leaves_the_old_one_and_nothing_else_on_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def torn():
        with whole_file(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        torn()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_alpha_is_drawn_for_any_number_of_modalities(tmp_path, modalities):
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(modalities), 300)
    names = [f"m{m}" for m in range(modalities)]
    path = tmp_path / "alpha.png"
    weights.draw_alpha(alpha, alpha[:9], rng.integers(0, 9, 300), names, path)
    assert is_png(path)
    first = path.read_bytes()
    weights.draw_alpha(alpha, alpha[:9], np.zeros(300, int), names, path)
    assert modalities in (1, 4) or path.read_bytes() != first  # the assignment is in the picture


def test_equal_weights_and_one_archetype_can_be_drawn(tmp_path):
    alpha = np.full((5, 2), 0.5)
    path = weights.draw_alpha(alpha, alpha[:1], np.zeros(5, int), ["a", "b"], tmp_path / "a.png")
    assert is_png(path)


def test_other_figures(tmp_path):
    history = [
        {"step": s, "train.loss": 3.0 - s / 10, "validation.ndcg@10": 0.1 * s} for s in (1, 2, 3)
    ]
    assert is_png(figures.draw_training(history, tmp_path / "t.png"))
    assert figures.draw_training([], tmp_path / "none.png") is None
    assert figures.draw_training([{"step": 1}], tmp_path / "none.png") is None
    assert is_png(figures.draw_bars(ROWS, "ndcg@10", tmp_path / "b.png", "model"))
    assert figures.draw_bars(ROWS, "recall@10", tmp_path / "none.png") is None
    assert is_png(figures.draw_list_sizes(np.array([[3, 4], [0, 7]]), tmp_path / "l.png"))
    swept = {
        name: {"churn": x, "difference": x / 10, "low": -0.01, "high": 0.03}
        for name, x in (("5", 0.03), ("100", 0.2), ("full", 0.4))
    }
    assert is_png(figures.draw_tradeoff(swept, tmp_path / "c.png"))
    assert figures.draw_tradeoff({}, tmp_path / "none.png") is None
    alpha = np.full((6, 2), 0.5)
    drift = np.array([0, 1, 3, 2, 0, 0.0])
    assert is_png(
        figures.draw_user(alpha, alpha, drift, 2.5, [2], ["a", "b"], tmp_path / "u.png", 1)
    )
    assert is_png(figures.draw_user(alpha, None, drift, 9, [], ["a", "b"], tmp_path / "v.png"))
    assert not (tmp_path / "none.png").exists()


def test_labels_that_are_near_stand_in_rows_of_their_own():
    levels = weights._levels(np.array([0.50, 0.10, 0.51, 0.52, 0.90]), gap=0.05)
    assert levels == [0, 0, 1, 2, 0]
    assert weights._levels(np.array([0.1, 0.12, 0.16]), gap=0.05) == [0, 1, 0]


METRICS = {
    "test.ndcg@10": 0.12,
    "test.ndcg@10_low": 0.11,
    "test.ndcg@10_high": 0.13,
    "test.recall@10": 0.2,
    "validation.ndcg@10": 0.15,
    "baselines.item_knn.ndcg@10": 0.06,
    "baselines.popularity.ndcg@10": 0.01,
    "retrieval.exact.ndcg@10": 0.12,
    "retrieval.exact.scored_fraction": 1.0,
    "retrieval.scann.note": "not installed",
    "pmat.churn": 0.125,
    "sid.collision_rate": None,
    "novel_group.thing_here": 7,
}
STORY = UserStory(
    user_id="17 <script>",
    history=[f"Film {i} & co" for i in range(12)],
    weights={"image": 0.25, "text": 0.75},
    archetype=3,
    ids_before=[[4, 11, 12], [5, 13, 14]],
    ids_after=[[4, 11, 99], [5, 13, 14]],
    recommendations=[Recommended(1, "Heat (1995)", "6", 8.25), Recommended(2, "Babe", "34", 7.0)],
    target="Heat (1995)",
    figure="user_17.png",
)


@pytest.fixture
def workdir(tmp_path):
    results = tmp_path / "results"
    write_metrics(results / "metrics.json", METRICS)
    write_users(results / "users.json", [STORY])
    for name in ("alpha", "user_17", "other_thing"):
        figures.draw_list_sizes(np.array([1, 2]), results / "figures" / f"{name}.png")
    (tmp_path / "config.json").write_text(
        json.dumps({"config": {"data": {"name": "amazon_2014", "category": "Beauty"}}})
    )
    return tmp_path


def test_users_come_back_as_written(workdir):
    found = read_users(workdir / "results" / "users.json")
    assert dataclasses.asdict(found[0]) == dataclasses.asdict(STORY)
    assert read_users(workdir / "none.json") == []
    (workdir / "results" / "users.json").write_text('[{"user_id": 1}]')
    with pytest.raises(InputError, match=r"users\.json: not a list of users"):
        build_page(workdir)


def test_page_is_one_file_with_everything_in_it(workdir):
    page = build_page(workdir)
    assert page == workdir / "results" / "report.html"
    html = page.read_text()
    assert not re.search(r'(src|href)="(?!data:)', html)  # nothing is fetched
    assert html.count("data:image/png;base64,") == 3
    figure = (workdir / "results" / "figures" / "alpha.png").read_bytes()
    assert base64.b64encode(figure).decode() in html
    assert "HDNAG on amazon_2014/Beauty" in html
    assert "+100 %" in html  # against item_knn
    assert "0.1100 to 0.1300" in html
    assert "not installed" in html
    assert "novel group" in html
    assert "thing here" in html
    assert "<script>" not in html
    assert "17 &lt;script&gt;" in html
    assert "the last 8 of 12" in html
    assert "Film 11 &amp; co" in html
    assert "Film 3 " not in html
    assert html.count('<span class="moved">99</span>') == 1  # only the digit that moved
    assert '<tr class="hit"><td class="number">1</td><td>Heat (1995)</td>' in html
    assert "says nothing about accuracy" not in html


def test_page_of_the_synthetic_world_says_what_it_is(workdir):
    (workdir / "config.json").write_text(json.dumps({"config": {"data": {"name": "synthetic"}}}))
    assert "says nothing about accuracy in the world" in build_page(workdir).read_text()


def test_page_needs_only_metrics(tmp_path):
    write_metrics(tmp_path / "results" / "metrics.json", {"pmat.churn": 0.1})
    assert "churn" in build_page(tmp_path).read_text()
    with pytest.raises(InputError, match="no readable metrics"):
        build_page(tmp_path / "elsewhere")


def test_comparison_has_the_model_first_then_the_best_baseline():
    rows = comparison_rows(nest(METRICS))
    assert [row["model"] for row in rows] == ["HDNAG", "item_knn", "popularity"]
    assert rows[0]["highlight"]
    assert "highlight" not in rows[1]
