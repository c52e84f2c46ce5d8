"""The states that items are chosen in, and PMAT's items beside them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from semid_jax import launch
from semid_jax.data.sequences import split_end, train_items
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models.fusion import Archetypes
from semid_jax.models.pmat import PmatConfig
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.recommenders.hdnag import check_settings
from semid_jax.tokenizers import contexts
from semid_jax.train import semantic_ids
from semid_jax.types import InputError

CONFIG = contexts.ContextConfig(width=16, max_length=8, steps=50, batch_size=16)
PMAT = PmatConfig(width=16, hidden=16, archetypes=3, tastes=4, candidates=32, steps=20, context=8)
HDNAG = Path(__file__).parent.parent / "configs" / "hdnag.py"


@pytest.fixture(scope="module")
def world():
    raw = generate(SyntheticConfig(n_users=80, n_items=120, topics=4))
    features, _ = fit_transform(raw.catalogue, train_items(raw.interactions), FeaturesConfig())
    return features, raw.interactions


def test_a_state_knows_what_came_before_and_nothing_else(world):
    _, interactions = world
    before = contexts.read_contexts(interactions, CONFIG, 0)
    items = interactions.items.copy()
    last = interactions.offsets[1:] - 1  # test items, never trained on
    items[last] = items[last] % interactions.n_items + 1
    after = contexts.read_contexts(dataclasses.replace(interactions, items=items), CONFIG, 0)
    moved = np.abs(after - before).max(axis=1) > 1e-5
    np.testing.assert_array_equal(np.flatnonzero(moved), last)
    assert (np.abs(before).max(axis=1) > 0).all()


def test_an_items_context_is_the_mean_state_it_is_chosen_in(world, monkeypatch):
    _, interactions = world
    vectors = np.random.default_rng(0).normal(size=(121, 16)).astype("f")
    fading = 0.8 ** np.maximum(np.subtract.outer(np.arange(8), np.arange(8)), 0)

    def encoder(*_):
        return lambda history: np.einsum("tk,bkw->btw", np.tril(fading), vectors[history])

    monkeypatch.setattr(contexts, "fit_encoder", encoder)
    states = contexts.read_contexts(interactions, CONFIG, 0)
    met = [[] for _ in range(interactions.n_items + 1)]
    for user, end in enumerate(split_end(interactions, "train")):
        first = interactions.offsets[user]
        for row in range(first + 1, first + end):
            met[interactions.items[row]].append(states[row - 1])
    found = contexts.choosing_contexts(interactions, CONFIG, 0)
    for item, known in enumerate(met):
        expected = np.mean(known, axis=0) if known else np.full(16, np.nan)
        np.testing.assert_allclose(found[item], expected, rtol=1e-4, atol=1e-5)
    assert any(known for known in met)
    assert not all(known for known in met)


def test_without_histories_there_is_no_context(world):
    _, interactions = world
    single = dataclasses.replace(
        interactions,
        items=interactions.items[:80],
        offsets=np.arange(81),
    )
    with pytest.raises(InputError, match="leave tokenizer"):
        contexts.choosing_contexts(single, CONFIG, 0)


def test_z_is_white_and_has_contexts_beside_it(world):
    features, interactions = world
    known = train_items(interactions)
    module, frozen = semantic_ids.train_frozen(features, interactions, PMAT, 20, 0)
    rng = np.random.default_rng(0)
    M, gate = len(features.modalities), 0.3 * rng.normal(size=16)
    alpha = rng.dirichlet(np.ones(M), size=2)
    crowd = Archetypes(alpha[:1], np.zeros((1, 16)), gate[None])
    made_of = rng.normal(size=(121, 10)).astype("f")
    made_of[5] = np.nan
    found = semantic_ids.beside_contexts(frozen, crowd, made_of, known, 8)

    shares = alpha[:, None] * features.mask
    shares /= np.maximum(shares.sum(axis=-1, keepdims=True), 1e-9)
    z = (1 + gate) * np.einsum("anm,nmd->and", shares, frozen.h)
    mean, covariance = z[0, known].mean(axis=0), np.cov(z[0, known].T)
    values, axes = np.linalg.eigh(covariance)
    expected = (z[:, 1:] - mean) @ axes[:, ::-1] / np.sqrt(24 * values[::-1])
    of_both = semantic_ids.ungated(Archetypes(alpha, np.zeros((2, 16)), None), 24)
    seen = semantic_ids.view_items(found, of_both)[:, 1:]
    up_to_sign = np.sign((seen[0, :, :16] * expected[0]).sum(axis=0))
    np.testing.assert_allclose(seen[..., :16], up_to_sign * expected, atol=2e-3)
    np.testing.assert_allclose(np.cov(seen[0, known[1:]].T[16:]), np.eye(8) / 24, atol=2e-3)
    np.testing.assert_allclose(seen[0, :, 16:], seen[1, :, 16:], atol=1e-6)
    assert (seen[:, 4, 16:] == 0).all()  # item 5 has no context
    # Tastes ask of z what they asked before, but for a number that is the same for all items.
    asked = np.asarray(frozen.table) @ z[0, 1:].T - np.asarray(found.table) @ seen[0].T
    assert np.ptp(asked[..., known[1:]], axis=-1).max() < 2e-3 * np.abs(frozen.table).max()
    assert module.config.points_width == seen.shape[-1]


def test_vectors_that_are_given_have_contexts_beside_them_too(world, monkeypatch):
    features, interactions = world
    known, rng = train_items(interactions), np.random.default_rng(0)
    given = rng.normal(size=(121, 16)).astype("f")
    given[0] = 0
    states = np.where(known[:, None], rng.normal(size=(121, 10)), np.nan)
    states[7] = np.nan

    def choosing(_, settings, seed):
        assert (settings.steps, seed) == (20, 0)
        return states

    monkeypatch.setattr(semantic_ids, "choosing_contexts", choosing)
    config = dataclasses.replace(PMAT, context_steps=20)
    book = QuantizeConfig(digits=4, codewords=8, iterations=3, rotation_iterations=1)
    made = semantic_ids.make_tokenizer(features, interactions, config, book, 12, 0, given)
    assert made.points.shape == (1, 121, 24)
    own, context = made.points[0, known, :16], made.points[0, :, 16:]
    np.testing.assert_allclose(np.cov(own.T), np.eye(16) / 24, atol=1e-4)
    affine = np.c_[given[known], np.ones(known.sum())]
    left = own - affine @ np.linalg.lstsq(affine, own, rcond=None)[0]
    assert np.abs(left).max() < 1e-4
    met = np.isfinite(states).all(axis=1)
    np.testing.assert_allclose(np.cov(context[met].T), np.eye(8) / 24, atol=1e-4)
    assert (context[~met] == 0).all()
    assert not made.readings.fired.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.context": 50}, "quantize.digits: 16 does not divide the model width 178"),
        ({"tokenizer.context": -1}, r"tokenizer.context=-1: give 0 or more"),
    ],
)
def test_settings_that_do_not_go_with_contexts_are_refused(changes, message):
    config = launch.load_config(HDNAG, "movielens_1m")
    config.tokenizer.context = 64
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        check_settings(config)
