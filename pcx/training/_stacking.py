"""Algorithms side by side: what may differ between them, and their arrays with an axis for the members."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path, tree_unflatten

from ..core import RKG, RKG_LOCK, BaseParam, DynamicParam, describe, freeze, kwargs_path_str
from ..functional._tracked import Structure, collect
from ..utils._fingerprint import ByContent

OTHER_PROGRAM = """Population: the members of a group are one program and differ in numbers only, but
  {first}
  {other}
differ in
{differences}
{advice}"""

NAMED = (
    """What is no number belongs into a group of its own: `Population(..., structure={names})`."""
)
RATES = """ A rate inside an optax transformation is part of the program; give it as a number: \
`pxu.Optim(optax.adamw, learning_rate=lr)` in place of `optax.adamw(lr)`."""
BY_SEED = """These two differ in their seeds alone, so the seed decides the structure; let a setting decide \
it, and name that in `structure=`."""

SHARED = """Population: {first} and {other} share `{path}`. Make everything anew in each call of the \
function that makes a member."""


@contextlib.contextmanager
def own_key(key: Any) -> Iterator[None]:
    """The default generator continues from this key, and afterwards where it was."""
    with RKG_LOCK:
        before = RKG.key.get()
        RKG.key.set(key)
        try:
            yield
        finally:
            RKG.key.set(before)


class Stack:
    """The arrays of several algorithms that are one program.

    Args:
        algorithms: what the members train.
        names: what to call each in errors.
        settings: the settings of each.

    Attributes:
        algorithm: the first, with arrays in place of the Python floats in which the members differ.
        key: all of it that is not data.

    Raises:
        ValueError: they are several programs, or share a param.
    """

    def __init__(
        self, algorithms: Sequence[Any], names: Sequence[str], settings: Sequence[Mapping[str, Any]]
    ):
        flat = [_flat(algorithm) for algorithm in algorithms]
        numbers: set[int] = set()
        for i in range(1, len(algorithms)):
            differences = _differences(flat[0], flat[i], numbers)
            if differences:
                advice = _advice(differences, settings[0], settings[i])
                raise ValueError(
                    OTHER_PROGRAM.format(
                        first=names[0],
                        other=names[i],
                        differences="\n".join(differences[:6]),
                        advice=advice,
                    )
                )
        lifted = [_with_arrays(leaves, tree, numbers) for leaves, tree in flat]
        collected = [collect({"algorithm": algorithm}) for algorithm in lifted]
        self.algorithm: Any = lifted[0]
        self.structure = collected[0][0]
        self.key = _form(self.structure)
        self._params = [params for _, params, _ in collected]
        self._values = [values for _, _, values in collected]
        self._refuse_shared(names)

    def _refuse_shared(self, names: Sequence[str]) -> None:
        owner: dict[int, int] = {}
        for i, mine in enumerate(self._params):
            for index, param in enumerate(mine[1:], start=1):
                first = owner.setdefault(id(param), i)
                if first != i:
                    path = self.structure.name_of(index)
                    raise ValueError(SHARED.format(first=names[first], other=names[i], path=path))

    def stacked(self, keys: Sequence[Any]) -> list[jax.Array]:
        """All arrays, with an axis for the members in front; `keys` are the members' random keys."""
        rows = [[key, *values[1:]] for key, values in zip(keys, self._values, strict=True)]
        return [_stack(column) for column in zip(*rows, strict=True)]

    def write(self, stacked: Sequence[jax.Array]) -> list[Any]:
        """Write the arrays into the params of each member; returns the members' random keys."""
        columns = [_split(array) for array in stacked]
        keys = []
        for params, values in zip(self._params, zip(*columns, strict=True), strict=True):
            key, *mine = self.structure.split(values)
            keys.append(key[0])
            for param, spec, own in zip(params[1:], self.structure.specs[1:], mine, strict=True):
                if spec.size:
                    param.set(spec.join(own))
        return keys

    def names(self) -> list[str]:
        """A name for each array."""
        paths = [self.structure.name_of(i) for i in range(len(self.structure.specs))]
        own = self.structure.spread(paths)
        rest = [f"number {i}" for i in range(len(self._values[0]) - len(own))]
        return [f"{i}: {path}" for i, path in enumerate([*own, *rest])]


def _form(structure: Structure) -> Any:
    """All of a structure, comparable."""
    specs = [(s.cls, freeze(s.metadata), s.treedef, freeze(s.statics)) for s in structure.specs]
    return structure.treedef, structure.slots, specs, [freeze(x) for x in structure.statics]


def _is_param(node: Any) -> bool:
    return isinstance(node, BaseParam)


def _flat(algorithm: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Everything in an algorithm with its path, static params too."""
    leaves, tree = tree_flatten_with_path({"algorithm": algorithm}, is_leaf=_is_param)
    return [(kwargs_path_str(path), leaf) for path, leaf in leaves], tree


def _differences(first: Any, other: Any, numbers: set[int]) -> list[str]:
    """What makes two algorithms different programs; adds to `numbers` where floats differ."""
    (ours, tree), (theirs, their_tree) = first, other
    paths, their_paths = dict(ours), dict(theirs)
    found = [f"  {p}: only in the first" for p in paths if p not in their_paths]
    found += [f"  {p}: only in the second" for p in their_paths if p not in paths]
    if found:
        return found
    for index, ((path, a), (_, b)) in enumerate(zip(ours, theirs, strict=True)):
        if type(a) is float and type(b) is float:
            if a != b:
                numbers.add(index)
        elif not _alike(a, b):
            found.append(f"  {path}: {_show(a)}, and {_show(b)}")
    if not found and tree != their_tree:
        found = ["  what a layer or another module keeps as a static field"]
    return found


def _alike(a: Any, b: Any) -> bool:
    """Whether two values differ in arrays of one shape and type, or not at all."""
    if type(a) is not type(b):
        return False
    if isinstance(a, DynamicParam):
        return a.metadata == b.metadata and _same_form(a.get(), b.get())
    if isinstance(a, BaseParam):
        return _structure(a) == _structure(b) or ByContent(a.get()) == ByContent(b.get())
    if isinstance(a, jax.Array | np.ndarray):
        return _same_form(a, b)
    if bool(freeze(a) == freeze(b)) or (callable(a) and ByContent(a) == ByContent(b)):
        return True
    # an object of its own for each member, such as a log
    hashed: Any = type(a).__hash__
    by_identity = hashed is object.__hash__ and not callable(a) and hasattr(a, "__dict__")
    return by_identity and bool(freeze(vars(a)) == freeze(vars(b)))


def _same_form(a: Any, b: Any) -> bool:
    leaves, others = jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b)
    return _structure(a) == _structure(b) and all(
        jnp.shape(x) == jnp.shape(y) and jnp.result_type(x) == jnp.result_type(y)
        if isinstance(x, _DATA) and isinstance(y, _DATA)
        else _alike(x, y)
        for x, y in zip(leaves, others, strict=True)
    )


_DATA = jax.Array | np.ndarray | np.generic | bool | int | float | complex


def _structure(tree: Any) -> Any:
    return jax.tree_util.tree_structure(tree)


def _show(value: Any) -> str:
    text = describe(value.get() if isinstance(value, BaseParam) else value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _advice(differences: list[str], first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = tuple(
        name for name in first if first[name] is not other[name] and first[name] != other[name]
    )
    advice = NAMED.format(names=names) if names else BY_SEED
    return advice + RATES if any("_optim._given" in line for line in differences) else advice


def _with_arrays(leaves: Any, tree: Any, numbers: set[int]) -> Any:
    new = [jnp.asarray(x, float) if i in numbers else x for i, (_, x) in enumerate(leaves)]
    return tree_unflatten(tree, new)["algorithm"]


def _is_key(array: Any) -> bool:
    return isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def _stack(column: Sequence[Any]) -> jax.Array:
    # on the host, because each shape would compile a program of its own; copied, because the steps
    # reuse the memory
    return jnp.stack(column) if _is_key(column[0]) else jnp.array(np.stack(jax.device_get(column)))


def _split(array: jax.Array) -> list[Any]:
    return list(array) if _is_key(array) else [jnp.array(row) for row in jax.device_get(array)]
