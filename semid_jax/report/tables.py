"""One table, three looks: for the terminal, for README.md and for the page."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

MISSING = "-"
_BOLD, _PLAIN = "\033[1m", "\033[0m"


@dataclasses.dataclass(frozen=True)
class Column:
    """How one field of the rows is shown.

    Attributes:
      key: the field; a row may lack it.
      title: the head of the column; the key if empty.
      digits: decimals of floats.
      best: "max" or "min" prints the best number in bold, "" none.
      percent: show 0.25 as 25.0 %.
      interval: show "[low, high]" behind the number, from `<key>_low` and `<key>_high`.
    """

    key: str
    title: str = ""
    digits: int = 4
    best: Literal["", "max", "min"] = ""
    percent: bool = False
    interval: bool = False

    @property
    def head(self) -> str:
        """The title, or the key where there is none."""
        return self.title or self.key


def shown_columns(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns that some row has a value for."""
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)]


def metric_columns(names: Sequence[str], interval: bool = False) -> list[Column]:
    """Columns for metrics where more is better, e.g. "ndcg@10" under the head NDCG@10."""
    return [Column(name, metric_title(name), best="max", interval=interval) for name in names]


def metric_title(name: str) -> str:
    """ "ndcg@10" -> "NDCG@10", "recall@5" -> "Recall@5"."""
    short = name.split("@")[0]
    return name.upper() if short in ("ndcg", "mrr") else name[:1].upper() + name[1:]


def text_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], bold: bool = False
) -> str:
    """The table for a terminal: two spaces between columns, numbers to the right.

    Args:
      rows: one mapping per row.
      columns: what to show, in order.
      bold: mark the best numbers with terminal codes; else with a star.

    Returns:
      Lines joined by newlines, without one at the end.
    """
    cells, best = _cells(rows, columns), _best_rows(rows, columns)
    if not bold:
        starred = any(best)
        for c, winners in enumerate(best):
            for r, row in enumerate(cells):
                row[c] += "*" if r in winners else " " if starred and winners else ""
    heads = [column.head for column in columns]
    right = [_is_numeric(rows, column) for column in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(values: Sequence[str], row: int | None = None) -> str:
        parts = []
        for c, value in enumerate(values):
            part = value.rjust(widths[c]) if right[c] else value.ljust(widths[c])
            if bold and row in best[c]:
                part = f"{_BOLD}{part}{_PLAIN}"
            parts.append(part)
        return "  ".join(parts).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(heads), rule, *(line(row, r) for r, row in enumerate(cells))])


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """The table in GitHub's Markdown, the best numbers in bold."""
    cells, best = _cells(rows, columns), _best_rows(rows, columns)
    lines = [
        "| " + " | ".join(column.head for column in columns) + " |",
        "|" + "|".join("---:" if _is_numeric(rows, c) else "---" for c in columns) + "|",
    ]
    for r, row in enumerate(cells):
        shown = [f"**{v}**" if r in best[c] else v.replace("|", r"\|") for c, v in enumerate(row)]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def html_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """The table in HTML: numbers have class "number", the best ones stand in <b>."""
    cells, best = _cells(rows, columns), _best_rows(rows, columns)
    classes = [' class="number"' if _is_numeric(rows, column) else "" for column in columns]
    heads = "".join(
        f"<th{kind}>{html.escape(column.head)}</th>"
        for column, kind in zip(columns, classes, strict=True)
    )
    body = []
    for r, row in enumerate(cells):
        shown = [
            f"<b>{html.escape(value)}</b>" if r in best[c] else html.escape(value)
            for c, value in enumerate(row)
        ]
        marked = ' class="highlight"' if rows[r].get("highlight") else ""
        tds = "".join(f"<td{k}>{v}</td>" for k, v in zip(classes, shown, strict=True))
        body.append(f"<tr{marked}>{tds}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def format_value(value: Any, digits: int = 4, percent: bool = False) -> str:
    """One value for people: floats with fixed decimals, whole numbers with thousands apart."""
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool | str):
        return str(value)
    if percent:
        return f"{100 * value:.{max(digits - 2, 0)}f} %"
    if isinstance(value, float | np.floating):
        return f"{value:,.{digits}f}"
    return f"{value:,}"


def _cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[list[str]]:
    return [[_cell(row, column) for column in columns] for row in rows]


def _cell(row: Mapping[str, Any], column: Column) -> str:
    text = format_value(row.get(column.key), column.digits, column.percent)
    low, high = row.get(f"{column.key}_low"), row.get(f"{column.key}_high")
    if column.interval and low is not None and high is not None:
        ends = (format_value(end, column.digits, column.percent) for end in (low, high))
        text += f" [{', '.join(ends)}]"
    return text


def _number(row: Mapping[str, Any], column: Column) -> float | None:
    value = row.get(column.key)
    if value is None or isinstance(value, str | bool) or not math.isfinite(value):
        return None
    return float(value)


def _is_numeric(rows: Sequence[Mapping[str, Any]], column: Column) -> bool:
    return any(_number(row, column) is not None for row in rows)


def _best_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[set[int]]:
    """Per column, the rows whose shown number is the best; none where only one row has one."""
    best: list[set[int]] = []
    for column in columns:
        numbers = {r: n for r, row in enumerate(rows) if (n := _number(row, column)) is not None}
        if not column.best or len(numbers) < 2:
            best.append(set())
            continue
        target = max(numbers.values()) if column.best == "max" else min(numbers.values())
        shown = format_value(target, column.digits, column.percent)
        same = {
            r for r, n in numbers.items() if format_value(n, column.digits, column.percent) == shown
        }
        best.append(same)
    return best
