"""`save_params` and `load_params`: `.npz` files without pickle, written at once or not at all."""

import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

from ..core import Mask, named_params
from ..nn import LayerParam

_MANIFEST = "__pcx__"
_FORMAT = 1

NOTHING = """{what}: the filter {mask!r} selects no param with a value in this {cls}. Select what \
the model has, as in `filter=pxnn.LayerParam | pxnn.StateParam`."""

NOT_OURS = """load_params: {path} was not written by pxu.save_params{why}."""

MISFIT = """load_params: {path} does not fit this {cls}; nothing was loaded.
  {problems}
Build the model with the arguments it was saved with, and use the same filter."""


def save_params(model: Any, path: str | os.PathLike[str], filter: Any = LayerParam) -> None:
    """Save the params that the filter selects.

    A shared param is saved once, under its first path. The file appears under its name only when it
    is complete.

    Args:
        model: any tree of params.
        path: file name; `.npz` is added if missing.
        filter: a param type, union, callable or mask. `pxnn.LayerParam | pxnn.StateParam` saves the
            running statistics of batch normalisation too.

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
    arrays = _arrays(model, filter, "save_params")
    manifest = {
        "format": _FORMAT,
        "entries": {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()},
    }
    entries = {_MANIFEST: np.asarray(json.dumps(manifest))}
    entries.update({name: a if _native(a) else _as_bytes(a) for name, a in arrays.items()})
    target = _with_suffix(path)
    # beside the target, since a rename is atomic only within a file system
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **entries)  # type: ignore[arg-type]
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_params(model: Any, path: str | os.PathLike[str], filter: Any = LayerParam) -> None:
    """Load params that `save_params` wrote into a model of the same structure.

    Args:
        model: the tree to load into; params that are shared stay shared.
        path: file name; `.npz` is added if missing.
        filter: the filter with which they were saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: entries are missing, left over, or of another shape or dtype; the message names
            them, and nothing is changed.

    Example:
        >>> import tempfile, pcx.nn as pxnn, pcx.utils as pxu
        >>> trained, fresh = pxnn.Linear(2, 3), pxnn.Linear(2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pxu.save_params(trained, f"{folder}/linear.npz")
        ...     pxu.load_params(fresh, f"{folder}/linear.npz")
        >>> fresh.nn.weight.tolist() == trained.nn.weight.tolist()
        True
    """
    source = _with_suffix(path)
    stored = _read(source)
    expected = _arrays(model, filter, "load_params")
    problems = _problems(expected, stored)
    if problems:
        shown = problems[:12]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise ValueError(
            MISFIT.format(path=source, cls=type(model).__name__, problems="\n  ".join(shown))
        )
    mask = Mask(filter)
    for path_, param in named_params(model):
        if mask.select(param):
            leaves, treedef = tree_flatten_with_path(param._value)
            new = [
                _like(leaf, stored[_name(path_, inner)]) if _is_data(leaf) else leaf
                for inner, leaf in leaves
            ]
            param.set(tree_unflatten(treedef, new))


def _arrays(model: Any, filter: Any, what: str) -> dict[str, np.ndarray]:
    """Every array in the selected params, by path, shared params once."""
    mask = Mask(filter)
    arrays = {
        _name(path, inner): np.asarray(leaf)
        for path, param in named_params(model)
        if mask.select(param)
        for inner, leaf in tree_flatten_with_path(param._value)[0]
        if _is_data(leaf)
    }
    if not arrays:
        raise ValueError(NOTHING.format(what=what, mask=mask, cls=type(model).__name__))
    return arrays


def _read(source: Path) -> dict[str, np.ndarray]:
    # opened here, because `np.load` leaves a file that it cannot read open
    with open(source, "rb") as handle:
        try:
            file = np.load(handle, allow_pickle=False)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise ValueError(NOT_OURS.format(path=source, why=f" ({error})")) from error
        if isinstance(file, np.ndarray):
            raise ValueError(NOT_OURS.format(path=source, why=": it is a single array"))
        if _MANIFEST not in file:
            raise ValueError(NOT_OURS.format(path=source, why=": it has no list of params"))
        manifest = json.loads(str(file[_MANIFEST]))
        if manifest["format"] != _FORMAT:
            why = f", or by another version (format {manifest['format']})"
            raise ValueError(NOT_OURS.format(path=source, why=why))
        return {
            name: _from_stored(file[name], jnp.dtype(dtype), shape)
            for name, (dtype, shape) in manifest["entries"].items()
        }


def _problems(expected: dict[str, np.ndarray], stored: dict[str, np.ndarray]) -> list[str]:
    problems = [f"`{n}` is in the model but not in the file" for n in expected if n not in stored]
    problems += [f"`{n}` is in the file but not in the model" for n in stored if n not in expected]
    for name in (n for n in expected if n in stored):
        theirs, ours = (
            f"{jax.dtypes.canonicalize_dtype(a.dtype)}{list(a.shape)}"
            for a in (stored[name], expected[name])
        )
        if theirs != ours:
            problems.append(f"`{name}` is {theirs} in the file and {ours} in the model")
    return problems


def _native(array: np.ndarray) -> bool:
    # NumPy cannot name bfloat16 and its like in a file
    return array.dtype.kind in "biufc"


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _from_stored(array: np.ndarray, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    return array if array.dtype == dtype else array.view(dtype).reshape(shape)


def _like(old: Any, new: np.ndarray) -> Any:
    """The loaded array as what the model had: a JAX array, a NumPy array or a number."""
    if isinstance(old, jax.Array):
        return jnp.asarray(new)
    return new if isinstance(old, np.ndarray) else type(old)(new.item())


def _name(path: str, inner: Any) -> str:
    return path + keystr(inner) if inner else path or "value"


def _is_data(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
