"""Arrays on several devices: where a batch and where params go on a mesh.

All of it is placement. Programs are compiled as for one device and divided by JAX (`jax.jit` over sharded
arrays), so energies, statistics and keys are those of the whole batch whatever the number of devices.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..core import RKG, RKG_LOCK, DynamicParam, named_params
from ..predictive_coding import VodeParam

NOT_A_MESH = """{who}: mesh= is a `jax.sharding.Mesh`, such as `jax.make_mesh((8,), ("data",))`; got {got!r}"""

AXES = """{who}: the axes of a mesh are "data" (its devices divide the batch) and "fsdp" (they divide the batch \
and the params); got {got}. Write `jax.make_mesh({shape}, ("data",))`; for other ways to divide a model place \
its arrays by hand, see docs/howto/devices.md"""

SOME = """{who}: the mesh has devices of {some} of {all} processes; take the devices of all, `jax.devices()`, or \
this process's own, `jax.local_devices()`"""

UNEQUAL = """the processes differ in {what}: process 0 has {first}, process {other} has {value}. Every process \
passes an equal part of each batch, in the same number of batches, and resumes from the same file"""

# smaller arrays are quicker to keep whole than to gather
LEAST = 1024


def checked(mesh: Any, who: str, axes: tuple[str, ...] | None = ("data", "fsdp")) -> Mesh:
    """A mesh whose axes the compiler divides programs over by itself.

    Args:
        axes: the names that its axes may have; None for any.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(NOT_A_MESH.format(who=who, got=mesh))
    if axes is not None and not set(mesh.axis_names) <= set(axes):
        raise ValueError(AXES.format(who=who, got=mesh.axis_names, shape=(mesh.devices.size,)))
    if processes(mesh) not in (1, jax.process_count()):
        raise ValueError(SOME.format(who=who, some=processes(mesh), all=jax.process_count()))
    # `jax.make_mesh` may make axes over which a program has to be divided by hand
    return Mesh(mesh.devices, mesh.axis_names)


@functools.cache
def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


@functools.cache
def divided(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """An equal part of an axis on every device."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names))


@functools.cache
def of_param(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Where an array of a param is: whole, or divided along its largest axis that divides evenly."""
    parts = mesh.shape.get("fsdp", 1)
    even = [i for i, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not even or math.prod(shape) < LEAST:
        return replicated(mesh)
    axis = max(even, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))


@functools.cache
def processes(mesh: Mesh) -> int:
    """How many processes its devices belong to."""
    return len({device.process_index for device in mesh.devices.flat})


def leads(mesh: Mesh | None) -> bool:
    """Whether this process does what one of them has to do."""
    return mesh is None or jax.process_index() == min(d.process_index for d in mesh.devices.flat)


def place_params(mesh: Mesh, tree: Any) -> None:
    """Put the params of a tree where they belong, except states, which go where the batch is."""
    for param in _kept(tree):
        param.set(jax.tree_util.tree_map(lambda leaf: _on(leaf, mesh), param.get()))


def _kept(tree: Any) -> list[DynamicParam]:
    """The params that are not states."""
    params = [param for _, param in named_params(tree)]
    return [p for p in params if isinstance(p, DynamicParam) and not isinstance(p, VodeParam)]


def _on(leaf: Any, mesh: Mesh) -> Any:
    if not isinstance(leaf, jax.Array | np.ndarray):
        return leaf
    # never the same memory: the steps reuse that of params
    return jax.device_put(leaf, of_param(mesh, leaf.shape), may_alias=False)


def place_key(mesh: Mesh) -> None:
    """Put the key of the default generator on every device."""
    with RKG_LOCK:
        key = RKG.key.get()
        if not getattr(key, "committed", False):
            RKG.key.set(jax.device_put(key, replicated(mesh)))


def place_batch(mesh: Mesh, tree: Any, axis: int = 0) -> Any:
    """Arrays with an equal part of the samples on every device, or whole where these do not divide.

    With several processes, host arrays are each process's part of the batch.

    Args:
        axis: that of the samples.
    """
    return jax.tree_util.tree_map(lambda leaf: _place(leaf, mesh, axis), tree)


def _place(leaf: Any, mesh: Mesh, axis: int) -> Any:
    if isinstance(leaf, jax.core.Tracer) or not np.ndim(leaf):
        return leaf
    count, size = processes(mesh), np.shape(leaf)[axis]
    if count == 1:
        even = size % mesh.devices.size == 0
        return jax.device_put(leaf, divided(mesh, axis) if even else replicated(mesh))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # the whole batch already
    if size * count % mesh.devices.size == 0:
        return jax.make_array_from_process_local_data(divided(mesh, axis), np.asarray(leaf))
    parts = multihost_utils.process_allgather(np.asarray(leaf))
    return jax.device_put(np.concatenate(parts, axis), replicated(mesh))


def is_guarded() -> bool:
    """Whether JAX is told to watch over host arrays that reach a compiled function as they are."""
    config: Any = jax.config
    guard = config.jax_transfer_guard_host_to_device or config.jax_transfer_guard
    return guard not in (None, "allow")


def to_device(tree: Any) -> Any:
    """Host arrays as JAX arrays where JAX guards transfers: what a method is given it may transfer."""
    if not is_guarded():
        return tree
    put = lambda leaf: leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf)
    return jax.tree_util.tree_map(put, tree)


def check_equal(numbers: Mapping[str, int]) -> None:
    """Refuse numbers that differ between processes, which would wait for each other for ever."""
    rows = multihost_utils.process_allgather(np.array([*numbers.values()]))
    for column, what in enumerate(numbers):
        for other, value in enumerate(rows[:, column]):
            if value != rows[0, column]:
                raise ValueError(
                    UNEQUAL.format(what=what, first=rows[0, column], other=other, value=value)
                )


def values_of(tree: Any) -> dict[int, Any]:
    """The arrays in the params of a tree, as they are now."""
    return {id(param): param.get() for param in _kept(tree)}


def keep_placed(mesh: Mesh, tree: Any, before: Mapping[int, Any]) -> None:
    """In a compiled function: leave the params that changed where they belong."""
    for param in _kept(tree):
        value = param.get()
        if value is not before.get(id(param)):
            keep = lambda leaf: (
                jax.lax.with_sharding_constraint(leaf, of_param(mesh, jnp.shape(leaf)))
                if isinstance(leaf, jax.Array)
                else leaf
            )
            param.set(jax.tree_util.tree_map(keep, value))


def whole(value: Any) -> Any:
    """An array that this process can read. All processes must ask for it."""
    if isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    ):
        return multihost_utils.process_allgather(value, tiled=True)
    return value


def own_part(value: Any) -> np.ndarray:
    """What of an array is on this process's devices, along its first axis."""
    if not isinstance(value, jax.Array) or value.is_fully_addressable:
        return np.asarray(value)
    parts = {s.index[0].start or 0: s.data for s in value.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def own_rows(value: jax.Array, samples: int) -> np.ndarray:
    """This process's rows of a batch, of which it passed so many."""
    if value.is_fully_replicated:
        start = jax.process_index() * samples
        return np.asarray(value)[start : start + samples]
    return own_part(value)
