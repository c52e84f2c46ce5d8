"""Users served in turns, against all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.turns import ALIKE, turns_by_length


@pytest.mark.parametrize("B", [1, ALIKE, ALIKE + 1, 77])
def test_turns_by_length_find_what_all_at_once_do(B):
    rng, T = np.random.default_rng(B), 10
    lengths = rng.integers(0, T + 1, B)
    history = np.where(np.arange(T) < lengths[:, None], rng.integers(1, 99, (B, T)), 0)
    weight = rng.normal(size=B).astype("f")

    @jax.jit
    def run(history, weight):
        def serve(users, width):
            rows, scale = users
            total = scale * jnp.sum(rows[:, :width] ** 2, axis=1)
            return {"total": total, "width": jnp.full(len(scale), width)}

        of_users, held = (history, weight), jnp.sum(history > 0, axis=1)
        return turns_by_length(serve, of_users, held, T)

    found = run(jnp.asarray(history), jnp.asarray(weight))
    np.testing.assert_allclose(found["total"], weight * (history**2).sum(axis=1), rtol=1e-6)
    expected, order = np.full(B, T), np.argsort(lengths, kind="stable")
    for start in range(0, B, ALIKE) if B > ALIKE else ():
        turn = order[start : start + ALIKE]
        expected[turn] = min(w for w in (3, 5, 10) if w >= lengths[turn].max())
    np.testing.assert_array_equal(found["width"], expected)
