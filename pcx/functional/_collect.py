"""Taking the keyword arguments of a call apart: the library's cost per call."""

from operator import is_
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import jax
from jax.tree_util import tree_flatten

from .. import core
from ..core import RKG, BaseModule, DynamicParam
from ._leaves import LEAF, all_dynamic, is_array, is_dynamic, is_param
from ._walk import Unrememberable, Walk

ARRAY = -1  # slot of a plain array: data, but changes to it do not reach the caller
STATIC = -2  # slot of any other leaf

_NOTHING = jax.tree_util.tree_structure(None)


class Key:
    """Everything about keyword arguments that is not data; hashed once."""

    __slots__ = ("__weakref__", "_hash", "form")

    def __init__(self, treedef: Any, slots: list[int], forms: list[Any], statics: list[Any]):
        self.form = treedef, tuple(slots), tuple(forms), tuple(map(core.freeze, statics))
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.form)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Key) and self.form == other.form)


_KEYS: WeakKeyDictionary[Key, ref[Key]] = WeakKeyDictionary()


def _one_of(key: Key) -> Key:
    """The same object for all equal keys, so that later comparisons look at identity only."""
    try:
        known = _KEYS.setdefault(key, ref(key))()
    except (TypeError, ValueError):
        return key  # not comparable: the transform says why
    return key if known is None else known


class Parts(NamedTuple):
    """The keyword arguments of one call."""

    key: Key  # one object for all calls of equal form
    treedef: Any  # the caller's own, which holds the caller's own static values
    params: list[Any]  # the caller's own objects; number 0 is the default random key
    values: list[Any]  # flat arrays of all params
    arrays: list[Any]  # the plain arrays
    statics: list[Any]  # the other leaves
    versions: dict[int, Any]  # what `Jit`s found for these keyword arguments, by their number


def walk(kwargs: dict[str, Any]) -> Parts:
    """Visit every object below the keyword arguments, once."""
    leaves, treedef = tree_flatten(kwargs, is_param)
    default = RKG.key
    params: list[Any] = [default]
    values: list[Any] = [default._value]
    forms: list[Any] = []
    slots: list[int] = []
    arrays: list[Any] = []
    statics: list[Any] = []
    index = {id(default): 0}
    for leaf in leaves:
        if isinstance(leaf, DynamicParam):
            slot = index.get(id(leaf))
            if slot is None:
                slot = index[id(leaf)] = len(params)
                params.append(leaf)
                value = leaf._value
                if is_array(value) and not leaf.__dict__:
                    values.append(value)
                    forms.append(type(leaf))  # the usual case, kept small
                else:
                    forms.append(_form(leaf, value, values))
            slots.append(slot)
        elif is_array(leaf):
            arrays.append(leaf)
            slots.append(ARRAY)
        else:
            statics.append(leaf)
            slots.append(STATIC)
    return Parts(Key(treedef, slots, forms, statics), treedef, params, values, arrays, statics, {})


def _form(param: DynamicParam, value: Any, values: list[Any]) -> tuple[Any, ...]:
    """What a param is apart from its arrays, comparable; the arrays are appended to `values`."""
    own = param.__dict__
    metadata = tuple([(k, core.freeze(own[k])) for k in sorted(own)]) if own else ()
    if value is None:
        return (type(param), metadata, _NOTHING, ())
    if is_array(value):
        values.append(value)
        return (type(param), metadata, LEAF, ())
    leaves, treedef = tree_flatten(value)
    statics = []
    for leaf in leaves:
        if is_dynamic(leaf):
            values.append(leaf)
        else:
            statics.append(core.freeze(leaf))
    return (type(param), metadata, treedef, tuple(statics))


# training, evaluation and inference each have their own form of the same objects
MAX_MEMORIES = 4
# a graph that changes at every call is not worth remembering
_MAX_MISSES = 20


def take_apart(kwargs: dict[str, Any]) -> Parts:
    """`walk`, or what the last walk found, if no object has changed since.

    Inside a transform nothing is remembered: its objects are rebuilt at each trace.
    """
    root = next((x for x in kwargs.values() if isinstance(x, BaseModule)), None)
    if root is None or core.scope_state.scope is not None:
        return walk(kwargs)
    memories: _Memories | None = getattr(root, "_walk", None)
    if memories is None:
        memories = _Memories()
        object.__setattr__(root, "_walk", memories)
    if memories.misses > _MAX_MISSES:
        return walk(kwargs)
    for memory in memories:
        found = memory.revisit(kwargs, root)
        if found is not None:
            memories.misses = 0
            return found
    memories.misses += 1
    found = walk(kwargs)
    try:
        found = found._replace(key=_one_of(found.key))
        memories[:] = [_Memory(kwargs, found, root), *memories[: MAX_MEMORIES - 1]]
    except Unrememberable:
        memories.misses = _MAX_MISSES + 1
    return found


class _Memories(list["_Memory"]):
    """The remembered walks that began at one object, newest first."""

    misses = 0  # in a row


class _Memory:
    """A remembered walk, kept in a slot of the first module among the keyword arguments.

    It does not hold this module itself, which then needs no garbage collector to be freed.
    """

    __slots__ = ("_found", "_names", "_objects", "_trees", "_types", "_walk")

    def __init__(self, kwargs: dict[str, Any], found: Parts, root: BaseModule):
        self._names = (*kwargs,)
        self._objects = self._without(root, kwargs)
        self._walk = Walk(kwargs, found.params[1:], root)
        values = [param._value for param in found.params]
        self._types = list(map(type, values))
        # params whose values are neither arrays nor empty, which may change inside
        self._trees = {
            i: tree_flatten(value)[1]
            for i, value in enumerate(values)
            if value is not None and not is_array(value)
        }
        for i in self._trees:
            if not all_dynamic(tree_flatten(values[i])[0]):
                raise Unrememberable
        self._found = found._replace(values=[])

    @staticmethod
    def _without(root: BaseModule, kwargs: dict[str, Any]) -> list[Any]:
        return [type(root) if x is root else x for x in kwargs.values()]

    def revisit(self, kwargs: dict[str, Any], root: BaseModule) -> Parts | None:
        """The present arrays in the remembered form; None if anything but arrays has changed."""
        key, treedef, params, _, arrays, statics, versions = self._found
        if (
            self._names != (*kwargs,)
            or not all(map(is_, self._without(root, kwargs), self._objects))
            or params[0] is not RKG.key
            or not self._walk.fits()
        ):
            return None
        current = [param._value for param in params]
        if list(map(type, current)) != self._types:
            return None
        if not self._trees:
            values = [value for value in current if value is not None]
            return Parts(key, treedef, params, values, arrays, statics, versions)
        values = []
        for index, value in enumerate(current):
            form = self._trees.get(index)
            if form is not None:
                leaves, present = tree_flatten(value)
                if present != form or not all_dynamic(leaves):
                    return None
                values += leaves
            elif value is not None:
                values.append(value)
        return Parts(key, treedef, params, values, arrays, statics, versions)
