"""Health figures against counting by hand, and names of cells."""

from collections import Counter
from math import exp, log

import numpy as np
import pytest

from semid_jax.quantize import codebook as books
from semid_jax.quantize import health
from semid_jax.quantize.cell_names import cell_names
from semid_jax.quantize.codebook import Codebook


def catalogue(archetypes=2, items=60, seed=0):
    """Few cells and codewords, so that IDs collide."""
    generator = np.random.default_rng(seed)
    book = Codebook(
        coarse=generator.normal(size=(3, 4)).astype(np.float32),
        rotation=np.eye(4, dtype=np.float32),
        fine=generator.normal(size=(2, 4, 2)).astype(np.float32),
    )
    coarse = generator.integers(0, 3, (archetypes, items + 1)).astype(np.int32)
    fine = generator.integers(0, 4, (archetypes, items + 1, 2)).astype(np.uint8)
    fine[:, :, 1] = np.minimum(fine[:, :, 1], 2)
    points = generator.normal(size=(archetypes, items + 1, 4)).astype(np.float32)
    categories = generator.choice(["", "a", "b|c", "c|a|b"], items + 1)
    return book, coarse, fine, points, categories


def slow_entropy(values):
    counts = Counter(values)
    return -sum(c / len(values) * log(c / len(values)) for c in counts.values())


def test_figures_agree_with_counting_by_hand():
    book, coarse, fine, points, categories = catalogue()
    found = health.health(book, coarse, fine, points, categories)
    items, expected = 60, {name: [] for name in found}
    entries = set()
    for a in range(2):
        ids = [(int(coarse[a, i]), *fine[a, i].tolist()) for i in range(1, items + 1)]
        entries |= {(i, whole) for i, whole in enumerate(ids)}
        shared = Counter(ids)
        expected["collision_rate"].append(sum(shared[whole] > 1 for whole in ids) / items)
        digits = [[whole[1 + j] for whole in ids] for j in range(2)]
        expected["usage"].append(np.mean([len(set(digit)) / 4 for digit in digits]))
        expected["perplexity"].append(np.mean([exp(slow_entropy(digit)) for digit in digits]))
        expected["least_perplexity"].append(min(exp(slow_entropy(digit)) for digit in digits))
        cells = [whole[0] for whole in ids]
        expected["coarse_perplexity"].append(exp(slow_entropy(cells)))
        expected["balance"].append(max(Counter(cells).values()) / (items / 3))
        labels = [category.split("|")[0] for category in categories[1:]]
        pairs = [pair for pair in zip(cells, labels, strict=True) if pair[1]]
        entropies = [slow_entropy([pair[side] for pair in pairs]) for side in range(2)]
        shared_information = sum(entropies) - slow_entropy(pairs)
        expected["nmi"].append(2 * shared_information / sum(entropies))
        best = {}
        for (cell, _), count in Counter(pairs).items():
            best[cell] = max(best.get(cell, 0), count)
        expected["purity"].append(sum(best.values()) / len(pairs))
    ends = {"balance": max, "least_perplexity": min}
    for name, values in expected.items():
        if name in ends:
            assert found[name] == pytest.approx(ends[name](values))
        elif values:
            assert found[name] == pytest.approx(np.mean(values)), name
    assert found["entries_per_item"] == pytest.approx(len(entries) / items)
    assert 0 < found["collision_rate"] <= 1
    assert found["usage"] == pytest.approx((1 + 0.75) / 2)


def test_reconstruction_error_is_relative():
    book, coarse, fine, points, categories = catalogue(archetypes=1)
    points[0, 1:] = np.asarray(books.decode(book, coarse[0, 1:], fine[0, 1:]))
    exact = health.health(book, coarse, fine, points, categories)
    assert exact["reconstruction_error"] == pytest.approx(0.0, abs=1e-9)
    spread = ((points[0, 1:] - points[0, 1:].mean(axis=0)) ** 2).sum()
    points[0, 5] += [1.0, 0.0, 2.0, 0.0]
    found = health.health(book, coarse, fine, points, categories)
    assert found["reconstruction_error"] == pytest.approx(5.0 / spread, rel=0.1)


def test_without_categories_agreement_is_left_out():
    book, coarse, fine, points, _ = catalogue()
    found = health.health(book, coarse, fine, points, np.full(61, ""))
    assert "nmi" not in found
    assert "purity" not in found


def test_perfect_and_no_agreement():
    cell = np.repeat(np.arange(4), 25)
    assert health.cell_agreement(cell, (cell + 1) % 4) == pytest.approx((1.0, 1.0))
    nothing = health.cell_agreement(cell, np.tile(np.arange(5), 20))
    assert nothing == pytest.approx((0.0, 0.2), abs=1e-9)


def test_cells_are_named_by_what_sets_them_apart():
    brands = ["Acme", "Bolt", "Core", "Dawn"]
    titles = [""]
    cells = [0]
    for number in range(80):
        cell = number % 2
        kind = "shampoo hair" if cell else "lipstick lip"
        titles.append(f"The {brands[number % 4 // 2]} beauty {kind} No. {number} for you")
        cells.append(cell)
    names = cell_names(np.array(cells), np.array(titles), cells=3, top=2)
    assert names == ["lip, lipstick", "hair, shampoo", "(empty)"]


def test_cells_without_words_have_a_number():
    names = cell_names(np.array([0, 0, 1]), np.array(["", "42", "7 11"]), cells=2)
    assert names == ["cell 0", "cell 1"]
    mixed = cell_names(np.array([0, 0, 1]), np.array(["", "red shoes", "7 11"]), cells=2)
    assert mixed[1] == "cell 1"


def test_ties_go_by_the_alphabet():
    titles = np.array(["", "zebra apple mango", "other words here"])
    assert cell_names(np.array([0, 0, 1]), titles, cells=2)[0] == "apple, mango, zebra"
