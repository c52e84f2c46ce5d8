"""results/report.html: one file with the tables, the figures and some users, to open anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from semid_jax.disk import whole_file
from semid_jax.report.metrics import flatten, read_metrics
from semid_jax.report.page_style import STYLE
from semid_jax.report.records import dataset_of
from semid_jax.report.tables import Column, format_value, html_table, metric_columns, shown_columns
from semid_jax.report.users import UserStory, read_users

ACCURACY = ("ndcg@10", "recall@10", "ndcg@5", "recall@5", "mrr@10", "recall@50")
NAMES: Mapping[str, str] = {
    "hdnag": "HDNAG", "sasrec": "SASRec", "gru4rec": "GRU4Rec", "bert4rec": "BERT4Rec",
    "rpg": "RPG", "gpt2": "GPT2", "tiger": "TIGER",
}  # fmt: skip
_SHOWN_ITEMS = 8

# Figures by file name (without .png): caption; users' own figures stand beside the users.
CAPTIONS: Mapping[str, str] = {
    "training": "Training: losses, and accuracy on validation; the larger dot is the best.",
    "comparison": "Accuracy on the test items: the model in blue beside the baselines.",
    "retrieval": "Accuracy of the searches: S1, and S2 where it says dense.",
    "alpha": "How much users care for each modality, and the archetypes that stand for them.",
    "tradeoff": "Users who drifted: accuracy of updated read sides, by how many codes move.",
    "list_sizes": "Items per coarse cell; the balance allows at most twice the mean.",
}
_WIDE = ("training",)

# Groups of metrics.json: heading, one sentence; groups not named here follow under their own name.
GROUPS: Mapping[str, tuple[str, str]] = {
    "test_s1": ("S1 alone, test", "Before the dense term ranks again."),
    "pmat": ("Personal weights (PMAT)", "What was learned about users, and how often IDs moved."),
    "sid": ("Semantic IDs", "How well the codes describe and tell apart the items."),
    "search": ("Search", "What the search costs in accuracy against exact S1, and what it scores."),
    "validation_search": ("Coarse head, validation", "What pruning by cells rests on."),
    "latency": ("Latency", "Time per query as stated by the name."),
    "diversity": ("Lists beyond accuracy", "Coverage, concentration, novelty, diversity."),
    "index": ("Index", "Inverted lists of the coarse cells, by archetype."),
    "gain": ("Against the best baseline", "The one best on validation; paired over users."),
    "run": ("This run", "Seconds are those of the processes that made it, resumed ones added."),
}
_OWN_SECTIONS = (
    "test", "validation", "test_without_history", "baselines", "baselines_without_history",
    "retrieval", "retrieval_s2",
)  # fmt: skip


def build_page(workdir: Path) -> Path:
    """Writes WORKDIR/results/report.html from what lies beside it.

    Reads results/metrics.json, results/figures/*.png, results/users.json and config.json; the last
    three may be absent. In metrics.json, "test", "validation" and "test_without_history" hold the
    model's accuracy, "baselines" and "retrieval" one such group per name; every other group
    becomes a small table.

    Args:
      workdir: the run's folder.

    Returns:
      The path of the page.

    Raises:
      InputError: metrics.json or users.json is missing or torn.
    """
    results = Path(workdir) / "results"
    metrics = read_metrics(results / "metrics.json")
    stories = read_users(results / "users.json")
    config = _read_config(Path(workdir) / "config.json")
    figures = {path.stem: path for path in sorted((results / "figures").glob("*.png"))}
    of_users = {Path(story.figure).stem for story in stories if story.figure}

    body = [
        _header(metrics, config),
        _comparison(metrics),
        _retrieval(metrics),
        _figures({name: path for name, path in figures.items() if name not in of_users}),
        _groups(metrics),
        _users(stories, figures),
        _footer(config),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_title(config))}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    target = results / "report.html"
    with whole_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def comparison_rows(
    metrics: Mapping[str, Any], model: str = "test", baselines: str = "baselines"
) -> list[dict[str, Any]]:
    """Rows of the table of models: the model first, then the baselines, best NDCG@10 first.

    Args:
      metrics: nested, as metrics.json.
      model: the group of the model's metrics.
      baselines: the group of the baselines' metrics.

    Returns:
      {"model", "highlight", and the metrics with their "_low" and "_high"}.
    """
    rows: list[dict[str, Any]] = []
    if metrics.get(model):
        rows.append({"model": model_name(metrics), "highlight": True, **metrics[model]})
    others = [{"model": name, **row} for name, row in metrics.get(baselines, {}).items()]
    others.sort(key=lambda row: -(row.get("ndcg@10") or 0.0))
    return rows + others


def model_name(metrics: Mapping[str, Any]) -> str:
    """How the run's model is called in tables."""
    name = str(metrics.get("run", {}).get("model", "hdnag"))
    return NAMES.get(name, name)


def retrieval_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of searches, from the groups "retrieval" and "retrieval_s2"."""
    return [
        {"search": name + then, **row}
        for group, then in (("retrieval", ""), ("retrieval_s2", " + dense"))
        for name, row in metrics.get(group, {}).items()
    ]


RETRIEVAL_COLUMNS = (
    Column("search"),
    Column("ndcg@10", "NDCG@10"),
    Column("recall@10", "Recall@10"),
    Column("search_loss", "NDCG@10 lost to exact", percent=True),
    Column("overlap@10", "same top 10 as exact", digits=3, percent=True),
    Column("scored_fraction", "items scored", digits=3, percent=True),
    Column("ms_per_user", "ms per user", digits=3),
    Column("note", "note"),
)


def _header(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    test = metrics.get("test", {})
    tiles = []
    for key, name in (("ndcg@10", "NDCG@10, test"), ("recall@10", "Recall@10, test")):
        if test.get(key) is not None:
            low, high = test.get(f"{key}_low"), test.get(f"{key}_high")
            interval = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else ""
            tiles.append((format_value(test[key]), name, interval))
    best = max(
        (row.get("ndcg@10") or 0.0 for row in metrics.get("baselines", {}).values()), default=0.0
    )
    if best and test.get("ndcg@10"):
        gain = 100 * (test["ndcg@10"] / best - 1)
        tiles.append((f"{gain:+.0f} %", "NDCG@10 against the best baseline", ""))
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}'
        f"{'<br>95 %: ' + escape(interval) if interval else ''}</span></div>"
        for value, name, interval in tiles
    )
    synthetic = ""
    if _dataset(config) == "synthetic":
        synthetic = (
            '<p class="note">The data are the synthetic world: this run checks the tokenizer '
            "against a known truth and says nothing about accuracy in the world.</p>"
        )
    return (
        f"<h1>{escape(_title(config))}</h1>"
        '<p class="soft">Generative recommendation with semantic IDs: leave-last-out, the full '
        "catalogue ranked, history not excluded unless a table says so.</p>"
        f'{synthetic}<div class="tiles">{shown}</div>'
    )


def _comparison(metrics: Mapping[str, Any]) -> str:
    rows = comparison_rows(metrics)
    if not rows:
        return ""
    columns = shown_columns([Column("model"), *metric_columns(ACCURACY)], rows)
    html = f'<h2>Accuracy on the test items</h2><div class="card">{html_table(rows, columns)}</div>'
    apart = comparison_rows(metrics, "test_without_history", "baselines_without_history")
    if apart:
        columns = shown_columns([Column("model"), *metric_columns(ACCURACY)], apart)
        table = html_table(apart, columns)
        html += f'<div class="card"><h3>History excluded from the lists</h3>{table}</div>'
    if metrics.get("validation"):
        own = [{"setting": text, **metrics[text]} for text in ("validation", "test")]
        columns = shown_columns([Column("setting"), *_plain(ACCURACY)], own)
        heading, table = escape(model_name(metrics)), html_table(own, columns)
        html += f'<div class="card"><h3>{heading} by split</h3>{table}</div>'
    return html


def _retrieval(metrics: Mapping[str, Any]) -> str:
    rows = retrieval_rows(metrics)
    if not rows:
        return ""
    table = html_table(rows, shown_columns(RETRIEVAL_COLUMNS, rows))
    return (
        "<h2>Several searches of the same model</h2>"
        '<p class="soft">All rank by S1; they differ in how many items they look at. "+ dense": '
        "the best under S1 are ranked again by S2, and compared with exact + dense.</p>"
        f'<div class="card">{table}</div>'
    )


def _figures(figures: Mapping[str, Path]) -> str:
    order = sorted(figures, key=lambda n: (list(CAPTIONS).index(n) if n in CAPTIONS else 99, n))
    shown = []
    for name in order:
        caption = CAPTIONS.get(name, name.replace("_", " "))
        wide = ' class="wide"' if name in _WIDE else ""
        shown.append(
            f"<figure{wide}>{_image(figures[name], caption)}"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f'<h2>Figures</h2><div class="figures">{"".join(shown)}</div>' if shown else ""


def _groups(metrics: Mapping[str, Any]) -> str:
    names = [name for name in GROUPS if name in metrics]
    names += [name for name in metrics if name not in GROUPS and name not in _OWN_SECTIONS]
    cards = []
    for name in names:
        group = metrics[name] if isinstance(metrics[name], Mapping) else {name: metrics[name]}
        heading, sentence = GROUPS.get(name, (name.replace("_", " "), ""))
        flat = flatten(group)
        rows = [
            {"what": key.replace("_", " ").replace(".", " · "), "value": _fact(value, flat, key)}
            for key, value in flat.items()
            if not (key.endswith(("_low", "_high")) and key.rsplit("_", 1)[0] in flat)
        ]
        body = "".join(
            f'<tr><td>{escape(row["what"])}</td><td class="number">{escape(row["value"])}</td></tr>'
            for row in rows
        )
        sub = f'<p class="soft">{escape(sentence)}</p>' if sentence else ""
        cards.append(
            f'<div class="card"><h3>{escape(heading)}</h3>{sub}<table>{body}</table></div>'
        )
    return f'<h2>Measured</h2><div class="grid">{"".join(cards)}</div>' if cards else ""


def _fact(value: Any, flat: Mapping[str, Any], key: str) -> str:
    digits = 4 if not isinstance(value, float) or abs(value) < 10 else 1
    text = format_value(value, digits)
    low, high = flat.get(f"{key}_low"), flat.get(f"{key}_high")
    if low is not None and high is not None:
        text += f" [{format_value(low, digits)}, {format_value(high, digits)}]"
    return text


def _users(stories: Sequence[UserStory], figures: Mapping[str, Path]) -> str:
    if not stories:
        return ""
    shown = "".join(_user(story, figures) for story in stories)
    return (
        "<h2>Some users</h2>"
        '<p class="soft">A semantic ID is the coarse cell (blue) and the fine digits. What an '
        "update moved is marked; the rest kept its codes.</p>" + shown
    )


def _user(story: UserStory, figures: Mapping[str, Path]) -> str:
    recent = list(story.history)[-_SHOWN_ITEMS:]
    earlier = len(story.history) - len(recent)
    weights = "".join(
        f'<div class="weight"><span>{escape(name)}</span>'
        f'<i style="--share:{100 * weight:.1f}%"></i><span class="number">{weight:.2f}</span></div>'
        for name, weight in story.weights.items()
    )
    recommended = "".join(
        f'<tr{_hit(r.title, story.target)}><td class="number">{r.rank}</td>'
        f'<td>{escape(r.title)}</td><td class="soft">{escape(r.item_id)}</td>'
        f'<td class="number">{r.score:.2f}</td></tr>'
        for r in story.recommendations
    )
    weights = f"<h3>Weights</h3>{weights}" if weights else ""
    figure = figures.get(Path(story.figure).stem) if story.figure else None
    timeline = f'<div class="full">{_image(figure, "weights over time")}</div>' if figure else ""
    more = f' <span class="soft">(the last {len(recent)} of {len(story.history)})</span>'
    note = f'<p class="soft">{escape(story.note)}</p>' if story.note else ""
    return (
        f'<div class="card"><h3>User {escape(story.user_id)} '
        f'<span class="soft">· archetype {story.archetype}</span></h3>{note}<div class="user">'
        f"<div><h3>History{more if earlier else ''}</h3>{_history(story, recent)}</div>"
        f"<div>{weights}<h3 style='margin-top:14px'>Recommended</h3>"
        f"<table>{recommended}</table>"
        f"<p>Chosen next: <b>{escape(story.target)}</b></p></div>{timeline}</div></div>"
    )


def _history(story: UserStory, recent: Sequence[str]) -> str:
    before = _aligned(story.ids_before, len(recent))
    after = _aligned(story.ids_after, len(recent))
    moves = any(b and a and list(b) != list(a) for b, a in zip(before, after, strict=True))
    lines = []
    for title, old, new in zip(recent, before, after, strict=True):
        code = _code(new or old, old if moves else None)
        if moves and old and new and list(old) != list(new):
            code = f'{_code(old, None)}<br><span class="soft">→</span> {code}'
        lines.append(f"<tr><td>{escape(title)}<br>{code}</td></tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _aligned(ids: Sequence[Sequence[int]], count: int) -> list[Sequence[int]]:
    """The IDs of the last `count` items; empty where there are fewer IDs than items."""
    known = list(ids)[-count:] if count else []
    return [()] * (count - len(known)) + known


def _code(new: Sequence[int], old: Sequence[int] | None) -> str:
    if not new:
        return ""
    parts = []
    for place, code in enumerate(new):
        moved = bool(old) and old is not None and old[place] != code
        kinds = " ".join(k for k, on in (("coarse", place == 0), ("moved", moved)) if on)
        parts.append(f'<span class="{kinds}">{code}</span>' if kinds else str(code))
    return f"<code>{parts[0]} · {' '.join(parts[1:])}</code>"


def _hit(title: str, target: str) -> str:
    return ' class="hit"' if title == target else ""


def _image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(text)}">'


def _plain(names: Sequence[str]) -> list[Column]:
    """The metrics' columns, none of them in bold: settings do not compete."""
    return [Column(column.key, column.title) for column in metric_columns(names)]


def _read_config(path: Path) -> dict[str, Any]:
    """config.json if it is there and whole: the page does without it."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _dataset(config: Mapping[str, Any]) -> str:
    resolved = config.get("config", config)
    data = resolved.get("data", {}) if isinstance(resolved, Mapping) else {}
    return dataset_of(data) if isinstance(data, Mapping) and data.get("name") else ""


def _title(config: Mapping[str, Any]) -> str:
    dataset = _dataset(config)
    name = str(config.get("config", {}).get("recommender", "hdnag"))
    name = NAMES.get(name, name)
    return f"semid_jax: {name} on {dataset}" if dataset else f"semid_jax: {name}"


def _footer(config: Mapping[str, Any]) -> str:
    facts = [
        f"{name} {escape(str(config[name]))}"
        for name in ("revision",)
        if isinstance(config.get(name), str)
    ]
    versions = config.get("versions")
    if isinstance(versions, Mapping):
        facts.append(", ".join(f"{escape(str(n))} {escape(str(v))}" for n, v in versions.items()))
    command = config.get("command")
    shown = f"<pre>{escape(str(command))}</pre>" if command else ""
    return f"{shown}<footer>{' · '.join(facts)}</footer>"
