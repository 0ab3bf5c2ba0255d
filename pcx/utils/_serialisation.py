"""`save_params` and `load_params`: the weights of a model in an `.npz` file."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

from ..core import Mask, named_params
from ..nn import BufferParam, LayerParam
from ._files import CHECKPOINT_MANIFEST, decode, encode, read_arrays, with_suffix, write_arrays
from ._files import WEIGHTS_MANIFEST as _MANIFEST
from ._fit import CHECKPOINT, NOT_OURS, LoadReport, advice, below, compare, of_pcx, problems, tokens
from ._mesh import whole

_FORMAT = 1
_WEIGHTS = Mask(LayerParam | BufferParam)

NOTHING = """{what}: the filter {mask!r} selects no param with a value in this {cls}. Select what \
the model has, as in `filter=pxnn.LayerParam | pxnn.StateParam`."""

RESERVED = """save_params: a param at the path `{name}` cannot be saved, because the file has its \
list of params under this name. Give the attribute another name."""

MISFIT = """load_params: {path} does not fit this {cls}; nothing was loaded.
  {problems}
{advice}"""


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
        arrays[name], kind = encode(whole(leaf))
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
    stored = below(_read(source, every_name), prefix, source)
    report = compare(expected, stored, set() if filter is _WEIGHTS else set(every_name))
    if prefix is not None and isinstance(model, list | tuple | dict):
        # a part of a list: what the file has for its other elements belongs to other parts
        ours = {tokens(name)[0] for name in every_name}
        theirs = tuple(name for name in report.left_over if tokens(name)[0] in ours)
        report = report._replace(left_over=theirs)
    if (strict and any(report[1:])) or not report.loaded:
        raise ValueError(
            MISFIT.format(
                path=source,
                cls=type(model).__name__,
                problems="\n  ".join(problems(report)),
                advice=advice(expected, stored, every_name),
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
    if CHECKPOINT_MANIFEST in arrays:
        raise ValueError(CHECKPOINT.format(path=str(source)))
    if _MANIFEST not in arrays:
        return of_pcx(arrays, names, source)
    try:
        manifest = json.loads(str(arrays[_MANIFEST]))
        entries = manifest["entries"] if manifest["format"] == _FORMAT else None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(NOT_OURS.format(path=source, why=" (its table of contents)")) from error
    if entries is None:
        why = f", or by another version (format {manifest['format']})"
        raise ValueError(NOT_OURS.format(path=source, why=why))
    if missing := [name for name in entries if name not in arrays]:
        raise ValueError(NOT_OURS.format(path=source, why=f" (it lacks the array {missing[0]})"))
    return {
        name: decode(arrays[name], kind).reshape(shape) for name, (kind, shape) in entries.items()
    }


def _like(old: Any, new: Any) -> Any:
    """The loaded array as what the model had: a JAX array, a NumPy array or a number."""
    if isinstance(old, jax.Array):
        return jax.device_put(new)
    return new if isinstance(old, np.ndarray) else type(old)(new.item())


def _name(path: str, inner: Any) -> str:
    return path + keystr(inner) if inner else path or "value"


def _is_data(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
