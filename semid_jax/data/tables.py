"""The file formats that several readers share, each checked as it is read."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semid_jax.types import InputError

LARGEST = 1e18  # number of a column: what an int64 can hold
LONGEST = 2**31 - 1  # characters of a cell: Python's own limit is met by descriptions


def read_text(path: Path) -> str:
    """The text of a file, unpacked if its name ends in .gz.

    Raises:
      InputError: the file is missing, torn or not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; point config.data.source_dir at the data set")
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch the file again") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a file; what else Unicode takes for the end of a line stays in them.

    Raises:
      InputError: see `read_text`.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n")


def read_jsonl(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, each of which must have the given fields.

    Args:
      path: the file.
      fields: name -> type.

    Raises:
      InputError: names file, line and field.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error.msg}); fix it") from error
        lacking = [name for name in fields if not isinstance(row, dict) or name not in row]
        if lacking:
            raise InputError(f"{path}, line {number}: field {lacking[0]!r} is missing; add it")
        wrong = [name for name, kind in fields.items() if not isinstance(row[name], kind)]
        if wrong:
            kind, value = fields[wrong[0]].__name__, json.dumps(row[wrong[0]])
            raise InputError(
                f"{path}, line {number}: field {wrong[0]!r} is {value}; give one of type {kind}"
            )
        rows.append(row)
    return rows


def read_sequences(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads lines `user item item …`, items in time order.

    Returns:
      user ids str[U], row of the user int64[nnz], item id int64[nnz].

    Raises:
      InputError: names file and line.
    """
    lines = [line.split() for line in read_lines(path)]
    lines = [line for line in lines if line]
    sizes = np.array([len(line) - 1 for line in lines], np.int64)
    if not len(lines) or not sizes.sum():
        raise InputError(f"{path}: no interactions; expected lines `user item item …`")
    try:
        items = np.array([token for line in lines for token in line[1:]]).astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: an item id is not a whole number ({error}); fix it") from error
    user_ids = np.array([line[0] for line in lines])
    unique, first = np.unique(user_ids, return_index=True)
    if len(unique) < len(user_ids):
        repeated = user_ids[np.setdiff1d(np.arange(len(user_ids)), first)[0]]
        raise InputError(f"{path}: user {repeated} has two lines; join them in time order")
    return user_ids, np.repeat(np.arange(len(lines)), sizes), items


def read_table(path: Path, fields: Sequence[str], separator: str = ",") -> dict[str, np.ndarray]:
    """Reads a text file of columns under a header; the cells of comma-separated ones may be quoted.

    Args:
      path: the file.
      fields: columns it must have.
      separator: of cells; a header cell may add `:type` to its name, which is dropped.

    Returns:
      column name -> str[rows].

    Raises:
      InputError: a column is missing, a row has another number of cells, or there is no row.
    """
    lines = read_lines(path)
    csv.field_size_limit(LONGEST)
    rows = csv.reader(lines, delimiter=separator, quotechar='"' if separator == "," else None)
    try:
        head = next(rows, [])
        cells = [(rows.line_num, row) for row in rows if "".join(row).strip()]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {rows.line_num}: {error}; is there a quotation mark too many?"
        ) from error
    header = [cell.split(":")[0].strip() for cell in head]
    for field in fields:
        if field not in header:
            raise InputError(
                f"{path}: column {field!r} is missing (header has {', '.join(header) or 'nothing'})"
                "; add it"
            )
    for number, row in cells:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(row)} cells, the header has {len(header)}; "
                f"separate by single {'tabs' if separator == chr(9) else 'commas'}"
            )
    if not cells:
        raise InputError(f"{path}: no rows behind the header; add them")
    columns = zip(*(row for _, row in cells), strict=True)
    return {name: np.array(column) for name, column in zip(header, columns, strict=True)}


def check_ids(path: Path, column: str, cells: np.ndarray) -> None:
    """Refuses a column of ids, str[rows], of which one is empty.

    Raises:
      InputError: names file, line and column.
    """
    blank = np.flatnonzero(np.char.strip(cells) == "")
    if len(blank):
        raise InputError(f"{path}, line {blank[0] + 2}: {column} is empty; give an id")


def numbers(path: Path, column: str, cells: np.ndarray, gaps: bool = False) -> np.ndarray:
    """The cells of a column as finite numbers.

    Args:
      path: the file to name in errors.
      column: its name.
      cells: str[rows].
      gaps: whether a cell may be empty, which is NaN then.

    Returns:
      float64[rows].

    Raises:
      InputError: names file and column, or line.
    """
    empty = (cells == "") & gaps
    try:
        values = np.where(empty, "0", cells).astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path}: column {column!r} is not a number ({error}); fix it") from error
    wrong = np.flatnonzero(~(np.abs(values) < LARGEST))
    if len(wrong):
        raise InputError(
            f"{path}, line {wrong[0] + 2}: {column} is {cells[wrong[0]]}; give a finite number "
            f"below {LARGEST:g}"
        )
    return np.where(empty, np.nan, values)


def whole_numbers(path: Path, column: str, cells: np.ndarray) -> np.ndarray:
    """The cells of a column as int64[rows].

    Raises:
      InputError: names file and column, or line.
    """
    values = numbers(path, column, cells)
    wrong = np.flatnonzero(values != np.floor(values))
    if len(wrong):
        cell = cells[wrong[0]]
        raise InputError(f"{path}, line {wrong[0] + 2}: {column} is {cell}; give a whole number")
    return values.astype(np.int64)


def whole_ids(path: Path, ids: Sequence[int]) -> np.ndarray:
    """Distinct ids of a file's rows as int64[n].

    Raises:
      InputError: one is too large, or there are two of one id.
    """
    try:
        made = np.array(ids, np.int64)
    except OverflowError as error:
        raise InputError(f"{path}: an id is too large ({error}); number the items anew") from error
    check_distinct(path, made)
    return made


def check_distinct(path: Path, ids: np.ndarray) -> None:
    """Refuses ids of items, [n], of which two are the same.

    Raises:
      InputError: names file and id.
    """
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise InputError(f"{path}: item {unique[counts > 1][0]} has several rows; keep one")


def rows_of(ids: np.ndarray, wanted: np.ndarray, source: str) -> np.ndarray:
    """Rows of `wanted` ids in a table of distinct `ids`.

    Args:
      ids: int[n] or str[n], distinct.
      wanted: the same type, any shape.
      source: the file to name in errors.

    Returns:
      int64, the shape of wanted.

    Raises:
      InputError: an id is not in the table.
    """
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
    rows = order[place]
    unknown = ids[rows] != wanted
    if np.any(unknown):
        raise InputError(
            f"{source}: item {wanted[unknown].flat[0]} is not in the item file "
            f"({int(unknown.sum())} such interactions); add it there or drop them"
        )
    return rows


def read_features(path: Path, ids_field: str, field: str, item_ids: np.ndarray) -> np.ndarray:
    """Reads an .npz of (ids, one feature row per id) and lays the rows out by item.

    Args:
      path: the .npz file.
      ids_field: name of int[n], item ids.
      field: name of float[n, d].
      item_ids: int[N], the ids of the items wanted, in order.

    Returns:
      float32[N + 1, d]; row 0, and the rows of items that the file lacks, are all NaN.

    Raises:
      InputError: names file and field.
    """
    arrays = _load_npz(path, (ids_field, field))
    ids, values = arrays[ids_field], arrays[field]
    if values.ndim != 2 or len(ids) != len(values):
        raise InputError(
            f"{path}: {field} has shape {values.shape} but {ids_field} has {len(ids)} rows; "
            "they must agree, build the file again"
        )
    if not len(ids):
        raise InputError(f"{path}: {field} has no rows; build the file again")
    check_finite(values, str(path), ids)
    table = np.full((len(item_ids) + 1, values.shape[1]), np.nan, np.float32)
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids, item_ids, sorter=order), len(ids) - 1)
    found = ids[order[place]] == item_ids
    table[1:][found] = values[order[place]][found]
    return table


def _load_npz(path: Path, fields: Sequence[str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; point config.data.source_dir at the data set")
    try:
        # Opened here, since np.load leaves a torn file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            lacking = [name for name in fields if name not in archive.files]
            if lacking:
                raise InputError(f"{path}: array {lacking[0]!r} is missing; build the file again")
            return {name: archive[name] for name in fields}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({error}); fetch the file again") from error


def check_finite(values: np.ndarray, source: str, ids: np.ndarray) -> None:
    """Refuses every non-finite value but those of a row that is NaN as a whole (item lacks it).

    Args:
      values: float[n, d].
      source: the file to name.
      ids: [n], what to call the rows.

    Raises:
      InputError: names file, row and column.
    """
    bad = ~np.isfinite(values)
    rows = np.flatnonzero(bad.any(axis=1))
    rows = rows[~np.isnan(values[rows]).all(axis=1)]
    if len(rows):
        row = rows[0]
        column = int(np.flatnonzero(bad[row])[0])
        raise InputError(
            f"{source}: non-finite value {values[row, column]} in row {row} (item {ids[row]}), "
            f"column {column}, {len(rows)} such rows; make the row finite, or all NaN if the "
            "item lacks this modality"
        )


def with_padding(values: Sequence[str]) -> np.ndarray:
    """str[N + 1] from N strings, row 0 being ""."""
    return np.array(["", *values])
