"""A stream of interactions: the states and codes of one go, saved, cut and told in events."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax import artifacts
from semid_jax.data.sequences import split_end, train_items
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.updates import BUDGETS, MARGINS, update_metrics, update_sweep
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models.pmat import PmatConfig
from semid_jax.quantize.codebook import decode
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.train import streaming, tokenizer_arrays
from semid_jax.train.readings import make_perceiver, read_all
from semid_jax.train.semantic_ids import make_tokenizer
from semid_jax.types import InputError

W, T = 5, 12
CONFIG = PmatConfig(
    width=16, tastes=6, archetypes=4, window=W, steps=8, batch_size=8, positions=4,
    candidates=64, budget=0.3, own=0.5, context=8, context_steps=8,
)  # fmt: skip
BOOK = QuantizeConfig(digits=6, shared=2, codewords=8, iterations=3, rotation_iterations=1)


@pytest.fixture(scope="module")
def world():
    raw = generate(SyntheticConfig(n_users=40, n_items=80, topics=4))
    interactions = raw.interactions
    features, _ = fit_transform(raw.catalogue, train_items(interactions), FeaturesConfig())
    tokenizer = make_tokenizer(features, interactions, CONFIG, BOOK, T, 0)
    threshold = 0.0  # low, so that a barely trained tokenizer sees drifts as well
    perceiver = make_perceiver(tokenizer.frozen)
    readings = read_all(perceiver, tokenizer.archetypes, interactions, threshold, W, CONFIG.hold)
    assert readings.fired.sum() > 5
    tokenizer = dataclasses.replace(tokenizer, threshold=np.asarray(threshold), readings=readings)
    return tokenizer, interactions


def test_archetypes_differ_in_features_and_share_contexts(world):
    tokenizer, _ = world
    A = len(tokenizer.coarse)
    assert A > 1
    assert tokenizer.points.shape == (A, 81, 24)
    assert tokenizer.fine.shape == (A, 81, 6)
    assert np.abs(np.diff(tokenizer.points[..., :16], axis=0)).max() > 1e-3
    assert np.abs(np.diff(tokenizer.points[..., 16:], axis=0)).max() < 1e-6


def play(tokenizer, interactions, end):
    """The states after each user's first `end` items, and (user, events) of every step."""
    streamer = streaming.make_streamer(tokenizer)
    state = streaming.begin(streamer, interactions.n_users, T)
    told = []
    for t in range(int(end.max())):
        at = np.minimum(interactions.offsets[:-1] + t, len(interactions.items) - 1)
        items = np.where(t < end, interactions.items[at], 0)
        before = state
        state, events = streaming.update(streamer, state, jnp.asarray(items, jnp.int32))
        told.append((before, state, events))
    return streamer, state, told


def test_a_stream_ends_in_the_read_side_that_evaluation_sees(world):
    tokenizer, interactions = world
    end = split_end(interactions, "test")
    streamer, state, told = play(tokenizer, interactions, end)
    side, _, fired = read_side(tokenizer, interactions, "test", T)
    assert fired.any()
    history, coarse, fine = (np.asarray(a) for a in streaming.read_side(streamer, state))
    np.testing.assert_array_equal(history[side.users], side.history)
    np.testing.assert_array_equal(np.asarray(state.archetype)[side.users], side.archetype)
    real = side.history > 0
    np.testing.assert_array_equal(coarse[side.users][real], side.coarse[real])
    np.testing.assert_array_equal(fine[side.users][real], side.fine[real])
    flat = interactions.offsets[:-1]
    for t, (_, _, events) in enumerate(told):
        going = t + 1 < interactions.lengths
        now = np.asarray(events.fired)[going & (t < end)]
        expected = tokenizer.readings.fired[(flat + t + 1)[going & (t < end)]]
        np.testing.assert_array_equal(now, expected)


def test_an_update_moves_codes_of_drifted_users_within_their_budget_and_says_which(world):
    tokenizer, interactions = world
    streamer, _, told = play(tokenizer, interactions, split_end(interactions, "test"))
    seen = 0
    for before, after, events in told:
        fired = np.asarray(events.fired)
        assert not np.asarray(events.coarse)[~fired].any()
        assert not np.asarray(events.fine)[~fired].any()
        for u in np.flatnonzero(fired):
            items = np.asarray(after.history[u])
            real = items > 0
            old, new = int(before.archetype[u]), int(after.archetype[u])
            assert (int(events.old[u]), int(events.archetype[u])) == (old, new)
            moved = np.asarray(events.coarse[u]).sum() + np.asarray(events.fine[u]).sum()
            assert moved <= CONFIG.budget * real.sum() * (1 + BOOK.digits) + 1e-6
            history, coarse, fine = streaming.read_side(streamer, after)
            n = real.sum()
            np.testing.assert_array_equal(history[u, :n], items[real])
            stays = np.asarray(coarse[u, :n]) == tokenizer.coarse[old, items[real]]
            np.testing.assert_array_equal(~stays, np.asarray(events.coarse[u])[real])
            stays = np.asarray(fine[u, :n]) == tokenizer.fine[old, items[real]]
            np.testing.assert_array_equal(~stays, np.asarray(events.fine[u])[real])
            assert float(np.logaddexp(*np.asarray(events.drift[u]))) > 0
            seen += int(moved > 0)
    assert seen


def test_some_users_are_updated_without_the_others(world):
    tokenizer, interactions = world
    end = np.minimum(split_end(interactions, "test"), 9)
    streamer, state, _ = play(tokenizer, interactions, end)
    rows = np.array([7, 2, 31])
    items = jnp.asarray([5, 9, 1], jnp.int32)
    part, _ = streaming.update(streamer, streaming.take(state, rows), items)
    apart = streaming.put(state, rows, part)
    every = np.zeros(interactions.n_users, np.int32)
    every[rows] = items
    whole, _ = streaming.update(streamer, state, jnp.asarray(every))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), apart, whole)


def test_states_are_saved_and_read_back_and_foreign_ones_refused(world, tmp_path):
    tokenizer, interactions = world
    end = np.minimum(split_end(interactions, "test"), 8)
    streamer, state, _ = play(tokenizer, interactions, end)
    streaming.save(tmp_path / "users", state, "abc")
    blank = streaming.begin(streamer, 1, T)
    back = streaming.load(tmp_path / "users", blank, "abc")
    jax.tree.map(np.testing.assert_array_equal, back, state)
    items = jnp.full(interactions.n_users, 3, jnp.int32)
    jax.tree.map(
        np.testing.assert_array_equal,
        streaming.update(streamer, back, items),
        streaming.update(streamer, state, items),
    )
    with pytest.raises(InputError, match="another tokenizer"):
        streaming.load(tmp_path / "users", blank, "xyz")


def test_a_tokenizer_is_read_back_from_its_artefact_alone(world, tmp_path):
    tokenizer, interactions = world
    config = {"tokenizer": dataclasses.asdict(CONFIG)}
    arrays = tokenizer_arrays.to_arrays(tokenizer)
    artifacts.write(tmp_path / "t", "tokenizer", arrays, {}, config)
    back = tokenizer_arrays.load(tmp_path / "t")
    assert back.module == tokenizer.module
    end = np.minimum(split_end(interactions, "test"), 6)
    _, state, _ = play(tokenizer, interactions, end)
    _, again, _ = play(back, interactions, end)
    jax.tree.map(np.testing.assert_array_equal, state, again)
    old = {name: a for name, a in arrays.items() if name != "readings/belief"}
    artifacts.write(tmp_path / "old", "tokenizer", old, {}, config)
    with pytest.raises(InputError, match=r"of another semid_jax .*belief.*; use the revision"):
        tokenizer_arrays.load(tmp_path / "old")


def coherence_by_hand(tokenizer, side):
    """Of all pairs of users: whether a read side is more like its own user's interest."""
    views, read, wanted = tokenizer.views, [], []
    for u in range(len(side)):
        seen = side.history[u] > 0
        of_items = np.asarray(decode(tokenizer.book, side.coarse[u, seen], side.fine[u, seen]))
        read.append((of_items / np.linalg.norm(of_items, axis=1, keepdims=True)).mean(axis=0))
        weights = np.maximum(np.asarray(views.archetypes.alpha)[side.archetype[u]], 0.05)
        belief = side.belief[u].astype(np.float32) / weights[:, None]
        wanted.append(np.einsum("mk,mkd->d", belief, np.asarray(views.table)))
    read, wanted = (np.stack(v) - np.mean(v, axis=0) for v in (read, wanted))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    likeness = read @ wanted.T
    n = len(side)
    return np.mean([likeness[u, v] < likeness[u, u] for u in range(n) for v in range(n) if u != v])


def test_updates_are_measured_beside_doing_nothing_and_everything(world):
    tokenizer, interactions = world
    side, before, fired = read_side(tokenizer, interactions, "test", T)
    asked = []

    def rank(part):
        asked.append(part)
        return np.full(len(part), [0, 2, 1][len(asked) - 1])

    found = update_metrics(tokenizer, side, before, fired, rank)
    stale, incremental, full = asked
    rows = np.flatnonzero(fired)
    np.testing.assert_array_equal(stale.coarse, before.coarse[rows])
    np.testing.assert_array_equal(incremental.fine, side.fine[rows])
    column = incremental.archetype[:, None]
    np.testing.assert_array_equal(full.fine, tokenizer.fine[column, incremental.history])
    moved = total = same = 0
    for u in range(len(rows)):
        for t in np.flatnonzero(incremental.history[u]):
            moved += int(stale.coarse[u, t] != incremental.coarse[u, t])
            moved += int((stale.fine[u, t] != incremental.fine[u, t]).sum())
            same += int(full.coarse[u, t] == incremental.coarse[u, t])
            same += int((full.fine[u, t] == incremental.fine[u, t]).sum())
            total += 1 + BOOK.digits
    np.testing.assert_allclose(found["churn"], moved / total, rtol=1e-6)
    np.testing.assert_allclose(found["code_overlap_full"], same / total, rtol=1e-6)
    assert found["updated_users"] == fired.mean()
    assert found["updated_ndcg@10_stale"] == 0
    np.testing.assert_allclose(found["updated_ndcg@10_incremental"], 1 / np.log2(3), rtol=1e-6)
    np.testing.assert_allclose(found["full_gain.difference"], 1 / np.log2(3) - 1, rtol=1e-6)
    assert found["updated_ndcg@10_full_low"] == 1
    assert 0 < found["cosine_stale"] <= 1 + 1e-6
    assert found["coherence_full"] == pytest.approx(coherence_by_hand(tokenizer, full), abs=1e-4)
    nobody = update_metrics(tokenizer, side, before, np.zeros_like(fired), rank)
    assert nobody == {"updated_users": 0.0, "churn": 0.0}


def test_the_more_may_move_the_more_does(world):
    tokenizer, interactions = world
    _, before, fired = read_side(tokenizer, interactions, "test", T)
    plain = streaming.make_streamer(tokenizer)

    def read(**changes):
        streamer = dataclasses.replace(plain, **{k: jnp.float32(v) for k, v in changes.items()})
        return read_side(tokenizer, interactions, "test", T, streamer=streamer)[0]

    asked = []

    def rank(part):
        asked.append(part)
        return np.full(len(part), 0 if len(asked) == 1 else 2)  # before the update nobody is found

    found = update_sweep(tokenizer, read, before, fired, rank)
    churn = [found[f"tradeoff.{round(100 * budget)}.churn"] for budget in BUDGETS]
    assert churn == sorted(churn)
    assert 0 < churn[0] <= BUDGETS[0]
    assert churn[-1] > churn[0]
    assert [len(part) for part in asked] == [fired.sum()] * (len(BUDGETS) + len(MARGINS) + 2)
    np.testing.assert_array_equal(asked[0].fine, before.fine[fired])
    np.testing.assert_allclose(found["tradeoff.40.difference"], 1 / np.log2(3), rtol=1e-6)
    assert found["tradeoff.full.churn"] >= churn[-1]
    by_margin = dict(zip(MARGINS, asked[1 + len(BUDGETS) :], strict=False))
    np.testing.assert_array_equal(by_margin[CONFIG.margin].fine, read().fine[fired])
    for share, side in by_margin.items():
        moved = (side.fine != before.fine[fired]).sum(-1) + (side.coarse != before.coarse[fired])
        least = moved[moved > 0].min()
        assert least > share * (1 + BOOK.digits)
    assert update_sweep(tokenizer, read, before, np.zeros_like(fired), rank) == {}


def test_ablations_switch_off_what_they_name():
    raw = generate(SyntheticConfig(n_users=60, n_items=80, topics=4))
    features, _ = fit_transform(raw.catalogue, train_items(raw.interactions), FeaturesConfig())
    whole = dataclasses.replace(CONFIG, context=0)
    config = dataclasses.replace(whole, uniform=True, gated=False)
    plain = make_tokenizer(features, raw.interactions, config, BOOK, T, 0)
    M = len(features.modalities)
    for alpha in (plain.readings.alpha, plain.readings.alpha_short, plain.archetypes.alpha):
        np.testing.assert_allclose(alpha, 1 / M, rtol=1e-6)
    np.testing.assert_array_equal(plain.archetypes.gate, 0)
    personal = make_tokenizer(features, raw.interactions, whole, BOOK, T, 0)
    assert np.std(personal.readings.alpha) > 0.01
    assert np.abs(personal.archetypes.gate).max() > 0
