"""Rows without padding, against the padded computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.models.gpt2 import Gpt2, Gpt2Config
from semid_jax.models.rows import FEW, SPAN, every_place, items_alone, without_padding
from semid_jax.models.trunk import Trunk, last_of

D, T, LAYERS = 8, 12, 3


def histories(users, longest, seed=0):
    lengths = np.random.default_rng(seed).integers(0, longest + 1, users)
    return jnp.asarray(np.arange(T) < lengths[:, None])


def test_packing_keeps_the_items_in_order_and_unpacking_finds_them():
    mask = jnp.asarray([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]], bool)
    values = jnp.arange(24.0).reshape(4, 3, 2)
    rows = items_alone(mask, 8)
    np.testing.assert_array_equal(rows.place[:6], [0, 1, 6, 9, 10, 11])
    np.testing.assert_array_equal(rows.times[:6], [0, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(rows.first, [0, 2, 2, 3])
    np.testing.assert_array_equal(rows.unpack(rows.pack(values))[mask], values[mask])
    np.testing.assert_array_equal(rows.pick(rows.pack(values))[2:], values[[2, 3], [0, 2]])
    spread = rows.spread(2)
    np.testing.assert_array_equal(spread.place[:12], [0, 1, 2, 3, 12, 13, *range(18, 24)])
    np.testing.assert_array_equal(spread.mask, np.repeat(mask, 2, axis=1))
    np.testing.assert_array_equal(spread.first, 2 * rows.first)
    all_places = every_place(mask)
    np.testing.assert_array_equal(all_places.unpack(all_places.pack(values)), values)
    np.testing.assert_array_equal(all_places.last, [1, 3, 6, 11])


@pytest.mark.parametrize(
    ("users", "longest"), [(FEW, T), (8, 3), (40, 2), (40, 4), (40, 9), (40, T)]
)
def test_a_trunk_without_padding_finds_what_the_padded_one_does(users, longest):
    trunk, mask = Trunk(D, LAYERS, 2, T, 0.0), histories(users, longest)
    x = jax.random.normal(jax.random.key(1), (users, T, D))
    params = trunk.init(jax.random.key(0), x)
    seen = []

    @jax.jit
    def read(mask):
        def serve(rows):
            seen.append(len(rows.pack(mask)))
            state, cache = trunk.apply(params, rows.pack(x), rows, method=Trunk.read)
            return trunk.apply(params, rows.pack(x), rows, method=Trunk.last), state, cache

        return without_padding(serve, mask)

    there = np.asarray(mask[:, 0])  # the others have no item at all
    expected = last_of(trunk.apply(params, x), mask)[there]
    last, state, cache = read(mask)
    np.testing.assert_allclose(last[there], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state[there], expected, rtol=1e-4, atol=1e-5)
    _, padded = trunk.apply(params, x.reshape(-1, D), every_place(mask), method=Trunk.read)
    for found, wanted in zip(jax.tree.leaves(cache), jax.tree.leaves(padded), strict=True):
        np.testing.assert_allclose(found[mask], wanted[mask], rtol=1e-4, atol=1e-5)
    if users <= FEW:
        assert seen == [users * T]
    else:
        assert seen == sorted(seen)
        assert all(n % SPAN == 0 for n in seen[:-1])


def test_gpt2_reads_histories_without_padding():
    L, K, users = 3, 16, 40
    model = Gpt2(Gpt2Config(width=D, heads=2), L, K, T)
    mask = histories(users, 5).at[:, 0].set(True)
    codes = jax.random.randint(jax.random.key(1), (users, T, L), 0, K).astype(jnp.uint8)
    params = model.init(jax.random.key(0), codes)

    def start(rows):
        return model.apply(params, codes, mask, 2, rows, method="start")

    logits, (past, sees, end), _ = start(every_place(mask))
    found, (kept, sees_too, end_too), _ = without_padding(start, mask)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(end, end_too)
    for made, wanted in zip(jax.tree.leaves(kept), jax.tree.leaves(past), strict=True):
        np.testing.assert_allclose(made[sees_too], wanted[sees], rtol=1e-4, atol=1e-5)
