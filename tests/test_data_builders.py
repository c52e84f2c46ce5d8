import tempfile

import numpy as np
import pytest

from semid_jax.data import builders
from semid_jax.data.source import RawDataset
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.types import Catalogue, InputError, Interactions


def with_tokens() -> RawDataset:
    vectors = np.array([[np.nan] * 3, [1, 2, 3], [np.nan] * 3], np.float32)
    bags = tuple(np.array(bag, np.int32) for bag in ([], [7, 8], []))
    return RawDataset(
        Interactions(
            np.array(["ä", "b"]), np.array([1, 2, 1, 2, 2, 1, 2], np.int32), np.array([0, 3, 7]),
            None, 2,
        ),
        Catalogue(
            np.array(["", "x", "y"]), np.array(["", "Große Fragen", ""]),
            np.array(["", "p|q", ""]), {"text": vectors}, {"attributes": bags},
        ),
        {"duplicates_dropped": 3},
    )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> RawDataset:
    return generate(SyntheticConfig(n_users=40, n_items=60, topics=4, seed=3))


@pytest.mark.parametrize("name", ["synthetic", "amazon_2014"])
def test_reading_returns_what_was_written(tmp_path, world, name):
    raw = world if name == "synthetic" else with_tokens()
    builders.write(raw, tmp_path / "data", name)
    back = builders.read(tmp_path / "data")
    for field in ("user_ids", "items", "offsets", "times"):
        expected, found = getattr(raw.interactions, field), getattr(back.interactions, field)
        if expected is None:
            assert found is None
            continue
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.kind == expected.dtype.kind
    assert back.interactions.n_items == raw.interactions.n_items
    for field in ("item_ids", "titles", "categories"):
        np.testing.assert_array_equal(getattr(back.catalogue, field), getattr(raw.catalogue, field))
    assert back.catalogue.modalities == raw.catalogue.modalities
    for modality, table in raw.catalogue.vectors.items():
        np.testing.assert_array_equal(back.catalogue.vectors[modality], table)
    for modality, bags in raw.catalogue.tokens.items():
        for expected, found in zip(bags, back.catalogue.tokens[modality], strict=True):
            np.testing.assert_array_equal(found, expected)
    assert back.notes == raw.notes
    assert set(back.truth) == set(raw.truth)
    for key, values in raw.truth.items():
        np.testing.assert_array_equal(back.truth[key], values)
        assert back.truth[key].dtype == values.dtype


def test_files_are_array_records_and_nothing_is_pickled(tmp_path, world):
    builders.write(world, tmp_path / "data", "synthetic")
    suffixes = {path.name.split(".")[-1].split("-")[0] for path in tmp_path.rglob("*.*")}
    assert "array_record" in suffixes
    assert suffixes <= {"array_record", "json", "npy", "config", "0"}


def test_writing_says_nothing(tmp_path, capfd):
    builders.write(with_tokens(), tmp_path / "data")
    assert capfd.readouterr() == ("", "")


def test_writing_leaves_nothing_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    builders.write(with_tokens(), tmp_path / "data")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("table", ["users", "items"])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "deleted", "empty"])
def test_torn_array_record_is_named_with_its_remedy(tmp_path, world, table, damage):
    folder = tmp_path / "data"
    builders.write(world, folder, "synthetic")
    (path,) = (folder / "synthetic" / table).rglob("*.array_record*")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        middle = len(content) // 3
        path.write_bytes(content[:100] + bytes(middle) + content[100 + middle :])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(InputError, match=rf"torn; delete {folder} and run again") as error:
        builders.read(folder)
    assert "\n" not in str(error.value)
    assert f"synthetic/{table}" in str(error.value)


def test_missing_notes_and_torn_truth_are_named(tmp_path, world):
    with pytest.raises(InputError, match=r"notes.json: missing or torn"):
        builders.read(tmp_path / "nothing")
    builders.write(world, tmp_path / "data", "synthetic")
    (tmp_path / "data" / "truth" / "alpha_end.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"alpha_end.npy: missing or torn"):
        builders.read(tmp_path / "data")


def test_two_data_sets_in_one_folder_are_refused(tmp_path, world):
    builders.write(world, tmp_path / "data", "synthetic")
    builders.write(world, tmp_path / "data", "folder")
    with pytest.raises(InputError, match=r"holds 2 tables of users, expected one"):
        builders.read(tmp_path / "data")
