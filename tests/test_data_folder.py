import numpy as np
import pytest

from semid_jax.data.folder import read_folder
from semid_jax.types import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "zoe\tb\t1\t10.5\nzoe\ta\t1\t11\nann\tc\t2\t3\nzoe\tc\t1\t12\nann\ta\t1\t4\nann\tb\t1\t5\n"
    )
    (tmp_path / "mine.item").write_text(
        "item_id:token\ttitle:token_seq\tclass:token_seq\n"
        "c\tThe Chair\twood home\na\tAn Apple\tfood\nb\tBall\t\nd\tunseen\tfood\n"
    )
    np.save(tmp_path / "text_feat.npy", np.arange(8.0).reshape(4, 2))
    sound = np.arange(4.0).reshape(4, 1)
    sound[1] = np.nan
    np.save(tmp_path / "audio_feat.npy", sound)
    return tmp_path


def test_reads_atomic_files_and_feature_tables(folder):
    data = read_folder(folder)
    assert data.interactions.user_ids.tolist() == ["zoe", "ann"]
    assert data.catalogue.item_ids.tolist() == ["", "c", "a", "b"]
    np.testing.assert_array_equal(data.interactions.items, [3, 2, 1, 1, 2, 3])
    np.testing.assert_array_equal(data.interactions.times, [10, 11, 12, 3, 4, 5])
    assert data.catalogue.titles[1] == "The Chair"
    assert data.catalogue.categories.tolist() == ["", "wood|home", "food", ""]
    np.testing.assert_array_equal(data.catalogue.vectors["text"][1:], [[0, 1], [2, 3], [4, 5]])
    assert np.isnan(data.catalogue.vectors["audio"]).ravel().tolist() == [True, False, True, False]
    assert data.notes["items_without_audio"] == 1
    assert data.notes["items_without_interactions"] == 1


def test_without_timestamps_the_order_of_rows_counts(folder):
    rows = ["user_id:token\titem_id:token", *(f"u\t{item}" for item in "abca")]
    (folder / "mine.inter").write_text("\n".join(rows))
    data = read_folder(folder)
    assert data.interactions.times is None
    assert data.catalogue.item_ids[data.interactions.items].tolist() == list("abca")


def test_fractions_of_a_second_still_order(folder):
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    rows += ["u\ta\t5.9", "u\tb\t5.1", "u\tc\t7"]
    (folder / "mine.inter").write_text("\n".join(rows))
    data = read_folder(folder)
    assert data.catalogue.item_ids[data.interactions.items].tolist() == list("bac")


def test_marks_and_breaks_of_unicode_are_no_lines(folder):
    rows = ["\ufeffuser_id:token\titem_id:token", *("u\ta", "u\tb", "u\tc")]
    (folder / "mine.inter").write_text("\r\n".join(rows), encoding="utf-8")
    items = ["item_id:token\ttitle:token", "a\tone\u2028line", "b\tB\x85", "c\tC", "d\tD"]
    (folder / "mine.item").write_text("\n".join(items), encoding="utf-8")
    data = read_folder(folder)
    assert data.catalogue.titles.tolist() == ["", "one\u2028line", "B\x85", "C"]


def save(name, values):
    return lambda folder: np.save(folder / name, values)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            save("text_feat.npy", np.zeros((3, 2))),
            r"text_feat.npy: 3 rows, but mine.item has 4 items",
        ),
        (
            save("text_feat.npy", np.array([[1, 2], [3, np.nan], [1, 2], [1, 2]])),
            r"text_feat.npy: non-finite value nan in row 1 \(item a\), column 1",
        ),
        (
            save("text_feat.npy", np.full((4, 2), -np.inf)),
            r"text_feat.npy: non-finite value -inf in row 0",
        ),
        (save("text_feat.npy", np.zeros(4)), r"expected numbers \[items, width\]"),
        (text("text_feat.npy", "no array"), r"text_feat.npy: is not a readable .npy array"),
        (
            lambda folder: np.save(folder / "text_feat.npy", np.array([[{}]] * 4)),
            r"text_feat.npy: is not a readable .npy array",
        ),
        (text("mine.inter", "user:token\titem_id:token\nu\ta\n"), r"column 'user_id' is missing"),
        (
            text("mine.inter", "user_id:token\titem_id:token\nu\n"),
            r"mine.inter, line 2: 1 cells, the header has 2",
        ),
        (text("mine.inter", "user_id:token\titem_id:token\n"), r"no rows behind the header"),
        (
            text("mine.inter", "user_id:token\titem_id:token\nu\tq\n"),
            r"mine.inter: item q is not in the item file",
        ),
        (
            text("mine.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ta\tnow\n"),
            r"column 'timestamp' is not a number",
        ),
        (
            text("mine.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ta\tnan\n"),
            r"mine.inter, line 2: timestamp is nan",
        ),
        (
            text("mine.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1e30\n"),
            r"mine.inter, line 2: timestamp is 1e30; give a finite number below 1e\+18",
        ),
        (
            text("mine.inter", "user_id:token\titem_id:token\nu\ta\n\ta\n"),
            r"mine.inter, line 3: user_id is empty",
        ),
        (text("mine.item", "item_id:token\ttitle:token\n \tb\n"), r"line 2: item_id is empty"),
        (text("mine.item", "item_id:token\na\nb\na\nc\n"), r"item a has several rows"),
        (text("two.item", "item_id:token\na\n"), r"needs exactly one \*.item file"),
        (lambda folder: (folder / "mine.inter").unlink(), r"exactly one \*.inter file.*none"),
        (
            lambda folder: [path.unlink() for path in folder.glob("*.npy")],
            r"no <modality>_feat.npy file",
        ),
    ],
)
def test_wrong_files_are_named_in_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        read_folder(folder)
    assert "\n" not in str(error.value)
