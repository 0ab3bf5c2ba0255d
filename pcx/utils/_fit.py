"""How the paths and shapes in a file of params fit those of a model."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NOT_OURS = """load_params: {path} was not written by pxu.save_params{why}."""

CHECKPOINT = """load_params: {path} is a checkpoint of a whole run, written by `pxt.Checkpoint` or \
`pxt.save_checkpoint`. To go on with the run write `trainer.fit(..., resume={path!r})`; for the weights make the \
algorithm as in that run, `pxt.load_checkpoint(pxt.Trainer(algorithm), {path!r})`, and take `algorithm.model`."""

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


def of_pcx(arrays: dict[str, Any], names: dict[str, Any], source: Path) -> dict[str, Any]:
    """The arrays of a file of PCX, which has no manifest, and whose paths begin with a dot."""
    if not arrays or not all(name.startswith((".", "[")) for name in arrays):
        raise ValueError(NOT_OURS.format(path=source, why=": it has no list of params"))
    by_tokens: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        by_tokens.setdefault(tokens(name), []).append(name)
    out: dict[str, Any] = {}
    for theirs, array in arrays.items():
        name = theirs.lstrip(".")
        # indices and keys may be written in another way, as in `.layers.0.nn.weight`
        same = by_tokens.get(tokens(name), [])
        if name not in names and len(same) == 1 and same[0] not in out:
            name = same[0]
        dtype = getattr(names.get(name), "dtype", array.dtype)
        # NumPy stores bfloat16 as bytes without a name
        is_bytes = array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize
        out[name] = array.view(dtype) if is_bytes else array
    return out


def below(stored: dict[str, Any], prefix: str | None, source: Path) -> dict[str, Any]:
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


def compare(expected: dict[str, Any], stored: dict[str, Any], ignored: set[str]) -> LoadReport:
    """What fits and what does not; left-over paths that are to be ignored are not reported."""
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


def problems(report: LoadReport) -> list[str]:
    """What does not fit, a line for each path."""
    lines = [f"`{name}` is in the model but not in the file" for name in report.missing]
    lines += [f"`{name}` is in the file but not in the model" for name in report.left_over]
    lines += [f"`{name}` is {text}" for name, text in report.mismatched.items()]
    rest = len(lines) - 12
    return [*lines[:12], *([f"and {rest} more"] if rest > 0 else [])]


def advice(expected: dict[str, Any], stored: dict[str, Any], names: dict[str, Any]) -> str:
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


def tokens(name: str) -> tuple[str, ...]:
    """The parts of a path, however it is spelled: `layers[0].w`, `.layers['0'].w`."""
    return tuple(re.findall(r"[^.\[\]'\"]+", name)) or ("",)


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(f"`{name}`" for name in names[:4]) + (", ..." if len(names) > 4 else "")
