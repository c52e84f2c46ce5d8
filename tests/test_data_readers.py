import gzip
import json

import numpy as np
import pytest

from semid_jax.data import tables
from semid_jax.data.amazon import read_amazon_2014
from semid_jax.data.config import DataConfig, read
from semid_jax.data.movielens import read_movielens_1m, read_movielens_100k
from semid_jax.data.situnes import DESCRIPTORS, read_situnes
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.data.tables import read_table
from semid_jax.types import InputError

MOVIES = [10, 20, 30]


@pytest.fixture
def movielens(tmp_path):
    folder = tmp_path / "movielens_1m"
    folder.mkdir()
    write_gz(folder / "sequences.txt.gz", "7 20 10 20\n3 10 30 20 10\n")
    rows = [{"movieId": k, "title": f"Movie {k}", "genres": ["Drama", "War"]} for k in MOVIES]
    (folder / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    save_features(folder)
    return folder


def save_features(folder, image=None, ids=(30, 10)):
    image = np.array([[3, 3.5], [1, 1.5]], np.float16) if image is None else image
    np.savez(folder / "poster_effnetlite0_fp16.npz", ids=np.array(ids, np.int32), feat=image)
    text = np.array(MOVIES, np.float16)[:, None] + np.zeros((1, 3), np.float16)
    np.savez(folder / "text_minilm_fp16.npz", ids=np.array(MOVIES, np.int32), emb=text)


def write_gz(path, text):
    path.write_bytes(gzip.compress(text.encode()))


def test_movielens_1m_joins_features_by_movie_id(movielens):
    data = read_movielens_1m(movielens)
    assert data.interactions.user_ids.tolist() == ["7", "3"]
    np.testing.assert_array_equal(data.interactions.items, [2, 1, 2, 1, 3, 2, 1])
    assert data.interactions.times is None
    assert data.catalogue.titles.tolist() == ["", "Movie 10", "Movie 20", "Movie 30"]
    assert data.catalogue.categories[1] == "Drama|War"
    image = data.catalogue.vectors["image"]
    np.testing.assert_array_equal(image[1], [1, 1.5])
    np.testing.assert_array_equal(image[3], [3, 3.5])
    assert np.isnan(image[[0, 2]]).all()
    np.testing.assert_array_equal(data.catalogue.vectors["text"][1:, 0], MOVIES)
    assert data.notes["items_without_image"] == 1


def test_movielens_100k_takes_features_from_its_sibling(movielens):
    folder = movielens.parent / "movielens_100k"
    folder.mkdir()
    lines = ["user,item100k,rating,timestamp,movieId_ml1m"]
    lines += ["1,5,4,30,30", "1,6,4,10,10", "1,7,3,20,"]
    write_gz(folder / "interactions.csv.gz", "\n".join(lines))
    data = read_movielens_100k(folder)
    assert data.catalogue.item_ids.tolist() == ["", "5", "6", "7"]
    assert data.catalogue.titles.tolist() == ["", "Movie 30", "Movie 10", "movie 7"]
    np.testing.assert_array_equal(data.interactions.items, [2, 3, 1])
    np.testing.assert_array_equal(data.interactions.times, [10, 20, 30])
    assert data.notes["users_reordered"] == 1
    assert np.isnan(data.catalogue.vectors["text"][3]).all()
    np.testing.assert_array_equal(data.catalogue.vectors["image"][1], [3, 3.5])


def test_amazon_reads_titles_and_attributes(tmp_path):
    folder = write_amazon(tmp_path)
    data = read_amazon_2014(folder, "Beauty")
    assert data.catalogue.modalities == ("attributes", "text")
    assert data.catalogue.item_ids.tolist() == ["", "B1", "B2"]
    assert [bag.tolist() for bag in data.catalogue.tokens["attributes"]] == [[], [4, 9], [4]]
    assert data.catalogue.categories.tolist() == ["", "", ""]
    with pytest.raises(InputError, match=r"data.category = 'Toys'.*there are Beauty"):
        read_amazon_2014(folder, "Toys")


def write_amazon(tmp_path):
    beauty = tmp_path / "amazon_2014" / "Beauty"
    beauty.mkdir(parents=True)
    (beauty / "sequences.txt").write_text("1 1 2 1\n2 2 1 2\n")
    rows = [
        {"id": 1, "asin": "B1", "text": "soap", "attributes": [4, 9]},
        {"id": 2, "asin": "B2", "text": "oil", "attributes": [4]},
    ]
    (beauty / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    np.savez(beauty / "text_minilm_fp16.npz", ids=np.array([1, 2]), emb=np.eye(2))
    return tmp_path / "amazon_2014"


SONGS = [  # id, title, singer, genre, what its descriptors are made of
    ("12.0", '"Slow, slower"', "Ann", "jazz", 1.0),
    ("5.0", "Loud", "Bob", "rock", 3.0),
    ("7.0", "Louder", "Ann", "rock", ""),
    ("9.0", "Unheard", "Cid", "pop", 8.0),
]


@pytest.fixture
def situnes(tmp_path):
    folder = tmp_path / "situnes"
    folder.mkdir()
    header = ["i_id_c", "music", "singer", "general_genre", *DESCRIPTORS]
    rows = [
        [*song, *(value if value == "" else (k + 1) * value for k in range(len(DESCRIPTORS)))]
        for *song, value in SONGS
    ]
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    (folder / "music.csv").write_text("\n".join(lines))
    plays = {1: "3,12,100\n3,5,90\n", 2: "3,12,300\n20,7,1\n20,99,2\n", 3: "20,7,9\n"}
    for stage, text in plays.items():
        (folder / f"stage{stage}.csv").write_text("user_id,item_id,timestamp\n" + text)
    return folder


def test_situnes_joins_three_stages_and_describes_songs_in_comparable_units(situnes):
    data = read_situnes(situnes)
    assert data.interactions.user_ids.tolist() == ["3", "20"]
    items, catalogue = data.interactions.items, data.catalogue
    assert catalogue.item_ids[items].tolist() == ["5", "12", "12", "7", "99", "7"]
    np.testing.assert_array_equal(data.interactions.times, [90, 100, 300, 1, 2, 9])
    assert data.notes["users_reordered"] == 1
    assert catalogue.item_ids.tolist() == ["", "5", "7", "12", "99"]
    assert catalogue.titles.tolist() == ["", "Loud", "Louder", "Slow, slower", "song 99"]
    audio = catalogue.vectors["audio"]
    described = np.array([1.0, 3.0, 8.0])
    expected = (np.array([3.0, 1.0]) - described.mean()) / described.std()
    np.testing.assert_allclose(audio[[1, 3]], np.tile(expected, (17, 1)).T, rtol=1e-5)
    assert np.isnan(audio[[0, 2, 4]]).all()
    loud, louder, slow, unknown = catalogue.tokens["attributes"][1:]
    assert loud[0] == louder[0] != slow[0]  # genre
    assert louder[1] == slow[1] != loud[1]  # singer
    assert len(unknown) == 0


def test_a_song_id_that_is_no_number_is_named(situnes):
    path = situnes / "stage2.csv"
    path.write_text(path.read_text().replace("99", "nan"))
    with pytest.raises(InputError, match=r"stage2.csv, line 4: item_id is nan; give a finite"):
        read_situnes(situnes)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("stage2.csv", "99", "99.5", r"stage2.csv, line 4: item_id is 99.5; give a whole number"),
        ("music.csv", "\n7.0,", "\n5.0,", r"music.csv: item 5 has several rows"),
        ("music.csv", "Louder", '"Louder', r"music.csv, line 5: 2 cells, the header has 21"),
    ],
)
def test_songs_that_cannot_be_are_named(situnes, file, old, new, message):
    path = situnes / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_situnes(situnes)


def test_a_cell_may_be_long_but_has_an_end(tmp_path, monkeypatch):
    path = tmp_path / "long.csv"
    path.write_text("a,b\n1," + "x" * 200_000)
    assert len(read_table(path, ("a", "b"))["b"][0]) == 200_000
    monkeypatch.setattr(tables, "LONGEST", 1000)
    with pytest.raises(InputError, match=r"long.csv, line 2: field larger .* quotation mark"):
        read_table(path, ("a", "b"))


@pytest.mark.parametrize("attributes", [["x"], [3_000_000_000]])
def test_attributes_that_are_no_numbers_are_named(tmp_path, attributes):
    folder = write_amazon(tmp_path)
    path = folder / "Beauty" / "items.jsonl"
    path.write_text(path.read_text().replace("[4, 9]", json.dumps(attributes)))
    with pytest.raises(InputError, match=r"items.jsonl: attributes are .*; give whole numbers"):
        read_amazon_2014(folder, "Beauty")


def damage_number(folder):
    write_gz(folder / "sequences.txt.gz", "7 20 ten 20\n")


def damage_archive(folder):
    path = folder / "text_minilm_fp16.npz"
    path.write_bytes(path.read_bytes()[:100])


def damage_gzip(folder):
    path = folder / "sequences.txt.gz"
    path.write_bytes(path.read_bytes()[:20])


def damage_json(folder):
    (folder / "items.jsonl").write_text('{"movieId": 10, "title": "a"}\n')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_number, r"sequences.txt.gz: an item id is not a whole number"),
        (damage_archive, r"text_minilm_fp16.npz: cannot be read"),
        (damage_gzip, r"sequences.txt.gz: cannot be read"),
        (damage_json, r"items.jsonl, line 1: field 'genres' is missing"),
        (
            lambda folder: (folder / "items.jsonl").write_text(
                '{"movieId": 10, "title": "a", "genres": null}'
            ),
            r"items.jsonl, line 1: field 'genres' is null; give one of type list",
        ),
        (
            lambda folder: (folder / "items.jsonl").write_text(
                '{"movieId": 10, "title": "a", "genres": []}\n' * 2
            ),
            r"items.jsonl: item 10 has several rows",
        ),
        (
            lambda folder: write_gz(folder / "sequences.txt.gz", f"7 20 10 {10**20}\n"),
            r"sequences.txt.gz: an item id is not a whole number",
        ),
        (
            lambda folder: write_gz(folder / "sequences.txt.gz", "7 20 10 99\n"),
            r"sequences.txt.gz: item 99 is not in the item file",
        ),
        (
            lambda folder: write_gz(folder / "sequences.txt.gz", "7 20 10 20\n7 10 20 30\n"),
            r"user 7 has two lines",
        ),
        (lambda folder: write_gz(folder / "sequences.txt.gz", "\n"), r"no interactions"),
        (
            lambda folder: save_features(folder, ids=(10, 20, 30)),
            r"feat has shape \(2, 2\) but ids has 3 rows",
        ),
        (
            lambda folder: save_features(folder, np.array([[1, 2], [np.inf, 0]])),
            r"poster.*non-finite value inf in row 1 \(item 10\), column 0",
        ),
        (
            lambda folder: save_features(folder, np.array([[1, np.nan], [1, 0]])),
            r"non-finite value nan in row 0 \(item 30\), column 1",
        ),
        (
            lambda folder: save_features(folder, np.zeros((0, 2)), ids=()),
            r"poster_effnetlite0_fp16.npz: feat has no rows",
        ),
        (
            lambda folder: (folder / "text_minilm_fp16.npz").unlink(),
            r"text_minilm_fp16.npz: no such file",
        ),
    ],
)
def test_wrong_files_are_named_in_one_line(movielens, damage, message):
    damage(movielens)
    with pytest.raises(InputError, match=message) as error:
        read_movielens_1m(movielens)
    assert "\n" not in str(error.value)


def test_unknown_data_set_names_near_misses():
    with pytest.raises(InputError, match=r"'movielens_1k' is unknown, did you mean 'movielens_1"):
        read(DataConfig(name="movielens_1k"))
    with pytest.raises(InputError, match=r"'xyz' is unknown; known are synthetic, movielens_1m"):
        read(DataConfig(name="xyz"))


def test_missing_data_folder_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"nowhere: no such folder; set data.source_dir"):
        read(DataConfig(name="movielens_1m", source_dir=str(tmp_path / "nowhere")))
    monkeypatch.setenv("SEMID_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"amazon_2014: no such folder"):
        read(DataConfig(name="amazon_2014", category="Beauty"))
    with pytest.raises(InputError, match=r"data.source_dir is empty"):
        read(DataConfig(name="folder"))


def test_read_finds_data_by_environment_and_passes_settings(movielens, monkeypatch):
    monkeypatch.setenv("SEMID_DATA", str(movielens.parent))
    data = read(DataConfig(name="movielens_1m", min_interactions=4))
    assert data.interactions.user_ids.tolist() == ["3"]
    write_amazon(movielens.parent)
    assert read(DataConfig(name="amazon_2014", category="Beauty")).interactions.n_users == 2
    world = SyntheticConfig(n_users=30, n_items=50, topics=4)
    assert read(DataConfig(), world).interactions.n_users == 30


@pytest.mark.parametrize(
    ("name", "category", "users", "items", "interactions"),
    [
        ("movielens_1m", "", 6_040, 3_416, 999_611),
        ("movielens_100k", "", 943, 1_682, 100_000),
        ("situnes", "", 30, 307, 2_003),  # three plays are in the files twice
        ("amazon_2014", "Beauty", 22_363, 12_101, 198_502),
        ("amazon_2014", "Sports_and_Outdoors", 35_598, 18_357, 296_337),
    ],
)
def test_counts_of_the_real_data(shared_data, name, category, users, items, interactions):
    data = read(DataConfig(name=name, source_dir=str(shared_data / name), category=category))
    assert data.interactions.n_users == users
    assert data.interactions.n_items == items
    assert len(data.interactions.items) == interactions
    if name == "movielens_1m":
        assert data.notes["items_without_image"] == 4  # posters for 3,412
