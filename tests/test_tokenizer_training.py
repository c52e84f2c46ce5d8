"""PMAT's training: the same on two devices as on one, and it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from semid_jax.data.sequences import popularity, train_items
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.features.behaviour import co_occurrences, mutual_information
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models import encoders
from semid_jax.models.encoders import Refiner
from semid_jax.models.perceiver import Preference
from semid_jax.models.pmat import Pmat, PmatConfig
from semid_jax.train import tokenizer
from semid_jax.train.tokenizer import fit_pmat, sample_windows, start_own
from semid_jax.train.tokenizer_loss import (
    Windows,
    draw_positions,
    make_inputs,
    make_windows,
    mean_before,
    tokenizer_loss,
)

PARTS = ["refined_loss", "pooled_loss", "next_item_loss"]
CONFIG = PmatConfig(width=16, steps=6, batch_size=8, positions=4, candidates=64)


def make_world():
    raw = generate(SyntheticConfig(n_users=60, n_items=80, topics=4))
    features, _ = fit_transform(raw.catalogue, train_items(raw.interactions), FeaturesConfig())
    return raw, features


def start(config=CONFIG):
    """PMAT before training, and eight windows of histories."""
    raw, features = make_world()
    module = Pmat(features.modalities, config, len(features.mask))
    inputs = make_inputs(features, raw.interactions, CONFIG.width)
    initialise = functools.partial(module.init, method=Pmat.initialise)
    params = jax.jit(initialise)(jax.random.key(0), inputs.e[1:2])
    history = sample_windows(raw.interactions, np.arange(8), 20, np.random.default_rng(0))
    return module, params, inputs, history


def slopes(module, params, inputs, history):
    """The gradients of PARTS on axis 0 of each leaf, all of one program."""

    @jax.jit
    def of_parts(params, inputs, windows):
        def parts(p):
            told = tokenizer_loss(module, p, inputs, windows, jax.random.key(1))[1]
            return jnp.stack([told[name] for name in PARTS])

        return jax.jacobian(parts)(params)

    return of_parts(params, inputs, make_windows(history))["params"]


def test_two_devices_train_as_one():
    raw, features = make_world()
    one, two = (
        fit_pmat(features, raw.interactions, CONFIG, 30, 0, jax.devices()[:n]) for n in (1, 2)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), one, two)
    # Devices that the batch cannot be spread over, all of it on each.
    single = dataclasses.replace(CONFIG, batch_size=1)
    few = fit_pmat(features, raw.interactions, single, 30, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(few))


def test_items_are_frozen_some_at_a_time_as_all_at_once(monkeypatch):
    module, params, _, _ = start()
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(p.dtype), params)
    raw, features = make_world()
    asked = module, params, features, popularity(raw.interactions), 0
    whole = tokenizer.freeze(*asked)
    assert np.abs(np.asarray(whole.h - whole.e)).max() > 0.1
    monkeypatch.setattr(encoders, "ROWS", 7)
    monkeypatch.setattr(tokenizer, "ROWS", 7)
    parts = tokenizer.freeze(*asked)
    np.testing.assert_allclose(parts.e, whole.e, atol=1e-6)
    np.testing.assert_allclose(parts.h, whole.h, atol=1e-5)


def test_what_z_learns_does_not_reach_the_perceiver():
    module, params, inputs, history = start()
    found = traverse_util.flatten_dict(slopes(module, params, inputs, history), sep="/")

    def part(name):
        return {leaf for leaf, value in found.items() if np.abs(value[PARTS.index(name)]).max() > 0}

    def of(*names):
        return {n for n in flat_names if n.startswith(names)}

    flat_names = set(traverse_util.flatten_dict(params["params"], sep="/"))
    refined = part("refined_loss")
    assert refined
    assert refined <= of("refiner", "gate", "value")
    pooled = part("pooled_loss")
    assert "log_sharpness" in pooled
    assert pooled <= of("refiner", "log_sharpness", "gate")
    perceived = part("next_item_loss")
    assert of("taste", "log_strength", "popularity") <= perceived
    assert not perceived & of("refiner", "gate", "value")


def test_own_vectors_are_of_items_that_training_has_and_learn_next_items():
    config = dataclasses.replace(CONFIG, own=0.5)
    module, params, inputs, history = start(config)
    raw, features = make_world()
    params["params"]["own"] = made = start_own(raw.interactions, config)
    np.testing.assert_allclose(np.linalg.norm(made[1:], axis=1), 0.5, atol=1e-5)
    # Items that are chosen together begin near each other.
    counts = co_occurrences(raw.interactions, 10)
    pairs = np.triu(mutual_information(counts).toarray()[1:, 1:] > 1.0, 1)
    likeness = np.asarray(made[1:] @ made[1:].T)
    assert likeness[pairs].mean() > likeness[~np.eye(80, dtype=bool)].mean() + 0.02

    owner = inputs.owner.at[7].set(0)  # nothing can be learned of it
    assert owner[0] == 0
    assert owner[8] == 8
    plain = Pmat(features.modalities, CONFIG)
    h = module.apply(params, inputs.e, owner, method=Pmat.refine)
    without = plain.apply(params, inputs.e, owner, method=Pmat.refine)
    np.testing.assert_array_equal(h[7], without[7])
    np.testing.assert_array_equal(h[~inputs.mask], 0)
    added = inputs.e[8] + made[8]
    np.testing.assert_allclose(h[8], added / np.linalg.norm(added, axis=1)[:, None], atol=1e-4)

    own = np.asarray(slopes(module, params, inputs, history)["own"])
    refined, pooled, perceived = np.abs(own).sum(axis=2) > 0  # which items learn
    assert refined.sum() > 20
    assert pooled[np.unique(history[:, :-1])[1:]].mean() > 0.5
    assert not perceived.any()
    later = fit_pmat(features, raw.interactions, config, 30, 0)["params"]["own"]
    assert np.abs(later - made).max() > 1e-3


def test_without_weights_all_users_are_taught_alike():
    module, params, inputs, history = start()
    module = dataclasses.replace(module, config=dataclasses.replace(CONFIG, uniform=True))

    @jax.jit
    @jax.value_and_grad
    def balance(params, inputs, windows):
        loss = tokenizer_loss(module, params, inputs, windows, jax.random.key(1))
        return loss[1]["balance_loss"]

    # Alike whatever the tastes are: by weights alone they could differ.
    loss, gradient = balance(params, inputs, make_windows(history))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-5
    assert loss > 0.9


def test_windows_name_every_item_once():
    history = np.array([[5, 3, 5, 0, 0, 0], [9, 3, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]], np.int32)
    windows = make_windows(history)
    assert windows.items.tolist() == [0, 3, 5, 9, *[0] * 5]  # 19, halved once: 4 would be too tight
    np.testing.assert_array_equal(windows.items[windows.place], history)
    assert len(make_windows(history, 12).items) == 12
    full = make_windows(np.arange(1, 7, dtype=np.int32).reshape(2, 3), 5)
    assert full.items.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_losses_are_those_of_positions_that_share_nothing():
    module, params, inputs, history = start()
    apart = np.arange(1, history.size + 1).reshape(history.shape) * (history > 0)

    def losses(windows):
        return tokenizer_loss(module, params, inputs, windows, jax.random.key(1))[1]

    found, wanted = losses(make_windows(history)), losses(Windows(np.append(0, history), apart))
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_positions_come_from_all_parts_of_a_history():
    history = np.zeros((4, 17), np.int32)
    for row, length in enumerate((17, 5, 2, 1)):
        history[row, :length] = 7
    for seed in range(20):
        position, weight = draw_positions(history > 0, 8, jax.random.key(seed))
        weight = weight.reshape(4, 8)
        # 16 places, of which each part has two; 4, each twice; one; and nothing to foresee.
        np.testing.assert_array_equal((position[0] - 1) // 2, np.arange(8))
        np.testing.assert_array_equal(position[1], [1, 1, 2, 2, 3, 3, 4, 4])
        np.testing.assert_array_equal(position[2], 1)
        np.testing.assert_array_equal(weight, [[1] * 8, [1] * 8, [1] * 8, [0] * 8])
    drawn = {int(draw_positions(history > 0, 8, jax.random.key(s))[0][0, 0]) for s in range(20)}
    assert drawn == {1, 2}


def test_what_was_chosen_before_asks_as_one_user_at_a_time_would():
    # <p, z> of a candidate, p being z of the mean of the last W items; a loop over places.
    rng = np.random.default_rng(0)
    B, T, M, D, S, W = 2, 6, 3, 8, 7, 3
    module = Pmat(("a", "b", "c"), dataclasses.replace(CONFIG, width=D))
    params = module.init(jax.random.key(0), np.zeros((1, M, D), np.float32), method=Pmat.initialise)
    own = params["params"]
    own["gate"]["kernel"] = rng.normal(size=(D, D)).astype(np.float32)
    h = rng.normal(size=(B, T, M, D)).astype(np.float32)
    has = rng.random((B, T, M)) < 0.6
    has[:, :, 0] |= ~has.any(axis=-1)
    alpha = rng.dirichlet(np.ones(M), (B, T)).astype(np.float32)
    interest = rng.normal(size=(B, T, D)).astype(np.float32)
    candidate = rng.normal(size=(S, M, D)).astype(np.float32)

    position = np.broadcast_to(np.arange(T), (B, T))
    before, any_has = mean_before(h, has, position, W)
    belief = np.zeros((B, T, M, 4), np.float32)
    preference = Preference(alpha=alpha, interest=interest, query=None, belief=belief)
    query = module.apply(params, before, any_has, preference, method=Pmat.pooled_query)
    found = np.einsum("btmd,smd->bts", query, candidate)
    for b, t in np.ndindex(B, T):
        lately = slice(max(t - W, 0), t)
        shown = [h[b, lately, m][has[b, lately, m]] for m in range(M)]
        weight = np.array([alpha[b, t, m] * (len(shown[m]) > 0) for m in range(M)])
        z = sum(
            w / max(weight.sum(), 1e-6) * (part.mean(axis=0) if len(part) else np.zeros(D))
            for w, part in zip(weight, shown, strict=True)
        )
        gate = 1 + 0.5 * np.tanh(interest[b, t] @ own["gate"]["kernel"])
        asked = np.exp(own["log_sharpness"]) * gate * z / max(np.linalg.norm(gate * z), 1e-9)
        wanted = (gate * np.einsum("m,smd->sd", alpha[b, t], candidate)) @ asked
        np.testing.assert_allclose(found[b, t], wanted, rtol=1e-3, atol=1e-3)
    assert not found[:, 0].any()  # nothing was chosen before
    assert found[:, 1:].any(axis=-1).all()


def test_refiners_start_as_nothing_and_leave_what_is_missing():
    e = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    e[2] = 0
    refiner = Refiner(16)
    params = refiner.init(jax.random.key(0), e)
    np.testing.assert_allclose(refiner.apply(params, e), e, atol=1e-5)
    moved = jax.tree.map(lambda a: a + 0.1, params)
    h = np.asarray(refiner.apply(moved, e))
    assert np.abs(h[0] - e[0]).max() > 0.01
    np.testing.assert_array_equal(h[2], 0)
    np.testing.assert_allclose(np.linalg.norm(np.delete(h, 2, 0), axis=-1), 1, atol=1e-5)
