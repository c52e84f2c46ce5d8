import itertools

import numpy as np
import pytest
import scipy.stats

from semid_jax.data import choices, synthetic
from semid_jax.data.oracle import oracle_ndcg, posterior_alpha, simplex_grid
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.types import InputError

SMALL = SyntheticConfig(n_users=400, n_items=300, topics=6, seed=1)


@pytest.fixture(scope="module")
def world():
    return generate(SMALL)


def slow_p(truth, alpha, taste):
    """p over all items, written as the design's formula."""
    logits = np.full(len(truth["popularity"]), -np.inf)
    for item in range(1, len(logits)):
        score = sum(
            alpha[m] * truth["prototypes"][taste[m], m] @ truth["e_true"][item, m]
            for m in range(len(alpha))
        )
        logits[item] = truth["gamma"] * np.log(truth["popularity"][item]) + truth["beta"] * score
    p = np.exp(logits - logits.max())
    return p / p.sum()


@pytest.mark.parametrize("cells", [2**22, 64 * 32])
def test_choices_follow_p(world, monkeypatch, cells):
    monkeypatch.setattr(choices, "CELLS", cells)  # the smaller one makes many blocks
    truth = world.truth
    vectors = choices.directions(
        truth["alpha_start"][:5], truth["taste_start"][:5], truth["prototypes"], False
    )
    flat = truth["e_true"].reshape(SMALL.n_items + 1, -1)
    bias = choices.log_popularity(truth["popularity"], SMALL.gamma)
    draws = 20_000
    segment = np.tile([0, 3], draws)
    uniform = np.random.default_rng(0).random(len(segment))
    items = choices.choose_items(vectors, flat, bias, float(truth["beta"]), segment, uniform)
    assert items.min() >= 1
    for user in (0, 3):
        p = slow_p(truth, truth["alpha_start"][user], truth["taste_start"][user])
        counts = np.bincount(items[segment == user], minlength=len(p))
        common = p * draws >= 5
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(p[common], p[~common].sum()) * draws
        assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_blocks_do_not_change_the_choices(world, monkeypatch):
    monkeypatch.setattr(choices, "CELLS", 64 * 32)
    again = generate(SMALL)
    same = again.interactions.items == world.interactions.items
    assert same.mean() > 0.999  # a draw on a rounding border may go either way


def test_expected_ndcg_against_sorting(world):
    truth = world.truth
    gains = []
    for user in range(20):
        p = np.sort(slow_p(truth, truth["alpha_end"][user], truth["taste_end"][user]))[::-1]
        gains.append(sum(p[rank] / np.log2(rank + 2) for rank in range(10)))
    few = {
        name: values[:20] if name in ("alpha_end", "taste_end") else values
        for name, values in truth.items()
    }
    assert oracle_ndcg(few) == pytest.approx(np.mean(gains), rel=1e-4)


@pytest.mark.parametrize("control", [False, True])
def test_oracle_ndcg_is_in_range(control):
    config = SyntheticConfig(n_users=1000, n_items=800, topics=8, control=control)
    assert 0.2 < oracle_ndcg(generate(config).truth) < 0.3


def test_drifts_are_planted_apart_and_can_be_seen(world):
    truth, lengths = world.truth, world.interactions.lengths
    kind = truth["drift_kind"]
    assert np.all(np.bincount(kind, minlength=3)[1:] > 0.08 * len(kind))
    same_alpha = np.all(truth["alpha_start"] == truth["alpha_end"], axis=1)
    same_taste = truth["taste_start"] == truth["taste_end"]
    np.testing.assert_array_equal(same_alpha, kind != synthetic.ALPHA_DRIFT)
    np.testing.assert_array_equal(same_taste.all(axis=1), kind != synthetic.INTEREST_DRIFT)
    assert not same_taste[kind == synthetic.INTEREST_DRIFT].any()
    moved = kind == synthetic.ALPHA_DRIFT
    for p, q in zip(truth["alpha_start"][moved], truth["alpha_end"][moved], strict=True):
        assert scipy.spatial.distance.jensenshannon(p, q, base=2) >= 0.3 - 1e-6
    assert np.all(truth["drift_time"][kind == 0] == -1)
    drifted = kind > 0
    assert truth["drift_time"][drifted].min() >= 15
    assert np.all(truth["drift_time"][drifted] <= lengths[drifted] - 15)


def test_choices_change_at_the_planted_time(world):
    truth, interactions = world.truth, world.interactions
    affinity = np.einsum("imq,kmq->ikm", truth["e_true"], truth["prototypes"])
    modality = np.arange(affinity.shape[2])
    gaps = []
    for user in np.flatnonzero(truth["drift_kind"] == synthetic.INTEREST_DRIFT):
        items = interactions.items[interactions.offsets[user] : interactions.offsets[user + 1]]
        score = {
            when: (affinity[items][:, truth[f"taste_{when}"][user], modality]).mean(axis=1)
            for when in ("start", "end")
        }
        gap = score["end"] - score["start"]
        time = truth["drift_time"][user]
        gaps.append((gap[:time].mean(), gap[time:].mean()))
    before, behind = np.mean(gaps, axis=0)
    assert before < -0.1
    assert behind > 0.1


def test_vectors_are_unit_and_views_are_partly_missing(world):
    norms = np.linalg.norm(world.truth["e_true"], axis=2)
    np.testing.assert_allclose(norms[1:], 1, rtol=1e-5)
    assert not norms[0].any()
    lacking = np.stack([np.isnan(table) for table in world.catalogue.vectors.values()])
    assert np.all(lacking.all(axis=2) == lacking.any(axis=2))
    assert not lacking[:, 1:].all(axis=(0, 2)).any()
    assert lacking[:, 1:].mean() == pytest.approx(SMALL.missing_rate, abs=0.02)
    many = generate(SyntheticConfig(n_users=20, n_items=500, topics=3, missing_rate=0.9))
    lacking = np.stack([np.isnan(table[1:, 0]) for table in many.catalogue.vectors.values()])
    assert not lacking.all(axis=0).any()


def test_popularity_is_long_tailed_and_lengths_spread(world):
    shares = np.sort(world.truth["popularity"][1:])[::-1]
    assert shares[: SMALL.n_items // 5].sum() > 0.5 * shares.sum()
    lengths = world.interactions.lengths
    assert lengths.mean() == pytest.approx(SMALL.mean_length, rel=0.15)
    assert lengths.min() >= 5
    steps = np.diff(world.interactions.times)
    borders = world.interactions.offsets[1:-1] - 1
    assert np.delete(steps, borders).min() > 0


def test_the_seed_decides_everything(world):
    again = generate(SMALL)
    np.testing.assert_array_equal(again.interactions.items, world.interactions.items)
    for name, table in world.catalogue.vectors.items():
        np.testing.assert_array_equal(again.catalogue.vectors[name], table)
    other = generate(SyntheticConfig(n_users=400, n_items=300, topics=6, seed=2))
    assert not np.array_equal(other.truth["alpha_end"], world.truth["alpha_end"])


def test_control_world_has_weights_that_choices_ignore(world):
    alpha, taste = world.truth["alpha_end"], world.truth["taste_end"]
    prototypes = world.truth["prototypes"]
    used = choices.directions(alpha, taste, prototypes, control=True)
    equal = choices.directions(np.full_like(alpha, 1 / 3), taste, prototypes, control=False)
    np.testing.assert_allclose(used, equal)
    control = generate(SyntheticConfig(n_users=60, n_items=100, topics=4, control=True))
    assert bool(control.truth["control"])
    assert np.std(control.truth["alpha_end"]) > 0.1
    inferred = posterior_alpha(
        control.truth, control.interactions, control.interactions.lengths, steps=4
    )
    np.testing.assert_allclose(inferred, 1 / 3, atol=1e-4)


@pytest.mark.parametrize("knows_drift", [True, False])
def test_posterior_against_a_slow_sum(knows_drift):
    config = SyntheticConfig(
        n_users=24,
        n_items=30,
        topics=3,
        modalities=("audio", "text"),
        drift_alpha_share=0.3,
        drift_interest_share=0.3,
    )
    data = generate(config)
    truth, interactions = data.truth, data.interactions
    end = interactions.lengths - 1
    found = posterior_alpha(truth, interactions, end, knows_drift, steps=5)
    grid = simplex_grid(2, 5)
    logs = {
        (g, taste): np.log(slow_p(truth, grid[g], taste)[1:])
        for g in range(5)
        for taste in itertools.product(range(3), repeat=2)
    }
    for user in range(24):
        history = interactions.items[interactions.offsets[user] :][: end[user]] - 1
        kind, time = truth["drift_kind"][user], truth["drift_time"][user]
        pieces = [history]
        if knows_drift and kind and time < end[user]:
            pieces = [history[:time], history[time:]] if kind == 2 else [history[time:]]
        evidence = np.ones(5)
        for g, piece in itertools.product(range(5), pieces):
            tastes = itertools.product(range(3), repeat=2)
            evidence[g] *= sum(np.exp(logs[g, taste][piece].sum() + 50.0) for taste in tastes)
        np.testing.assert_allclose(found[user], evidence @ grid / evidence.sum(), atol=2e-3)


def test_weights_can_be_inferred_from_some_thirty_choices(world):
    end = world.interactions.lengths - 1
    inferred = posterior_alpha(world.truth, world.interactions, end, steps=6)
    chosen = end >= 20
    correlations = [
        scipy.stats.spearmanr(inferred[chosen, m], world.truth["alpha_end"][chosen, m]).statistic
        for m in range(3)
    ]
    assert np.mean(correlations) > 0.6


def test_grid_is_even_on_the_simplex():
    grid = simplex_grid(3, 10)
    assert len(grid) == 55
    np.testing.assert_allclose(grid.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(grid.mean(axis=0), 1 / 3, rtol=1e-5)
    assert grid.min() > 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_items", 5, r"synthetic.n_items = 5: set it between 20 and inf"),
        ("drift_alpha_share", 0.9, r"synthetic.drift_alpha_share = 0.9"),
        ("missing_rate", 1.0, r"synthetic.missing_rate = 1.0"),
        ("modalities", (), r"synthetic.modalities = \(\)"),
        ("topics", 40, r"synthetic.topics = 40: 40\^3 tastes are too many for the oracle"),
        ("gamma", 30.0, r"synthetic.oracle_ndcg = 0.25: this world reaches"),
    ],
)
def test_impossible_worlds_are_named(field, value, message):
    with pytest.raises(InputError, match=message):
        generate(SyntheticConfig(**{"n_users": 20, "n_items": 100, "topics": 3, field: value}))
