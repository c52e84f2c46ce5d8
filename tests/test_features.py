import numpy as np
import pytest

from semid_jax.features import normalise
from semid_jax.features.attributes import fit_idf, weigh_bags
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_components, fit_transform
from semid_jax.types import Catalogue, InputError

N_ITEMS = 60


@pytest.fixture
def catalogue():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(N_ITEMS + 1, 8)) @ rng.normal(size=(8, 12)) + 3
    text = rng.normal(size=(N_ITEMS + 1, 5))
    image[[0, 4, 9]] = np.nan
    text[0] = np.nan
    bags = [np.zeros(0, np.int32), *(rng.integers(0, 15, rng.integers(0, 5)) for _ in text[1:])]
    names = np.array([str(k) for k in range(N_ITEMS + 1)])
    return Catalogue(
        names,
        names,
        names,
        {"image": image.astype(np.float32), "text": text.astype(np.float32)},
        {"attributes": tuple(np.asarray(bag, np.int32) for bag in bags)},
    )


@pytest.fixture
def train_items():
    mask = np.random.default_rng(1).random(N_ITEMS + 1) < 0.7
    mask[0] = False
    return mask


def test_modalities_are_sorted_and_masked(catalogue, train_items):
    features, _ = fit_transform(catalogue, train_items, FeaturesConfig())
    assert features.modalities == ("attributes", "image", "text")
    assert features.present["image"].sum() == N_ITEMS - 2
    assert not features.present["image"][[0, 4, 9]].any()
    assert not features.present["text"][0]
    empty = [len(bag) == 0 for bag in catalogue.tokens["attributes"]]
    np.testing.assert_array_equal(features.present["attributes"], ~np.array(empty))
    for name in features.modalities:
        assert features.x[name].dtype == np.float32
        assert not features.x[name][~features.present[name]].any()
        fitted_on = features.present[name] & train_items
        norms = np.sum(features.x[name][fitted_on] ** 2, axis=1)
        np.testing.assert_allclose(norms.mean(), 1, rtol=1e-5)
        if name != "attributes":
            np.testing.assert_allclose(features.x[name][fitted_on].mean(axis=0), 0, atol=1e-6)


def test_all_components_keep_distances_up_to_one_factor(catalogue, train_items):
    config = FeaturesConfig(modalities=("text",), whitening=0.0)
    features, _ = fit_transform(catalogue, train_items, config)
    raw, x = catalogue.vectors["text"][1:], features.x["text"][1:]
    ratios = np.linalg.norm(raw - raw[7], axis=1) / np.maximum(
        np.linalg.norm(x - x[7], axis=1), 1e-9
    )
    np.testing.assert_allclose(np.delete(ratios, 7), ratios[0], rtol=1e-4)


def test_fewer_components_against_a_plain_svd(catalogue, train_items):
    config = FeaturesConfig(modalities=("text",), dimensions=2, whitening=0.0)
    features, fitted = fit_transform(catalogue, train_items, config)
    raw = catalogue.vectors["text"].astype(np.float64)
    centred = raw[1:] - raw[train_items].mean(axis=0)
    _, _, rows = np.linalg.svd(centred[train_items[1:]], full_matrices=False)
    expected = centred @ rows[:2].T
    expected /= np.sqrt((expected[train_items[1:]] ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(np.abs(features.x["text"][1:]), np.abs(expected), atol=1e-4)
    by_hand = (raw[1:] - fitted["text/mean"]) @ fitted["text/components"].T * fitted["text/scale"]
    np.testing.assert_allclose(features.x["text"][1:], by_hand, atol=1e-4)


def test_scale_and_shift_of_raw_features_change_nothing(catalogue, train_items):
    before, _ = fit_transform(catalogue, train_items, FeaturesConfig())
    catalogue.vectors["image"][:] = catalogue.vectors["image"] * 1000 - 7
    after, _ = fit_transform(catalogue, train_items, FeaturesConfig())
    for name in before.modalities:
        np.testing.assert_allclose(after.x[name], before.x[name], atol=1e-4)


@pytest.mark.parametrize("modality", ["image", "attributes"])
def test_items_outside_training_change_nothing_of_the_fit(catalogue, train_items, modality):
    config = FeaturesConfig(modalities=(modality,))
    before, fitted = fit_transform(catalogue, train_items, config)
    held_out = np.flatnonzero(~train_items)[1:]
    catalogue.vectors["image"][held_out] += 100
    tokens = {
        name: tuple(
            np.array([99], np.int32) if row in held_out else bag for row, bag in enumerate(bags)
        )
        for name, bags in catalogue.tokens.items()
    }
    changed = Catalogue(
        catalogue.item_ids, catalogue.titles, catalogue.categories, catalogue.vectors, tokens
    )
    after, again = fit_transform(changed, train_items, config)
    for name in fitted:
        np.testing.assert_array_equal(fitted[name], again[name])
    np.testing.assert_array_equal(after.x[modality][train_items], before.x[modality][train_items])
    if modality == "attributes":
        assert not after.present["attributes"][held_out].any()  # only tokens never seen before


def test_rows_are_transformed_some_at_a_time_as_all_at_once(catalogue, train_items, monkeypatch):
    whole, _ = fit_transform(catalogue, train_items, FeaturesConfig())
    monkeypatch.setattr(normalise, "ROWS", 7)
    parts, _ = fit_transform(catalogue, train_items, FeaturesConfig())
    for name in whole.modalities:
        np.testing.assert_allclose(parts.x[name], whole.x[name], rtol=1e-6, atol=1e-7)


def test_whitening_makes_deviations_equal():
    rows = np.random.default_rng(0).normal(size=(500, 6)) * np.array([10, 5, 3, 1, 0.5, 0.1])
    _, _, scale = fit_components(rows, 6, 0.0)
    np.testing.assert_allclose(scale, scale[0])
    for whitening in (0.0, 0.5, 1.0):
        mean, components, scale = fit_components(rows, 6, whitening)
        plain = ((rows - mean) @ components.T).std(axis=0)
        deviations = plain * scale
        expected = (plain / plain[0]) ** (1 - whitening)
        np.testing.assert_allclose(deviations / deviations[0], expected, rtol=1e-6)


def test_signs_do_not_depend_on_the_order_of_items():
    rows = np.random.default_rng(0).normal(size=(50, 4))
    _, forward, _ = fit_components(rows, 4, 0)
    _, backward, _ = fit_components(rows[::-1], 4, 0)
    np.testing.assert_allclose(forward, backward, atol=1e-9)


def test_constant_modality_stays_finite():
    _, components, scale = fit_components(np.ones((10, 3)), 3, 1.0)
    assert components.shape == (1, 3)
    assert np.isfinite(scale).all()


def test_weighed_bags_against_a_loop(catalogue, train_items):
    bags = catalogue.tokens["attributes"]
    vocabulary, weights = fit_idf(bags, train_items)
    table = weigh_bags(bags, vocabulary, weights).toarray()
    seen = [set(bags[k].tolist()) for k in np.flatnonzero(train_items) if len(bags[k])]
    for row, bag in enumerate(bags):
        expected = np.zeros(len(vocabulary))
        for token in bag.tolist():
            if token in vocabulary:
                frequency = sum(token in other for other in seen)
                place = vocabulary.tolist().index(token)
                expected[place] += np.log((1 + len(seen)) / frequency)
        norm = np.linalg.norm(expected)
        np.testing.assert_allclose(table[row], expected / norm if norm else expected)


def test_unknown_modality_names_near_misses(catalogue, train_items):
    with pytest.raises(InputError, match=r"'images' is unknown, did you mean 'image'\? this"):
        fit_transform(catalogue, train_items, FeaturesConfig(modalities=("images", "text")))


def test_modality_without_training_items_is_an_error(catalogue, train_items):
    catalogue.vectors["image"][train_items] = np.nan
    with pytest.raises(InputError, match=r"no training item has 'image'"):
        fit_transform(catalogue, train_items, FeaturesConfig())


def test_non_finite_features_are_an_error(catalogue, train_items):
    catalogue.vectors["text"][5, 2] = np.inf
    with pytest.raises(InputError, match=r"modality 'text': non-finite value in item row 5"):
        fit_transform(catalogue, train_items, FeaturesConfig())
