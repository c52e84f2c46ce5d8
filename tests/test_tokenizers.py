"""Tokenizers of others against their equations, written out in numpy, and run as users would."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax import launch
from semid_jax.data.sequences import split_end, train_items
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.eval.beam import items_of
from semid_jax.eval.users import Lists
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models import encoders
from semid_jax.models.pmat import PmatConfig
from semid_jax.quantize import codebook
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.static import StaticIds, native_ids, residual_codes
from semid_jax.tokenizers import fusid, mmq, mql4grec, pctx, rqvae
from semid_jax.tokenizers.fused import principal, side_by_side, to_width, train
from semid_jax.tokenizers.registry import METHODS, method_of
from semid_jax.train.semantic_ids import make_tokenizer
from semid_jax.types import InputError

RQVAE = rqvae.RqvaeConfig(hidden=(32,), latent=8, codewords=16, steps=100, batch_size=32)
FUSID = fusid.FusidConfig(
    hidden=64, parts=3, width=8, codewords=16, steps=150, batch_size=64, lr=3e-3
)
MMQ = mmq.MmqConfig(hidden=32, width=8, codewords=16, steps=150, batch_size=32)
PCTX = pctx.PctxConfig(width=16, max_length=8, codewords=16, groups=3, steps=50, batch_size=16)
SMALL = {"rqvae": RQVAE, "mql4grec": RQVAE, "fusid": FUSID, "mmq": MMQ, "pctx": PCTX}


@pytest.fixture(scope="module")
def world():
    raw = generate(SyntheticConfig(n_users=80, n_items=120, topics=4))
    features, _ = fit_transform(raw.catalogue, train_items(raw.interactions), FeaturesConfig())
    return features, raw.interactions


def unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def test_residual_quantisation_and_its_gradients():
    rng = np.random.default_rng(0)
    books, z = rng.normal(size=(3, 5, 4)).astype("f"), rng.normal(size=(7, 4)).astype("f")
    expected, total, at_z, at_books = [], [], np.zeros_like(z), np.zeros_like(books)
    for n in range(7):
        left, loss, words = z[n].copy(), 0.0, np.zeros(4)
        for level in range(3):
            k = np.argmin(((left - books[level]) ** 2).sum(-1))
            gap = left - books[level, k]
            loss += (1 + 0.25) * (gap**2).sum()
            at_z[n] += 2 * 0.25 * gap
            at_books[level, k] -= 2 * gap
            words += books[level, k]
            left = gap
        expected.append(words)
        total.append(loss)
    words, loss = rqvae.residual_quantise(books, z, 0.25)
    np.testing.assert_allclose(words, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, total, rtol=1e-5)

    def summed(books, z):
        return rqvae.residual_quantise(books, z, 0.25)[1].sum()

    of_books, of_z = jax.grad(summed, (0, 1))(books, z)
    np.testing.assert_allclose(of_books, at_books, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_z, at_z, rtol=1e-4, atol=1e-5)


def test_the_decoder_of_an_rq_vae_reaches_the_encoder_through_the_codes():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 10)), jnp.float32)
    module = rqvae.Rqvae(RQVAE, 10)
    params = module.init(jax.random.key(0), x)

    def error(params):
        return jnp.sum((module.apply(params, x)[0] - x) ** 2)

    found = jax.grad(error)(params)["params"]
    assert np.abs(found["encoder"]["Dense_0"]["kernel"]).max() > 0
    np.testing.assert_array_equal(found["codebooks"], 0)


def test_losses_of_fusid():
    rng = np.random.default_rng(1)
    left, right = (rng.normal(size=(6, 5)).astype("f") for _ in range(2))
    logits = unit(left) @ unit(right).T / 0.2
    p, q = np.exp(logits), np.exp(logits.T)
    own = np.arange(6)
    there = -np.log(p[own, own] / p.sum(1)).mean()
    back = -np.log(q[own, own] / q.sum(1)).mean()
    found = fusid.metric_loss(left, right, 0.2)
    np.testing.assert_allclose(found, (there + back) / 2, rtol=1e-5)

    parts = rng.normal(size=(9, 3, 4)).astype("f") * rng.uniform(0.2, 2, (3, 4)).astype("f")
    deviation = np.sqrt(parts.var(axis=0) + 1e-4)
    expected = np.maximum(0, 1 - deviation).mean()
    np.testing.assert_allclose(fusid.variance_loss(parts), expected, rtol=1e-5)
    covariance = np.cov(parts.reshape(9, 12).T)
    total = sum(covariance[i, j] ** 2 for i in range(12) for j in range(12) if i // 4 != j // 4)
    np.testing.assert_allclose(fusid.covariance_loss(parts), total / 12, rtol=1e-4)


def test_pairs_lie_near_each_other_in_one_users_train_part(world):
    _, interactions = world
    known = split_end(interactions, "train")
    near = set()
    for u in range(interactions.n_users):
        own = interactions.items[interactions.offsets[u] :][: known[u]]
        near |= {
            (own[a], own[b]) for a in range(len(own)) for b in range(a + 1, min(a + 4, len(own)))
        }
    pairs = fusid.draw_pairs(interactions, 3, np.random.default_rng(0), (40, 50))
    assert pairs.shape == (40, 50, 2)
    assert {tuple(pair) for pair in pairs.reshape(-1, 2).tolist()} <= near
    assert len(np.unique(pairs.reshape(-1, 2), axis=0)) > 0.3 * len(near)


def test_losses_of_mmq():
    rng = np.random.default_rng(2)
    books, v = rng.normal(size=(3, 5, 4)).astype("f"), rng.normal(size=(7, 3, 4)).astype("f")
    cosine = np.einsum("ned,ekd->nek", unit(v), unit(books))
    code = cosine.argmax(-1)
    words, loss = mmq.cosine_quantise(books, v, 0.25)
    chosen = unit(books)[np.arange(3), code]
    np.testing.assert_allclose(words, chosen, atol=1e-5)
    np.testing.assert_allclose(loss, 1.25 * ((unit(v) - chosen) ** 2).sum((1, 2)), rtol=1e-4)
    gram = np.einsum("ned,nfd->nef", unit(v), unit(v))
    expected = ((gram - np.eye(3)) ** 2).sum((1, 2)).mean()
    np.testing.assert_allclose(mmq.orthogonality_loss(v), expected, rtol=1e-4)
    # Straight through: the gradient of unit v.
    of = jax.grad(lambda v: jnp.sum(mmq.cosine_quantise(books, v, 0.0)[0] * books[:, 0]))(v)
    plain = jax.grad(lambda v: jnp.sum(encoders.unit(v) * books[:, 0]))(v)
    np.testing.assert_allclose(of, plain, atol=1e-5)


@pytest.mark.parametrize("name", ["rqvae", "mmq"])
def test_a_codebook_has_no_more_codewords_than_items_to_learn_from(world, name):
    features, interactions = world
    config = dataclasses.replace(SMALL[name], codewords=256, steps=2)
    book = method_of(name).fit(features, interactions, config, 0).book
    assert book.fine.shape[-2] == train_items(interactions).sum()


@pytest.mark.parametrize("name", METHODS)
def test_a_tokenizer_is_the_same_again_and_its_codes_tell_items_apart(world, name):
    features, interactions = world
    fit = method_of(name).fit
    made = fit(features, interactions, SMALL[name], 0)
    if name in ("mmq", "pctx"):  # items drawn, and windows
        again = fit(features, interactions, SMALL[name], 0)
        np.testing.assert_array_equal(made.points, again.points)
    assert np.isfinite(made.points).all()
    np.testing.assert_array_equal(made.points[0], 0)
    ids = native_ids(made.points, made.book)
    if made.contexts is not None:
        ids = StaticIds(made.book, **dataclasses.asdict(made.contexts))
    table = residual_codes(ids)
    assert len(np.unique(table[1:], axis=0)) == len(ids.owner) - 1 >= interactions.n_items
    used = [len(np.unique(column)) for column in table[1:, :-1].T]
    assert min(used) >= 4
    rebuilt = np.asarray(codebook.decode(made.book, ids.coarse, ids.fine))
    error = ((rebuilt - ids.points)[1:] ** 2).sum(1).mean()
    assert error < 0.9 * ids.points[1:].var(axis=0).sum()


def test_levels_of_a_modality_are_those_of_its_own_quantiser(world):
    features, interactions = world
    seen = train_items(interactions)
    made = mql4grec.fit(features, seen, RQVAE, 0)
    ids = native_ids(made.points, made.book)
    table = np.concatenate([ids.coarse[:, None], ids.fine], axis=1)
    for m, name in enumerate(features.modalities):
        own = rqvae.fit_on(features.x[name], seen & features.present[name], RQVAE, 0, name)
        alone = native_ids(own.points, own.book)
        codes = np.concatenate([alone.coarse[:, None], alone.fine], axis=1)
        np.testing.assert_array_equal(table[:, 3 * m : 3 * m + 3], codes)


def test_fusid_brings_items_that_occur_together_together(world):
    features, interactions = world
    points = unit(fusid.fit(features, interactions, FUSID, 0).points[1:])
    plain = unit(side_by_side(features)[1:])
    pairs = fusid.draw_pairs(interactions, 5, np.random.default_rng(1), (2000,)) - 1

    def nearer(points):
        """How much more alike pairs are than any two items, in deviations."""
        cosines = points @ points.T
        return (cosines[pairs[:, 0], pairs[:, 1]].mean() - cosines.mean()) / cosines.std()

    assert nearer(points) > 1.1 * nearer(plain)


def test_frequent_items_are_given_more_contexts_but_no_more_than_they_have():
    counts = np.array([0, 0, 2, 3, 50, 60, 70, 80, 90, 100, 200])
    config = pctx.PctxConfig(groups=2, start=4, slope=3, shape=1.0)
    # exp(-1) to exp(-2): 73 % of ten items in the first group, the seven rarest.
    expected = [1, 1, 2, 3, 4, 4, 4, 4, 7, 7, 7]
    np.testing.assert_array_equal(pctx.count_contexts(counts, config), expected)
    # The paper's for Games: C = 2 + 4 i, eleven groups.
    by_default = pctx.count_contexts(np.full(10_001, 1000), pctx.PctxConfig())[1:]
    np.testing.assert_array_equal(np.unique(by_default), np.arange(2, 43, 4))


def test_contexts_of_an_item_are_clustered_by_themselves():
    rng = np.random.default_rng(4)
    item = rng.integers(1, 6, 300).astype(np.int32)
    item[item == 3] = 2  # item 3 never occurs
    x = (rng.normal(size=(300, 4)) + 3 * item[:, None]).astype("f")
    number = np.array([1, 2, 3, 1, 5, 4])
    centroids, first = pctx.item_kmeans(x, item, number, 30, 0)
    own = pctx.nearest_own(x, item, centroids, first, number)
    for n in range(300):
        mine = np.arange(first[item[n]], first[item[n]] + number[item[n]])
        gap = ((centroids[mine] - x[n]) ** 2).sum(1)
        assert own[n] == mine[np.argmin(gap)]
    for c in np.unique(own):
        np.testing.assert_allclose(centroids[c], x[own == c].mean(0), atol=0.3)
    spread = ((x - centroids[own]) ** 2).sum()
    assert spread < 0.75 * sum(
        ((x[item == i] - x[item == i].mean(0)) ** 2).sum() for i in np.unique(item)
    )
    np.testing.assert_allclose(centroids[first[3]], x.mean(0), rtol=1e-5)


def test_rare_ids_go_to_the_nearest_context_of_another_id():
    first, number = np.array([0, 1, 5]), np.array([1, 4, 2])
    owner = np.array([0, 1, 1, 1, 1, 2, 2])
    centroids = np.array([[0.0], [0.0], [1.0], [2.1], [9.0], [0.0], [1.0]])
    used = np.array([0, 50, 3, 45, 2, 1, 9])
    label = np.array([0, 7, 8, 9, 8, 5, 5])
    # Label 8 is 5 % of item 1: its context at 1.0 is nearest to label 7, that at 9.0 to label 9.
    found = pctx.merge_rare(label, owner, used, centroids, first, number, 0.2)
    np.testing.assert_array_equal(found, [0, 7, 7, 9, 9, 5, 5])
    kept = pctx.merge_rare(label, owner, used, centroids, first, number, 0.01)
    np.testing.assert_array_equal(kept, label)


def test_an_items_ids_are_added_up():
    owner = np.array([0, 1, 1, 2, 3])
    lists = Lists(np.array([[3, 1, 4, 2]]), np.log([[0.4, 0.3, 0.2, 0.15]]), np.array([4]))
    found = items_of(lists, owner)
    np.testing.assert_array_equal(found.items, [[1, 2, 3, 0]])
    np.testing.assert_allclose(np.exp(found.scores), [[0.45, 0.4, 0.2, 0]], rtol=1e-5)
    same = items_of(lists, np.arange(5))
    np.testing.assert_array_equal(same.items, lists.items)


def test_vectors_of_any_width_become_those_of_the_generator():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(50, 6)).astype("f") @ rng.normal(size=(6, 6)).astype("f")
    seen = np.arange(50) > 9
    wide = to_width(points, seen, 8)
    assert wide.shape == (50, 8)
    np.testing.assert_array_equal(wide[0], 0)
    np.testing.assert_array_equal(wide[:, 6:], 0)
    before = np.linalg.norm(points[1:, None] - points[None, 1:], axis=-1)
    after = np.linalg.norm(wide[1:, None] - wide[None, 1:], axis=-1)
    scale = after[0, 1] / before[0, 1]
    np.testing.assert_allclose(after, scale * before, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose((wide[seen] ** 2).sum(1).mean(), 1, rtol=1e-4)
    narrow = to_width(points, seen, 2)
    np.testing.assert_allclose(
        narrow[1:] / narrow[1, 0], wide[1:, :2] / wide[1, 0], rtol=1e-3, atol=1e-4
    )


def test_what_does_not_vary_is_not_blown_up():
    rng = np.random.default_rng(4)
    points = np.zeros((60, 5), "f")
    points[:, :3] = rng.normal(size=(60, 3)) * [3, 1, 0.01]
    points[50:, 3] = 1.0  # only items that were not seen have it
    made = principal(points, np.arange(60) < 50, 5)
    np.testing.assert_allclose(np.cov(made[:50, :3].T), np.eye(3), atol=1e-3)
    np.testing.assert_array_equal(made[:, 3:], 0)


@pytest.mark.parametrize(
    "config",
    [pytest.param("fusid.py:hdnag:tiny", marks=pytest.mark.slow), "pctx.py:gpt2:tiny"],
)
def test_a_shipped_tokenizer_runs_from_end_to_end(tmp_path, config, capsys):
    arguments = ["launch", f"--config=configs/tokenizers/{config}", f"--workdir={tmp_path / 'w'}"]
    name = config.split(".")[0]
    if "hdnag" in config:
        arguments.append("--config.decode.methods=inverted,pruned,exact")
    assert launch.main([*arguments, f"--config.{name}.steps=20"]) == 0
    metrics = json.loads((tmp_path / "w" / "results" / "metrics.json").read_text())
    assert 0 < metrics["test"]["ndcg@10"] < 1
    if "hdnag" in config:
        assert metrics["retrieval"]["pruned"]["search_loss"] == 0
        assert "alpha_reliability_random" not in metrics["pmat"]  # nobody was asked
        shown = tmp_path / "w" / "results"
        assert not (shown / "figures" / "alpha.png").exists()
        assert "<h3>Weights</h3>" not in (shown / "report.html").read_text()
    said = {"fusid": "FusID", "pctx": "contexts"}[name]
    assert f"{said} after 20" in capsys.readouterr().out
    # Another tokenizer is another run.
    assert launch.main([*arguments, f"--config.{name}.steps=21"]) == launch.BAD_INPUT
    shutil.rmtree(tmp_path / "w")


@pytest.mark.parametrize(("steps", "taken"), [(0, 0), (8, 8), (50, 50), (51, 52), (120, 120)])
def test_a_training_takes_about_the_steps_that_it_was_told(steps, taken):
    drawn = []

    def draw(generator, number):
        drawn.append(number)
        return generator.integers(0, 9, (number, 2))

    def loss(params, data, batch, key):
        return jnp.sum((params - 1.0) ** 2), {"gap": jnp.abs(params - 1.0)}

    learned = train(loss, jnp.zeros(()), None, draw, steps, 0.1, 0, "nothing")
    assert sum(drawn) == taken
    assert len(set(drawn)) <= 1  # one program
    assert (learned != 0) == (steps > 0)


@pytest.mark.parametrize("name", ["fusid", "mmq", "pctx", "rqvae"])
def test_codes_of_more_than_a_byte_are_refused(name):
    with pytest.raises(InputError, match=rf"{name}\.codewords: 300 is outside 1\.\.256"):
        METHODS[name].config(codewords=300)


@pytest.mark.parametrize("name", ["pmat", *SMALL])
def test_what_is_held_out_changes_no_tokenizer(world, name):
    features, interactions = world
    rng = np.random.default_rng(3)
    held = np.concatenate([interactions.offsets[1:] - 1, interactions.offsets[1:] - 2])
    items = interactions.items.copy()
    items[held] = rng.permutation(items[held])
    assert np.mean(items[held] != interactions.items[held]) > 0.9
    others = dataclasses.replace(interactions, items=items)
    known = np.ones(len(items), bool)
    known[held] = False
    if name != "pmat":
        made = [METHODS[name].fit(features, i, SMALL[name], 0) for i in (interactions, others)]
        parts = [
            (m.points, m.book, () if m.contexts is None else m.contexts.uses[known]) for m in made
        ]
    else:
        config = PmatConfig(
            width=16, tastes=4, archetypes=3, steps=4, window=3, positions=4, candidates=64
        )
        book = QuantizeConfig(digits=4, codewords=8, iterations=3, rotation_iterations=1)
        made = [make_tokenizer(features, i, config, book, 12, 0) for i in (interactions, others)]
        parts = [
            (m.frozen, m.archetypes, m.points, m.book, m.coarse, m.fine, m.threshold, readings)
            for m in made
            for readings in ([value[known] for value in vars(m.readings).values()],)
        ]
    jax.tree.map(np.testing.assert_array_equal, *parts)


def test_wrong_names_are_refused(capsys):
    with pytest.raises(InputError, match="use rqvae, mql4grec, fusid, mmq, pctx"):
        method_of("fusion")
    assert launch.main(["launch", "--config=configs/tokenizers/mmq.py:gpt3:tiny"]) == 2
    assert "unknown generator 'gpt3'" in capsys.readouterr().err
