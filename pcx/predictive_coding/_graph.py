"""The nodes of a model and what predicts what, read off its trace; `EnergyModule.summary` as text."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from ..core import named_params
from ..functional import pure
from ..nn import LayerParam
from ._arguments import VodeParam
from ._depends import propagate
from ._rules import STATUS
from ._states import vode_paths, vodes
from ._traits import name_of

# where the names of layers and nodes are cut, so that a line fits a terminal
WIDTH = 80
# the axis over which the algorithms map a model, which layers such as `BatchNorm` name
AXIS = ("batch", 1)


class Node(NamedTuple):
    """A vode in the graph of a model.

    Attributes:
        name: its path.
        shape: of its state; None if a forward pass gives it none.
        inputs: what its prediction depends on: "x", and paths of vodes.
        layers: paths of the layers that its prediction depends on.
        energy: name of its energy function.
        frozen: whether inference leaves its state alone, as that of a clamped output.
    """

    name: str
    shape: tuple[int, ...] | None
    inputs: tuple[str, ...]
    layers: tuple[str, ...]
    energy: str
    frozen: bool


def layer_of(path: str) -> str:
    """The layer that a param belongs to, by its path: the `nn` of a layer is its equinox module."""
    return path.split(".nn.")[0] if ".nn." in path else path.rpartition(".")[0] or path


def nodes(model: Any, x: Any) -> list[Node]:
    """The nodes of a model in the order of `vodes(model)`; it is traced, not run.

    Args:
        model: an `EnergyModule`.
        x: an input of one sample, or its `jax.ShapeDtypeStruct`; None for a model without input.
    """

    def states(x: Any, *, model: Any) -> Any:
        model.clear_params(VodeParam | VodeParam.Cache)
        model.status = STATUS.INIT
        model(x)
        return [vode.h.get() for vode in vodes(model)]

    def predictions(h: Any, weights: Any, x: Any, *, model: Any) -> Any:
        model.clear_params(VodeParam | VodeParam.Cache)
        model.status = None
        for vode, value in zip(vodes(model), h, strict=True):
            vode.h.set(value)
        for (_, param), value in zip(layer_params(model), weights, strict=True):
            param.set(value)
        model(x)
        found = [vode.get("u") for vode in vodes(model)]
        known[:] = [u is not None for u in found]
        return found

    known: list[bool] = []
    trace = lambda fn: jax.make_jaxpr(pure(fn, model=model), axis_env=[AXIS], return_shape=True)
    h = trace(states)(x)[1]
    weights = [param.get() for _, param in layer_params(model)]
    closed = trace(predictions)(h, weights, x)[0]
    paths = [path or "the model" for path in vode_paths(model)]
    sources = [path for path, a in zip(paths, h, strict=True) if a is not None]
    layers = [layer_of(path) for path, _ in layer_params(model)]
    leaves = [len(jax.tree_util.tree_leaves(w)) for w in weights]
    labels = [
        *sources,
        *(layer for layer, n in zip(layers, leaves, strict=True) for _ in range(n)),
        *("x" for _ in jax.tree_util.tree_leaves(x)),
    ]
    masks = iter(propagate(closed.jaxpr, [1 << k for k in range(len(labels))], []))
    out = []
    for vode, path, state, has_u in zip(vodes(model), paths, h, known, strict=True):
        mask = next(masks) if has_u else 0
        used = [k for k in range(len(labels)) if mask >> k & 1]
        inputs = {labels[k] for k in used if not len(sources) <= k < len(sources) + sum(leaves)}
        by = dict.fromkeys(
            labels[k] for k in used if len(sources) <= k < len(sources) + sum(leaves)
        )
        ordered = [name for name in ("x", *paths) if name in inputs]
        shape = None if state is None else tuple(state.shape)
        out.append(Node(path, shape, (*ordered,), (*by,), name_of(vode.energy_fn), vode.is_frozen))
    return out


def layer_params(model: Any) -> list[tuple[str, Any]]:
    """`(path, param)` of the weights that have a value."""
    return [
        (path, param)
        for path, param in named_params(model)
        if isinstance(param, LayerParam) and param.get() is not None
    ]


def summary(model: Any, x: Any) -> str:
    """See `EnergyModule.summary`."""
    found = nodes(model, x)
    sizes: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for path, param in layer_params(model):
        size = sum(math.prod(a.shape) for a in jax.tree_util.tree_leaves(param.get()))
        sizes[layer_of(path)] = sizes.get(layer_of(path), 0) + size
        if param.__dict__.get("frozen", False):
            frozen[layer_of(path)] = frozen.get(layer_of(path), 0) + size
    still = {layer for layer in sizes if frozen.get(layer) == sizes[layer]}
    rows = [("node", "state", "from", "by", "params", "energy")]
    for node in found:
        shape = "-" if node.shape is None else str(node.shape)
        by = [f"{layer} (frozen)" if layer in still else layer for layer in node.layers]
        params = sum(sizes[layer] for layer in node.layers)
        rows.append(
            (
                node.name + (" *" if node.frozen else ""),
                shape,
                _several(node.inputs),
                _below(by),
                f"{params:,}",
                node.energy,
            )
        )
    used = {layer for node in found for layer in node.layers}
    for layer in sizes:
        if layer not in used:
            rows.append(("-", "", "", layer, f"{sizes[layer]:,}", "none"))
    total, fixed = sum(sizes.values()), sum(frozen.values())
    head = f"{type(model).__name__}: {len(found)} nodes, {total:,} params"
    head += f" ({fixed:,} frozen)" if fixed else ""
    lines = [head, *_table(rows)]
    if any(node.frozen for node in found):
        lines.append("* frozen: inference leaves it alone, as an output that is clamped")
    return "\n".join(lines)


def _several(names: Sequence[str]) -> str:
    if len(names) < 3:
        return ", ".join(names) or "-"
    return f"{names[0]} and {len(names) - 1} more"


def _below(layers: Sequence[str]) -> str:
    """Layers by the module that holds all of them, if there is one."""
    holder = ""
    if len(layers) > 1:
        holder = os.path.commonpath([layer.replace(".", "/") for layer in layers]).replace("/", ".")
    return f"{holder}: {len(layers)} layers" if holder else _several(layers)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns that fit together into `WIDTH`: the widest are cut, and keep their ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * len(widths) - 2 > WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [
            cell if len(cell) <= width else ".." + cell[len(cell) - width + 2 :]
            for cell, width in zip(row, widths, strict=True)
        ]
        aligned = [
            cell.rjust(width) if k == 4 else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
