"""THE tracking protocol: how mutable params go through a pure JAX transform and back.

Every transform does the same four things:

1. `collect(kwargs)` walks the keyword arguments once. It gives a `Structure` (hashable, static), the
   caller's own `Param` objects, each once however often it is reached, and their arrays, flat.
2. Inside the transform `structure.run(...)` rebuilds fresh copies from the (traced) arrays, runs the
   user's function on them in a new scope, and reads back which params changed.
3. The changes leave the transform as an ordinary pytree: one entry per param, `()` if untouched.
4. `write_back` stores them in the caller's own params.

A param that the body writes before it reads does not influence the result, not even by being empty: so
`jit` leaves its old value out of the call, and a vode that gets its first array inside a jitted step does
not make it compile again.

The key of the default random key generator is always param number 0, so it travels the same way.
Positional arguments are rebuilt too, but never read back: what a function does to them stays inside.
"""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_unflatten

from .. import core
from ..core import RKG, BaseModule, DynamicParam
from ._walk import Unrememberable, Walk

_ARRAY = -1  # slot of a plain array: data, but changes to it are not carried out
_STATIC = -2  # slot of any other leaf
LEAF = jax.tree_util.tree_structure(0)

Updates = tuple[Any, ...]


_SCALARS = (np.generic, bool, int, float, complex)


def is_dynamic(leaf: Any) -> bool:
    """Whether a leaf is data for JAX rather than part of the structure."""
    return (_KINDS.get(type(leaf)) or _learn_kind(leaf)) == _ARRAY_KIND or isinstance(leaf, _SCALARS)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


_is_param: Callable[[Any], bool] = DynamicParam.__instancecheck__


class ParamSpec(NamedTuple):
    """What a param is, apart from its arrays."""

    cls: type[DynamicParam]
    metadata: tuple[tuple[str, Any], ...]
    treedef: Any  # `LEAF`: the value is one plain array
    statics: Any  # None, or the positions and values of leaves that are not data
    size: int  # number of arrays


class Structure:
    """Everything about the keyword arguments that is not an array; hashable."""

    __slots__ = ("_hash", "_key", "size", "slots", "specs", "statics", "treedef")

    def __init__(self, treedef: Any, slots: Any, specs: Any, statics: Any, size: int):
        self.size = size  # number of arrays in params; plain arrays follow them
        self.treedef = treedef
        self.slots: tuple[int, ...] = slots
        self.specs: tuple[Any, ...] = specs
        self.statics: tuple[Any, ...] = statics
        self._key = (treedef, slots, specs, tuple([core.freeze(s) for s in statics]))
        try:
            self._hash = hash(self._key)
        except TypeError:
            # unhashable metadata on a param
            self._key = (treedef, slots, core.freeze(specs), self._key[3])
            self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Structure) and self._key == other._key)

    def rebuild(self, values: Sequence[Any]) -> tuple[dict[str, Any], list[DynamicParam]]:
        """Fresh keyword arguments from flat arrays, and their params in order."""
        params, position = [], 0
        for spec in self.specs:
            if type(spec) is not ParamSpec:
                params.append(spec.rebuild(values[position]))
                position += 1
            else:
                value = _join(spec, values[position : position + spec.size])
                params.append(spec.cls.rebuild(value, spec.metadata))
                position += spec.size
        arrays, statics = iter(values[position:]), iter(self.statics)
        leaves = [
            params[s] if s >= 0 else next(arrays) if s == _ARRAY else next(statics)
            for s in self.slots
        ]
        return tree_unflatten(self.treedef, leaves), params

    def run(
        self,
        name: str,
        body: Callable[..., Any],
        values: Sequence[Any],
        args: tuple[Any, ...],
        full: bool = False,
        firsts: "Callable[[list[str | None]], Any] | None" = None,
    ) -> tuple[Any, Updates]:
        """Run `body(*args, **kwargs)` on rebuilt kwargs; its result, and what changed in the params.

        Args:
            name: shown in error messages.
            full: report every param as changed (loops need the same output each time).
            firsts: told what happened first to each param, "read", "write" or None.
        """
        with core.enter(name):
            kwargs, params = self.rebuild(values)
            before = [param._value for param in params]
            args = tree_unflatten(*reversed(tree_flatten(args)))
            generator = vars(RKG)
            outer_key = generator["key"]
            generator["key"] = params[0]
            try:
                result = body(*args, **kwargs)
            finally:
                generator["key"] = outer_key
            if firsts is not None:
                firsts([param._first for param in params])
        updates = tuple(
            (_pack(p._value),) if full or not _same(p._value, old) else ()
            for p, old in zip(params, before, strict=True)
        )
        return result, updates

    def size_of(self, index: int) -> int:
        """Number of arrays in a param."""
        spec = self.specs[index]
        return spec.size if type(spec) is ParamSpec else 1

    def differing_params(self, other: "Structure") -> frozenset[int] | None:
        """The params whose values have another form in `other`; None if anything else differs."""
        if self._key[0] != other._key[0] or self.slots != other.slots or self._key[3] != other._key[3]:
            return None
        differing = set()
        for index, (a, b) in enumerate(zip(self.specs, other.specs, strict=True)):
            if (type(a) is not type(b)) or a != b:
                if _kind(a) != _kind(b):
                    return None
                differing.add(index)
        return frozenset(differing)

    def name_of(self, index: int) -> str:
        """Path of a param, for error messages."""
        if index == 0:
            return "px.RKG.key"
        leaves = [_Name(s) for s in self.slots]
        tree = tree_unflatten(self.treedef, leaves)
        for path, leaf in jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=lambda x: isinstance(x, _Name)
        )[0]:
            if isinstance(leaf, _Name) and leaf.slot == index:
                return core.kwargs_path_str(path)
        return f"param {index}"


def _kind(spec: Any) -> Any:
    return (spec.cls, spec.metadata) if type(spec) is ParamSpec else (spec, ())


class _Name:
    def __init__(self, slot: int):
        self.slot = slot


class Collected(NamedTuple):
    """The keyword arguments of one call, taken apart."""

    structure: Structure
    params: list[Any]  # the caller's own objects; number 0 is the default random key
    values: tuple[Any, ...]  # flat arrays of all params, then the plain arrays


def collect(kwargs: dict[str, Any]) -> Collected:
    """Take the keyword arguments apart, in one walk, or in none if nothing changed since the last.

    This is the library's cost per call.
    """
    root = next((x for x in kwargs.values() if isinstance(x, BaseModule)), None)
    if root is None or core.scope_state.scope is not None:
        return _walk(kwargs)
    memories: _Memories | None = getattr(root, "_walk", None)
    if memories is None:
        memories = _Memories()
        object.__setattr__(root, "_walk", memories)
    if memories.misses > _MAX_MISSES:
        return _walk(kwargs)
    for memory in memories:
        if memory.fits(kwargs) and (found := memory.revisit()) is not None:
            memories.misses = 0
            return found
    memories.misses += 1
    found = _walk(kwargs)
    try:
        memories[:] = [_Memory(kwargs, found), *memories[: _MAX_MEMORIES - 1]]
    except Unrememberable:
        memories.misses = _MAX_MISSES + 1
    return found


# training, evaluation and inference each have their own form of the same objects
_MAX_MEMORIES = 4
# a graph that changes at every call is not worth remembering
_MAX_MISSES = 20


class _Memories(list["_Memory"]):
    """The remembered walks that began at one object, newest first."""

    misses = 0  # in a row


class _Memory:
    """A remembered walk, kept in a slot of the first module among the keyword arguments."""

    __slots__ = ("found", "kinds", "names", "objects", "types", "walk")

    def __init__(self, kwargs: dict[str, Any], found: Collected):
        self.names, self.objects = (*kwargs,), [*kwargs.values()]
        self.walk = Walk(kwargs, found.params[1:])
        self.found = found._replace(values=found.values[found.structure.size :])
        self.types = [type(p._value) for p in found.params]
        self.kinds = [
            None if p._value is None else LEAF if type(spec) is not ParamSpec else spec.treedef
            for p, spec in zip(found.params, found.structure.specs, strict=True)
        ]

    def fits(self, kwargs: dict[str, Any]) -> bool:
        """Whether these are the same objects, with the same objects below them."""
        return (
            self.names == (*kwargs,)
            and all(map(is_, kwargs.values(), self.objects))
            and self.walk.fits()
        )

    def revisit(self) -> Collected | None:
        """The present arrays in the remembered structure; None if a value or attribute has another form."""
        structure, params, plain = self.found
        if params[0] is not RKG.key:
            return None
        current = [p._value for p in params]
        if list(map(type, current)) != self.types or not self.walk.same_metadata(params[1:]):
            return None
        values: list[Any] = []
        for value, kind, spec in zip(current, self.kinds, structure.specs, strict=True):
            if kind is LEAF:
                values.append(value)
            elif kind is not None:
                leaves, treedef = tree_flatten(value)
                if treedef != kind or spec.statics or len(leaves) != spec.size:
                    return None
                values += leaves
        return Collected(structure, params, (*values, *plain))


def _walk(kwargs: dict[str, Any]) -> Collected:
    """Visit every object below the keyword arguments."""
    # a bound method of `type`, called without a Python frame for every node of the graph
    leaves, treedef = tree_flatten(kwargs, is_leaf=_is_param)
    key = RKG.key
    params: list[Any] = [key]
    values: list[Any] = [key._value]
    arrays: list[Any] = []
    specs: list[Any] = [type(key)]
    statics: list[Any] = []
    slots: list[int] = []
    index: dict[int, int] = {id(key): 0}
    kinds = _KINDS
    for leaf in leaves:
        cls = type(leaf)
        kind = kinds.get(cls) or _learn_kind(leaf)
        if kind == _PARAM_KIND:
            slot = index.get(id(leaf))
            if slot is None:
                slot = index[id(leaf)] = len(params)
                params.append(leaf)
                value = leaf._value
                if leaf.__dict__:
                    specs.append(_split(leaf, value, values))
                elif value is None:
                    specs.append(_EMPTY_SPECS.get(cls) or _split(leaf, None, values))
                elif (kinds.get(type(value)) or _learn_kind(value)) == _ARRAY_KIND:
                    values.append(value)
                    specs.append(cls)  # the common case, kept small
                else:
                    specs.append(_split(leaf, value, values))
            slots.append(slot)
        elif kind == _ARRAY_KIND:
            arrays.append(leaf)
            slots.append(_ARRAY)
        else:
            statics.append(leaf)
            slots.append(_STATIC)
    structure = Structure(treedef, tuple(slots), tuple(specs), tuple(statics), len(values))
    return Collected(structure, params, (*values, *arrays))


# what the leaves of each type are, learned as they are met: `isinstance` is slow for `jax.Array`
_PARAM_KIND, _ARRAY_KIND, _STATIC_KIND = 1, 2, 3
_KINDS: dict[type, int] = {}
_EMPTY_SPECS: dict[type, ParamSpec] = {}


def _learn_kind(leaf: Any) -> int:
    kind = _PARAM_KIND if _is_param(leaf) else _ARRAY_KIND if _is_array(leaf) else _STATIC_KIND
    _KINDS[type(leaf)] = kind
    return kind


def _split(param: DynamicParam, value: Any, values: list[Any]) -> ParamSpec:
    """Append the arrays of a param's value to `values`; return the rest."""
    cls, metadata = type(param), param.metadata
    if _is_array(value):
        values.append(value)
        return ParamSpec(cls, metadata, LEAF, None, 1)
    leaves, treedef = tree_flatten(value)
    data = [leaf for leaf in leaves if is_dynamic(leaf)]
    values.extend(data)
    statics = None
    if len(data) != len(leaves):
        statics = tuple(
            (i, core.static(leaf)) for i, leaf in enumerate(leaves) if not is_dynamic(leaf)
        )
    spec = ParamSpec(cls, metadata, treedef, statics, len(data))
    if value is None and not metadata:
        _EMPTY_SPECS[cls] = spec
    return spec


def _join(spec: ParamSpec, values: Sequence[Any]) -> Any:
    if spec.treedef is LEAF:
        return values[0]
    leaves = list(values)
    for position, leaf in spec.statics or ():
        leaves.insert(position, leaf.get())
    return tree_unflatten(spec.treedef, leaves)


def _same(new: Any, old: Any) -> bool:
    if new is old:
        # a container may have been edited in place, which identity does not show
        return _is_array(new) or new is None or not _mutable(new)
    if _is_array(new) or _is_array(old):
        return False
    (a, def_a), (b, def_b) = tree_flatten(new), tree_flatten(old)
    return def_a == def_b and all(x is y for x, y in zip(a, b, strict=True))


def _mutable(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


class _Packed:
    """A value with leaves that are not data, on its way out of a transform."""

    def __init__(self, spec: ParamSpec, values: Sequence[Any]):
        self.spec, self.values = spec, values


jax.tree_util.register_pytree_node(
    _Packed, lambda p: (p.values, p.spec), lambda spec, values: _Packed(spec, values)
)


def _pack(value: Any) -> Any:
    if _is_array(value):
        return value
    values: list[Any] = []
    spec = _split(DynamicParam.rebuild(value), value, values)
    return _Packed(spec, values) if spec.statics else value


def unpack(value: Any) -> Any:
    """The inverse of the packing that `Structure.run` does to each changed value."""
    return _join(value.spec, value.values) if type(value) is _Packed else value


def note_firsts(params: Sequence[Any]) -> Callable[[list[str | None]], None]:
    """For `Structure.run`: what a body did first to its copies is what happened to the originals."""

    def note(firsts: list[str | None]) -> None:
        for param, first in zip(params, firsts, strict=True):
            if param._first is None:
                param._first = first

    return note


def note_reads(params: Sequence[Any]) -> None:
    """Count `params` as read: a transform's result depends on what they hold."""
    for param in params:
        if param._first is None:
            param._first = "read"


def write_back(params: Sequence[Any], updates: Updates) -> None:
    """Store what a transform changed in the caller's own params: all of it, or nothing."""
    scope = core.scope_state.scope
    if scope is not None:
        # an inner transform may have been handed objects that the outer one does not track
        for param, update in zip(params, updates, strict=True):
            if update and param._scope is not scope:
                core.check_write(param._scope, update[0], param)
    for param, update in zip(params, updates, strict=True):
        if update:
            value = update[0]
            param._value = _join(value.spec, value.values) if type(value) is _Packed else value
