"""Why a function was compiled again: the key of the call beside the nearest one known.

`Jit` asks while it is traced, which is when JAX compiles; a call of what is compiled never comes here.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

from ..core import BaseModule, StaticParam, describe, kwargs_path_str
from ._collect import ARRAY, STATIC, Key, Parts
from ._leaves import LEAF, is_dynamic
from ._version import Version

LOG = logging.getLogger("pcx")
AGAIN = "pcx: {title} compiles again:\n{changes}"
NOTHING = """  no structure, static value, shape or dtype of its arguments changed. It may be a setting of \
JAX (precision, 64 bits), a device, or a call inside another transform: see \
`jax.config.update("jax_explain_cache_misses", True)`"""

# more lines than this are not read
MOST = 8

_settings = {"on": os.environ.get("PCX_EXPLAIN_RECOMPILES", "0") not in ("", "0")}
# shapes and types of the arguments of each trace
_traced: WeakKeyDictionary[Version, list[Any]] = WeakKeyDictionary()


def explain_recompiles(on: bool = True) -> None:
    """Log why `pxf.jit` and the methods of algorithms compile again, from now on.

    For each compilation after the first of a function, the logger "pcx" warns (on the terminal,
    unless logging is set up otherwise) which attribute, metadata, param, shape or type differs from
    the nearest earlier call, by its path. Compiled functions run as fast as without. The
    environment variable `PCX_EXPLAIN_RECOMPILES=1` turns it on for a whole program.

    Args:
        on: False to turn it off.

    Example:
        >>> import jax.numpy as jnp, pcx.functional as pxf, pcx.models as pxm
        >>> pxf.explain_recompiles()
        >>> forward = pxf.jit()(lambda x, *, model: model.layers[0](x))
        >>> model = pxm.MLP([4, 2])
        >>> y = forward(jnp.ones(4), model=model)
        >>> model.layers[0].nn.bias.frozen = True
        >>> y = forward(
        ...     jnp.ones(4), model=model
        ... )  # logs: `model.layers[0].nn.bias.frozen` is new: True
        >>> pxf.explain_recompiles(False)
    """
    _settings["on"] = on


# what is somewhere in the arguments: to compare, and to print
Entries = dict[str, tuple[Any, str]]


def explain(
    title: str, version: Version, parts: Parts, known: Mapping[Key, Version], values: Any, args: Any
) -> None:
    """Say what a trace is for, if there were others.

    Args:
        title: of the function.
        version, parts: of the call that is traced.
        known: all versions by their keys.
        values: of its params and plain arrays, and args: the positional arguments; traced.
    """
    if not _settings["on"]:
        return
    now, earlier = _signature(parts, values, args), _traced.setdefault(version, [])
    before: list[Entries] = []
    after = now
    if not earlier:
        before = [_entries(key) for key, other in list(known.items()) if other is not version]
        after = _entries(parts.key, parts.statics)
    elif version.used:  # else the first call is tried again
        before = [*earlier]
    earlier.append(now)
    if before:
        changes = min((_changes(old, after) for old in before), key=len) or [NOTHING]
        if (rest := len(changes) - MOST) > 0:
            changes = [*changes[:MOST], f"  and {rest} more"]
        LOG.warning(AGAIN.format(title=title, changes="\n".join(changes)))


def _changes(old: Entries, new: Entries) -> list[str]:
    out = []
    for path in dict.fromkeys([*new, *old]):
        if path not in old:
            out.append(f"  `{path}` is new: {new[path][1]}")
        elif path not in new:
            out.append(f"  `{path}` is gone; it was {old[path][1]}")
        elif old[path][0] != new[path][0]:
            was, now = old[path][1], new[path][1]
            both = f"was {was}, now {now}" if was != now else f"is another {now}"
            out.append(f"  `{path}` {both}")
    return out


def _entries(key: Key, values: Sequence[Any] | None = None) -> Entries:
    """Everything about keyword arguments that is not data, by path.

    Args:
        values: the static leaves themselves, where they are known; the key has stand-ins.
    """
    treedef, slots, forms, statics = key.form
    number_of, static = iter(slots), iter(zip(statics, values or statics, strict=True))
    first: dict[int, str] = {}
    out: Entries = {}
    for path, entry in _nodes(treedef):
        if entry is not None:
            out[path] = entry
            continue
        number = next(number_of)
        if number == STATIC:
            frozen, value = next(static)
            out[path] = frozen, _show(value)
        elif number == ARRAY or number == 0:
            text = "the default random key" if number == 0 else "an array"
            out[path] = number, text
        elif number in first:
            out[path] = first[number], f"the same param as `{first[number]}`"
        else:
            first[number] = path
            out |= _param(path, forms[number - 1])
    return out


def _param(path: str, form: Any) -> Entries:
    cls, metadata, treedef, statics = form if isinstance(form, tuple) else (form, (), LEAF, ())
    empty = treedef.num_leaves == 0
    out: Entries = {path: ((cls, empty), f"{cls.__name__}({'None' if empty else '...'})")}
    out |= {f"{path}.{name}": (value, _show(value)) for name, value in metadata}
    if treedef is not LEAF and not empty:
        out[f"{path}.get()"] = (treedef, statics), "structure of its value"
    return out


def _nodes(treedef: Any) -> Iterator[tuple[str, tuple[Any, str] | None]]:
    """`(path, what is there)` of every node in the order of the leaves, for which it is None."""
    leaves = tree_unflatten(treedef, [_Leaf()] * treedef.num_leaves)
    paths = iter([kwargs_path_str(path) for path, _ in tree_flatten_with_path(leaves)[0]])

    def below(treedef: Any, path: str) -> Iterator[tuple[str, tuple[Any, str] | None]]:
        data = treedef.node_data()
        if data is None:
            yield next(paths), None
            return
        cls, aux = data
        if issubclass(cls, StaticParam):
            yield path, (aux, _show(aux[0].value))
            return
        children = treedef.children()
        if path:
            yield (
                path,
                (cls if children else (cls, aux), "None" if cls is type(None) else cls.__name__),
            )
        names = aux if isinstance(aux, list | tuple) and len(aux) == len(children) else None
        for index, child in enumerate(children):
            step = f"[{index}]" if names is None else f"[{names[index]!r}]"
            if names is not None and issubclass(cls, BaseModule):
                step = f".{names[index]}"
            yield from below(child, path + step if path else str(names[index] if names else index))

    return below(treedef, "")


class _Leaf:
    """What stands for a leaf where only its path is asked for."""


def _signature(parts: Parts, values: Sequence[Any], args: Any) -> Entries:
    """Shapes and types of all arrays, and the static positional arguments."""
    leaves = [path for path, entry in _nodes(parts.key.form[0]) if entry is None]
    names = {0: "px.RKG.key"}
    plain = []
    for path, number in zip(leaves, parts.key.form[1], strict=True):
        if number == ARRAY:
            plain.append(path)
        else:
            names.setdefault(number, path)
    labels = []
    for number, param in enumerate(parts.params):
        inner = tree_flatten_with_path(param._value)[0]
        labels += [names[number] + keystr(keys) for keys, leaf in inner if is_dynamic(leaf)]
    found = [*zip([*labels, *plain], values, strict=True)]
    for number, arg in enumerate(args):
        found += [(f"argument {number}{keystr(k)}", a) for k, a in tree_flatten_with_path(arg)[0]]
    out: Entries = {}
    for name, value in found:
        weak = " (weakly typed)" if getattr(value, "weak_type", False) else ""
        text = describe(value) + weak if hasattr(value, "dtype") else _show(value)
        out[name] = text, text
    return out


def _show(value: Any) -> str:
    """A static value, or its stand-in in a key."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] in (bool, int, float):
        kind, content = value  # as `freeze` writes numbers
        content = content[1] if isinstance(content, tuple) else content
        return repr(float.fromhex(content) if kind is float else content)
    if isinstance(value, str | bool | int | float | complex | None):
        return repr(value)
    name = getattr(value, "__qualname__", None)
    return f"`{name}`" if name else type(value).__name__
