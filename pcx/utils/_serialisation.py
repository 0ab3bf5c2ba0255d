"""`save_params` and `load_params`: the weights of a model in an `.npz` file."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

from ..core import Mask, named_params
from ..nn import BufferParam, LayerParam
from ._files import decode, encode, read_arrays, with_suffix, write_arrays

_MANIFEST = "__pcx__"
_FORMAT = 1
_WEIGHTS = Mask(LayerParam | BufferParam)

NOTHING = """{what}: the filter {mask!r} selects no param with a value in this {cls}. Select what \
the model has, as in `filter=pxnn.LayerParam | pxnn.StateParam`."""

RESERVED = """save_params: a param at the path `{name}` cannot be saved, because the file has its \
list of params under this name. Give the attribute another name."""

NOT_OURS = """load_params: {path} was not written by pxu.save_params{why}."""

MISFIT = """load_params: {path} does not fit this {cls}; nothing was loaded.
  {problems}
{advice}"""

ADVICE = """Build the model with the arguments it was saved with and use the same filter, or load \
what fits with `strict=False`, which returns a report of the rest."""

ELSEWHERE = """The file has all of them below {places}: if it is a file of a whole model and this \
is a part of it, write `pxu.load_params(part, path, prefix={example!r})`."""

BELOW = """All that the file has fits `{place}` of this model: if it is a file of that part, write \
`pxu.load_params(model.{place}, path)`."""

NO_PREFIX = """load_params: {path} has nothing below `{prefix}`; it has {names}."""


class LoadReport(NamedTuple):
    """What `load_params` did, by path. A param that holds several arrays has a path for each.

    Attributes:
        loaded: what the model now has from the file.
        missing: selected in the model but not in the file; left as it was.
        left_over: in the file but not in the model.
        mismatched: in both, with other shapes or dtypes, which the values say; left as it was.

    Example:
        >>> import os, tempfile, pcx.nn as pxnn, pcx.utils as pxu
        >>> file = os.path.join(tempfile.mkdtemp(), "linear.npz")
        >>> pxu.save_params(pxnn.Linear(2, 3, bias=False), file)
        >>> pxu.load_params(pxnn.Linear(2, 3), file, strict=False).missing
        ('nn.bias',)
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    mismatched: dict[str, str]


def save_params(model: Any, path: str | os.PathLike[str], filter: Any = _WEIGHTS) -> None:
    """Save the params that the filter selects.

    A shared param is saved once, under its first path. The file appears under its name only when it
    is complete.

    Args:
        model: any tree of params.
        path: file name; `.npz` is added if missing.
        filter: a param type, union, callable or mask; by default the weights and the buffers of
            layers, `pxnn.LayerParam | pxnn.BufferParam`. With `| pxnn.StateParam` the running
            statistics of batch normalisation are saved too.

    Raises:
        ValueError: the filter selects nothing, or a param has the path `__pcx__`.

    Example:
        >>> import os, tempfile, pcx.nn as pxnn, pcx.utils as pxu
        >>> a, b = pxnn.Linear(2, 2), pxnn.Linear(2, 2)
        >>> file = os.path.join(tempfile.mkdtemp(), "linear.npz")
        >>> pxu.save_params(a, file)
        >>> pxu.load_params(b, file).loaded
        ('nn.weight', 'nn.bias')
        >>> bool((a.nn.weight == b.nn.weight).all())
        True
    """
    leaves = _leaves(model, filter, "save_params")
    if _MANIFEST in leaves:
        raise ValueError(RESERVED.format(name=_MANIFEST))
    entries, arrays = {}, {}
    for name, leaf in leaves.items():
        arrays[name], kind = encode(leaf)
        entries[name] = [kind or str(arrays[name].dtype), list(np.shape(leaf))]
    manifest = json.dumps({"format": _FORMAT, "entries": entries})
    write_arrays(with_suffix(path), {_MANIFEST: np.asarray(manifest), **arrays})


def load_params(
    model: Any,
    path: str | os.PathLike[str],
    filter: Any = _WEIGHTS,
    *,
    strict: bool = True,
    prefix: str | None = None,
) -> LoadReport:
    """Load params that `save_params` wrote, here or in PCX.

    Args:
        model: the tree to load into; params that are shared stay shared.
        path: file name; `.npz` is added if missing.
        filter: which params of the model to load; what the file has for others is ignored. By
            default the weights and buffers of layers, and the file may have nothing else.
        strict: refuse a file that does not fit as a whole. Otherwise load what fits.
        prefix: load only what the file has below this path, into a part of a model:
            `load_params(model.encoder, path, prefix="encoder")`. The part may be a list of fewer
            layers: `load_params(model.layers[:-1], path, prefix="layers")`.

    Returns:
        What was loaded and what was not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: entries are missing, left over, or of another shape or dtype; the message names
            them, and nothing is changed. With `strict=False`: nothing fits.

    Example:
        >>> import os, tempfile, pcx.models as pxm, pcx.utils as pxu
        >>> file = os.path.join(tempfile.mkdtemp(), "mlp.npz")
        >>> pxu.save_params(pxm.MLP([4, 8, 3]), file)
        >>> other_head = pxm.MLP([4, 8, 5])
        >>> report = pxu.load_params(other_head, file, strict=False)
        >>> report.loaded
        ('layers[0].nn.weight', 'layers[0].nn.bias')
        >>> report.mismatched["layers[1].nn.bias"]
        'float32[3] in the file and float32[5] in the model'
    """
    source = with_suffix(path)
    every_name = _leaves(model, None, "load_params")
    expected = _leaves(model, filter, "load_params")
    stored = _below(_read(source, every_name), prefix, source)
    report = _compare(expected, stored, set() if filter is _WEIGHTS else set(every_name))
    if prefix is not None and isinstance(model, list | tuple | dict):
        # a part of a list: what the file has for its other elements belongs to other parts
        ours = {_tokens(name)[0] for name in every_name}
        theirs = tuple(name for name in report.left_over if _tokens(name)[0] in ours)
        report = report._replace(left_over=theirs)
    if (strict and any(report[1:])) or not report.loaded:
        raise ValueError(
            MISFIT.format(
                path=source,
                cls=type(model).__name__,
                problems="\n  ".join(_problems(report)),
                advice=_advice(expected, stored, every_name),
            )
        )
    _write(model, filter, {name: stored[name] for name in report.loaded})
    return report


def _leaves(model: Any, filter: Any, what: str) -> dict[str, Any]:
    """Every array in the selected params, by path, shared params once."""
    mask = Mask(filter)
    leaves = {
        _name(path, inner): leaf
        for path, param in named_params(model)
        if mask.select(param)
        for inner, leaf in tree_flatten_with_path(param._value)[0]
        if _is_data(leaf)
    }
    if not leaves:
        raise ValueError(NOTHING.format(what=what, mask=mask, cls=type(model).__name__))
    return leaves


def _write(model: Any, filter: Any, new: dict[str, Any]) -> None:
    mask = Mask(filter)
    for path, param in named_params(model):
        if mask.select(param):
            leaves, treedef = tree_flatten_with_path(param._value)
            names = [_name(path, inner) for inner, _ in leaves]
            if not new.keys().isdisjoint(names):
                values = [
                    _like(leaf, new[name]) if name in new else leaf
                    for name, (_, leaf) in zip(names, leaves, strict=True)
                ]
                param.set(tree_unflatten(treedef, values))


def _read(source: Path, names: dict[str, Any]) -> dict[str, Any]:
    """What the file holds, by path as the model spells it."""
    try:
        arrays = read_arrays(source)
    except ValueError as error:
        raise ValueError(NOT_OURS.format(path=source, why=f" ({error})")) from error
    if _MANIFEST not in arrays:
        return _of_pcx(arrays, names, source)
    manifest = json.loads(str(arrays[_MANIFEST]))
    if manifest["format"] != _FORMAT:
        why = f", or by another version (format {manifest['format']})"
        raise ValueError(NOT_OURS.format(path=source, why=why))
    return {
        name: decode(arrays[name], kind).reshape(shape)
        for name, (kind, shape) in manifest["entries"].items()
    }


def _of_pcx(arrays: dict[str, Any], names: dict[str, Any], source: Path) -> dict[str, Any]:
    """The arrays of a file of PCX, which has no manifest, and whose paths begin with a dot."""
    if not arrays or not all(name.startswith((".", "[")) for name in arrays):
        raise ValueError(NOT_OURS.format(path=source, why=": it has no list of params"))
    by_tokens: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        by_tokens.setdefault(_tokens(name), []).append(name)
    out: dict[str, Any] = {}
    for theirs, array in arrays.items():
        name = theirs.lstrip(".")
        # indices and keys may be written in another way, as in `.layers.0.nn.weight`
        same = by_tokens.get(_tokens(name), [])
        if name not in names and len(same) == 1 and same[0] not in out:
            name = same[0]
        dtype = getattr(names.get(name), "dtype", array.dtype)
        # NumPy stores bfloat16 as bytes without a name
        is_bytes = array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize
        out[name] = array.view(dtype) if is_bytes else array
    return out


def _below(stored: dict[str, Any], prefix: str | None, source: Path) -> dict[str, Any]:
    """What is stored below a path, by the rest of its path."""
    if prefix is None:
        return stored
    prefix = prefix.strip(".")
    rest = {name: name.removeprefix(prefix) for name in stored if name.startswith(prefix)}
    below = {
        rest[name].lstrip(".") or "value": stored[name]
        for name in rest
        if not rest[name] or rest[name][0] in ".["
    }
    if not below:
        raise ValueError(NO_PREFIX.format(path=source, prefix=prefix, names=_some(stored)))
    return below


def _compare(expected: dict[str, Any], stored: dict[str, Any], ignored: set[str]) -> LoadReport:
    both = [name for name in expected if name in stored]
    mismatched = {}
    for name in both:
        theirs, ours = _describe(stored[name]), _describe(expected[name])
        if theirs != ours:
            mismatched[name] = f"{theirs} in the file and {ours} in the model"
    return LoadReport(
        tuple(name for name in both if name not in mismatched),
        tuple(name for name in expected if name not in stored),
        tuple(name for name in stored if name not in expected and name not in ignored),
        mismatched,
    )


def _problems(report: LoadReport) -> list[str]:
    problems = [f"`{name}` is in the model but not in the file" for name in report.missing]
    problems += [f"`{name}` is in the file but not in the model" for name in report.left_over]
    problems += [f"`{name}` is {text}" for name, text in report.mismatched.items()]
    rest = len(problems) - 12
    return [*problems[:12], *([f"and {rest} more"] if rest > 0 else [])]


def _advice(expected: dict[str, Any], stored: dict[str, Any], names: dict[str, Any]) -> str:
    """What to write, if all paths fit but for what is before them."""
    if places := _places(expected, stored):
        return ELSEWHERE.format(places=_some(places), example=places[0])
    if places := _places(stored, names):
        return "\n".join(BELOW.format(place=place) for place in places[:4])
    return ADVICE


def _places(part: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """The paths below which `whole` has all that `part` has."""
    first = next(iter(part))
    ends = [name.removesuffix(first).rstrip(".") for name in whole if name.endswith(first)]
    join = lambda place, name: place + ("" if name.startswith("[") else ".") + name
    return [
        place
        for place in dict.fromkeys(ends)
        if place and all(join(place, n) in whole for n in part)
    ]


def _describe(array: Any) -> str:
    dtype = getattr(array, "dtype", None) or np.asarray(array).dtype
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return f"{dtype}{list(np.shape(array))}"


def _like(old: Any, new: Any) -> Any:
    """The loaded array as what the model had: a JAX array, a NumPy array or a number."""
    if isinstance(old, jax.Array):
        return jnp.asarray(new)
    return new if isinstance(old, np.ndarray) else type(old)(new.item())


def _name(path: str, inner: Any) -> str:
    return path + keystr(inner) if inner else path or "value"


def _tokens(name: str) -> tuple[str, ...]:
    """The parts of a path, however it is spelled: `layers[0].w`, `.layers['0'].w`."""
    return tuple(re.findall(r"[^.\[\]'\"]+", name)) or ("",)


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(f"`{name}`" for name in names[:4]) + (", ..." if len(names) > 4 else "")


def _is_data(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
