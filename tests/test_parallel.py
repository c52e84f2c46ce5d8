"""What lies on all devices, and how it comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.parallel import Parallel


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_what_was_fetched_is_not_changed_by_later_steps(mode):
    parallel = Parallel(mode)

    def add(state, constants, batch):
        return {"a": state["a"] + jax.lax.psum(batch.sum(), "data")}, {}

    step, batch = parallel.compile(add), parallel.split(np.ones((len(parallel.devices), 1)))
    state, found = parallel.replicate({"a": jnp.zeros((64, 64))}), []
    for _ in range(4):
        state, _ = step(state, {}, batch)
        found.append(parallel.fetch(state)["a"])
    devices = len(parallel.devices)
    assert [float(a.mean()) for a in found] == [devices * (n + 1.0) for n in range(4)]
    assert found[0].shape == (64, 64)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_fetching_runs_no_program(mode, caplog):
    # One that has a collective, many at a time, can wait for ever on fake devices.
    parallel = Parallel(mode)
    tree = parallel.replicate({"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.int32(4)})
    jax.clear_caches()
    with jax.log_compiles():
        found = parallel.fetch(tree)
        assert "Compiling" not in caplog.text
        jax.jit(lambda a: a + 1)(jnp.zeros(5))
        assert "Compiling" in caplog.text  # so it would have been seen
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])
    assert found["b"] == 4


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_a_step_is_compiled_once(mode, caplog):
    # Its own output must lie on the devices as the first state did.
    parallel = Parallel(mode)

    def add(state, constants, batch):
        return {"a": state["a"] + constants + jax.lax.psum(batch.sum(), "data")}, {}

    step, batch = parallel.compile(add), np.ones((len(parallel.devices), 3), np.float32)
    constants = parallel.share(jnp.ones(7))
    state = parallel.replicate({"a": jnp.zeros(7)})
    with jax.log_compiles():
        state, _ = step(state, constants, parallel.split(batch))
        assert "Compiling" in caplog.text  # so another one would be seen
        caplog.clear()
        for _ in range(2):
            state, _ = step(state, constants, parallel.split(batch))
        assert "Compiling" not in caplog.text
    np.testing.assert_array_equal(parallel.fetch(state)["a"], 3 * (1 + batch.sum()))


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_what_is_shared_is_not_copied_where_it_lies(mode):
    one = jnp.arange(1000.0)
    shared = Parallel(mode, jax.devices()[:1]).share({"a": one})["a"]
    assert shared.unsafe_buffer_pointer() == one.unsafe_buffer_pointer()
    everywhere = Parallel(mode).share({"a": one})["a"]
    assert len(everywhere.addressable_shards) == len(jax.devices()) > 1
