"""Several training steps in one compiled call."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .. import functional as pxf
from ..core import named_params
from ..data import Batches
from ..data._samples import map_arrays
from ..utils import _mesh
from . import _batches

CONVOLUTIONS = """steps_per_call={k}: on a CPU a compiled loop runs convolutions 8 to 10 times slower \
than single steps do, so the steps of this model are run one by one. Leave out `steps_per_call=` here, \
or train on a GPU."""

UNTRACEABLE = """steps_per_call={k} compiles `train_step` of {cls} into a loop, so it must be a \
function that JAX can trace. Leave out `steps_per_call=` to call it for each batch."""

Augment = Callable[[Any, Any], Any]


class Call:
    """The batches of one call: what a plain loop would have given to `train_step` one by one.

    Args:
        first: the number of the first batch in its epoch, from 1.
        sizes: samples in each batch.
        data, steps: batch i is `data` at `steps[i]` if there is data, else `steps[i]` itself.
    """

    def __init__(self, first: int, sizes: list[int], data: Any, steps: Any):
        self.first, self.sizes, self.data, self.steps = first, sizes, data, steps

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, index: int) -> tuple[Any, Any]:
        """Inputs and targets of one batch."""
        part = self.steps[index]
        if self.data is None:
            return part
        with jax.transfer_guard_host_to_device("allow"):  # of the numbers of samples
            return take(self.data, part)


def calls(
    batches: Iterable[Any],
    k: int,
    classes: int | None,
    steps: int | None,
    alone: bool,
    kept: dict[str, Any],
    mesh: Mesh | None = None,
) -> Generator[Call, None, None]:
    """An epoch of training batches, up to `k` of them in a call, the first one `alone` if asked.

    Batches in one call have one shape. `pxt.batches` without a transform stays on the device as a
    whole (on each device of a mesh), in `kept` from one epoch to the next, and a call takes the numbers of
    the samples.
    """
    # of several processes each has other data
    resident = mesh is None or _mesh.processes(mesh) == 1
    if resident and k > 1 and isinstance(batches, Batches) and batches.transform is None:
        # every batch is checked below; here the whole is, once
        if "data" not in kept:
            x, y, _ = _batches.pair((batches.x, batches.y), "train_batches", 1, classes)
            where = None if mesh is None else _mesh.replicated(mesh)
            kept["data"] = map_arrays(lambda a: jax.device_put(a, where), (x, y))
        yield from _resident(batches, k, steps, alone, kept["data"])
        return
    pairs = enumerate(_batches.pairs(batches, "train_batches", classes, steps), start=1)
    if k == 1:
        for number, (x, y, size) in pairs:
            yield Call(number, [size], None, [(x, y)])
        return
    waiting: list[tuple[Any, Any]] = []
    sizes: list[int] = []
    number, shape = 0, None
    for number, (x, y, size) in pairs:
        before, shape = shape, shapes((x, y))
        if waiting and shape != before:
            yield Call(number - len(sizes), sizes, None, waiting)
            waiting, sizes = [], []
        waiting.append((x, y))
        sizes.append(size)
        if len(sizes) == k or (alone and number == 1):
            yield Call(number + 1 - len(sizes), sizes, None, waiting)
            waiting, sizes = [], []
    if waiting:
        yield Call(number + 1 - len(sizes), sizes, None, waiting)


def _resident(
    batches: Batches, k: int, steps: int | None, alone: bool, data: Any
) -> Iterator[Call]:
    parts = [
        np.arange(*part.indices(batches.samples)) if isinstance(part, slice) else part
        for part in batches.begin()[0][:steps]
    ]
    full = [part for part in parts if len(part) == batches.batch_size]
    groups = [full[:1]] if alone and full else []
    groups += [full[i : i + k] for i in range(len(groups), len(full), k)]
    groups += [[part] for part in parts[len(full) :]]
    first = 1
    for group in groups:
        yield Call(first, [len(part) for part in group], data, np.stack(group))
        first += len(group)


def take(data: Any, rows: Any) -> Any:
    """Some samples of a pytree of arrays."""
    return jax.tree_util.tree_map(lambda array: array[rows], data)


def stack_trees(trees: Sequence[Any]) -> Any:
    """Pytrees of arrays as one, with a new axis in front; on the host unless they are on the device."""
    remote = isinstance(jax.tree_util.tree_leaves(trees[0])[0], jax.Array)
    stack = jnp.stack if remote else np.stack
    return jax.tree_util.tree_map(lambda *arrays: stack(arrays), *trees)


def shapes(batch: Any) -> Any:
    """What batches in one call have in common."""
    leaves, tree = jax.tree_util.tree_flatten(batch)
    return tree, [(leaf.shape, leaf.dtype) for leaf in leaves]


# --- the compiled call --------------------------------------------------------------------------


def run(
    call: Call, key: Any, *, algorithm: Any, augment: Augment | None, mesh: Mesh | None = None
) -> dict[str, Any]:
    """Take all steps of a call; what each returned, with a leading axis for the steps."""
    steps = call.steps if call.data is not None else stack_trees(call.steps)
    numbers = np.arange(call.first, call.first + len(call), dtype=np.int32)
    if mesh is not None:
        steps = _mesh.place_batch(mesh, steps, axis=1)
        algorithm.place()
    steps, numbers = _mesh.to_device((steps, numbers))
    many = _DONATE if getattr(algorithm, "donate", False) else _KEEP
    try:
        return many(call.data, steps, numbers, key, algorithm=algorithm, augment=augment)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        error.add_note(UNTRACEABLE.format(k=len(call), cls=type(algorithm).__name__))
        raise


def _many(
    data: Any, steps: Any, numbers: Any, key: Any, *, algorithm: Any, augment: Augment | None
) -> Any:
    def body(step: Any, *, algorithm: Any) -> Any:
        part, number = step
        x, y = part if data is None else take(data, part)
        if augment is not None:
            x = augment(jax.random.fold_in(key, number), x)
        return (), algorithm.train_step(x, y)

    return pxf.scan(body, (steps, numbers))(algorithm=algorithm)[1]


_KEEP = pxf.jit()(_many)
_DONATE = pxf.jit(donate_params=True)(_many)


def augmented(augment: Augment) -> Callable[[Any, Any, Any], Any]:
    """`augment` for one batch, from the epoch's key and the batch's number, compiled."""
    return jax.jit(lambda key, number, x: augment(jax.random.fold_in(key, number), x))


class Each(Mapping[str, Any]):
    """The results of one step of a call. Reading one takes it out of those of all steps."""

    def __init__(self, logs: Mapping[str, Any], index: int):
        self._logs, self._index = logs, index

    def __getitem__(self, name: str) -> Any:
        return self._logs[name][self._index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._logs)

    def __len__(self) -> int:
        return len(self._logs)


def usable(k: int, algorithm: Any) -> int:
    """`k`, or 1 with a warning where a loop would be slower."""
    if k > 1 and jax.default_backend() == "cpu" and _has_convolutions(algorithm.model):
        warnings.warn(CONVOLUTIONS.format(k=k), stacklevel=3)
        return 1
    return k


def _has_convolutions(model: Any) -> bool:
    # Found by the rank of the kernel, (out, in, height, width) or more, because a model may call
    # `jax.lax.conv` itself.
    return any(
        np.ndim(leaf) >= 4
        for _, param in named_params(model)
        for leaf in jax.tree_util.tree_leaves(param.get())
    )
