"""`save_params` and `load_params`: `.npz` files without pickle, written all at once or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Mask, named_params
from ..nn import LayerParam

_MANIFEST = "__pcx__"
_FORMAT = 1


def save_params(model: Any, path: str | os.PathLike[str], filter: Any = LayerParam) -> None:
    """Save the params that the filter selects.

    A shared param is saved once, under its first path. The file appears under its name only when it is
    complete.

    Args:
        model: any tree of params.
        path: file name; `.npz` is added if missing.
        filter: a param type, union, callable or mask.

    Raises:
        ValueError: the filter selects nothing.

    Example:
        >>> import os, tempfile, pcx.nn as pxnn, pcx.utils as pxu
        >>> a, b = pxnn.Linear(2, 2), pxnn.Linear(2, 2)
        >>> file = os.path.join(tempfile.mkdtemp(), "linear.npz")
        >>> pxu.save_params(a, file)
        >>> pxu.load_params(b, file)
        >>> bool((a.nn.weight == b.nn.weight).all())
        True
    """
    entries = _entries(model, filter)
    if not entries:
        raise ValueError(f"save_params: {Mask(filter)!r} selects no param of this {type(model).__name__}")
    arrays = {name: np.asarray(value) for name, value in entries.items()}
    manifest = {
        "format": _FORMAT,
        "entries": {n: [str(a.dtype), list(a.shape)] for n, a in arrays.items()},
    }
    # NumPy cannot name bfloat16 and its like: such arrays are stored as raw bytes
    stored = {n: a if a.dtype.kind in "biufc" else a.reshape(-1).view(np.uint8) for n, a in arrays.items()}
    target = _with_suffix(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{_MANIFEST: np.asarray(json.dumps(manifest))}, **stored)  # type: ignore[arg-type]
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def load_params(model: Any, path: str | os.PathLike[str], filter: Any = LayerParam) -> None:
    """Load params that `save_params` wrote into a model of the same structure.

    Args:
        model: the tree to load into; params that are shared stay shared.
        path: file name; `.npz` is added if missing.
        filter: the filter with which they were saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: entries are missing, left over, or of another shape or dtype; nothing is changed.
    """
    source = _with_suffix(path)
    with np.load(source, allow_pickle=False) as file:
        if _MANIFEST not in file:
            raise ValueError(f"load_params: {source} was not written by pxu.save_params")
        manifest = json.loads(str(file[_MANIFEST]))["entries"]
        stored = {name: file[name] for name in manifest}
    mask = Mask(filter)
    expected = _entries(model, filter)
    problems = [f"`{n}` is in the model but not in the file" for n in expected if n not in manifest]
    problems += [f"`{n}` is in the file but not in the model" for n in manifest if n not in expected]
    for name, value in expected.items():
        if name in manifest:
            dtype, shape = manifest[name]
            have = (str(jnp.result_type(value)), list(jnp.shape(value)))
            if have != (dtype, shape):
                problems.append(
                    f"`{name}` is {dtype}{tuple(shape)} in the file and {have[0]}{tuple(have[1])} in the model"
                )
    if problems:
        shown = "\n  ".join(problems[:12] + ([f"and {len(problems) - 12} more"] if len(problems) > 12 else []))
        raise ValueError(
            f"load_params: {source} does not fit this {type(model).__name__}; nothing was loaded.\n  {shown}\n"
            "Build the model with the arguments it was saved with, and use the same filter"
        )
    arrays = {
        name: jnp.asarray(stored[name].view(jnp.dtype(dtype)).reshape(shape) if stored[name].dtype == np.uint8 and dtype != "uint8" else stored[name])
        for name, (dtype, shape) in manifest.items()
    }
    for param_path, param in named_params(model):
        if mask.select(param):
            leaves, treedef = jax.tree_util.tree_flatten_with_path(param._value)
            new = [arrays[_name(param_path, inner)] if _is_data(leaf) else leaf for inner, leaf in leaves]
            param.set(jax.tree_util.tree_unflatten(treedef, new))


def _entries(model: Any, filter: Any) -> dict[str, Any]:
    """Every array in the selected params, by path, shared params once."""
    mask = Mask(filter)
    out = {}
    for path, param in named_params(model):
        if mask.select(param):
            for inner, leaf in jax.tree_util.tree_flatten_with_path(param._value)[0]:
                if _is_data(leaf):
                    out[_name(path, inner)] = leaf
    return out


def _name(path: str, inner: Any) -> str:
    return path + jax.tree_util.keystr(inner) if inner else path or "value"


def _is_data(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
