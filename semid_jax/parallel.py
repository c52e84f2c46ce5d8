"""One step on many devices: `pmap` on one host, `jit(shard_map)` over a mesh on several.

A step is written for one device, with collectives over the axis "data". Its arguments are a state
and constants, the same on all devices, and a batch, split along its first axis; it returns the new
state and metrics, both the same on all devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from semid_jax.types import InputError

AXIS = "data"
Step = Callable[[Any, Any, Any], tuple[Any, Any]]


class Parallel:
    """Places arrays and compiles steps in one of the two ways; both give the same numbers."""

    def __init__(self, mode: str = "auto", devices: list[jax.Device] | None = None) -> None:
        """Chooses the way.

        Args:
          mode: "pmap", "shard_map" or "auto" (pmap on one host, shard_map on several).
          devices: default all.

        Raises:
          InputError: unknown mode.
        """
        if mode not in ("auto", "pmap", "shard_map"):
            raise InputError(f"train.parallel = {mode!r} is unknown; use auto, pmap or shard_map")
        if mode == "auto":
            mode = "pmap" if jax.process_count() == 1 else "shard_map"
        self.mode = mode
        self.devices = devices if devices is not None else jax.devices()
        self.mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))

    def check_batch(self, batch_size: int, group: int) -> None:
        """Every device gets whole groups.

        Raises:
          InputError: it does not work out.
        """
        if batch_size % (len(self.devices) * group):
            raise InputError(
                f"train.batch_size = {batch_size} is no multiple of {len(self.devices)} devices x "
                f"train.group = {group}; change one of them"
            )

    def replicate(self, tree: Any) -> Any:
        """Puts a tree on every device; the result owns its buffers and may be donated."""
        n = len(self.devices)
        if not jax.tree.leaves(tree):
            return tree
        if self.mode == "pmap":
            tree = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *jnp.shape(a))), tree)
            # The axis names the mesh: of another name, a step compiles anew for its own output.
            return jax.pmap(lambda t: t, axis_name=AXIS, devices=self.devices)(tree)
        return jax.device_put(
            jax.tree.map(jnp.array, tree), NamedSharding(self.mesh, PartitionSpec())
        )

    def share(self, tree: Any) -> Any:
        """Puts what no step changes on every device; what is on one already is not copied there."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def fetch(self, tree: Any) -> Any:
        """A replicated tree back on the host, as numpy arrays: the first device's copy.

        No program is run for it. One that indexes an array of all devices has a collective; many
        of them in flight at once wait for each other for ever where there are few threads.
        """
        if self.mode == "pmap":
            first = jax.device_get(jax.tree.map(lambda a: a.addressable_shards[0].data, tree))
            return jax.tree.map(lambda a: np.array(a[0]), first)  # its own: states are donated
        return jax.device_get(tree)

    def split(self, batch: Any) -> Any:
        """Splits a batch along its first axis over the devices."""
        n = len(self.devices)
        if self.mode == "pmap":
            return jax.tree.map(lambda a: np.reshape(a, (n, -1, *a.shape[1:])), batch)
        return jax.device_put(batch, NamedSharding(self.mesh, PartitionSpec(AXIS)))

    def compile(self, step: Step) -> Step:
        """The step of (state, what is shared, batch) on all devices; its state is donated."""
        if self.mode == "pmap":
            return jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=(0, None, 0),
                donate_argnums=0,
                devices=self.devices,
            )
        everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
        # check_vma=False: with the check on, pmean of a gradient is multiplied by the device count.
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(everywhere, everywhere, split),
            out_specs=(everywhere, everywhere),
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0)
