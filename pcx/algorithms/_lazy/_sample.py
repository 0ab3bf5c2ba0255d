"""One sample's pass through a model, to be traced."""

from typing import Any

import jax
import jax.numpy as jnp

from ...core import ParamCache
from ...functional._tracked import collect
from ...predictive_coding import VodeParam
from ...utils import step
from .._energies import AXIS, CACHE


class Sample:
    """One sample's pass through a model, to be traced: the params and data without their batch axis."""

    def __init__(self, x: Any, y: Any, model: Any, status: str | None):
        self.status = status
        self.structure, self.params, self.values = collect({"model": model})
        size = {a.shape[0] for a in jax.tree_util.tree_leaves((x, y))}
        for param in self.params[1:]:
            if isinstance(param, VodeParam) and param._value is not None:
                size.add(param._value.shape[0])
        self.batch = max(size, default=1)
        self.sizes = [self.structure.size_of(i) for i in range(len(self.params))]
        self.sizes += [1] * (len(self.values) - sum(self.sizes))
        batched_params = [isinstance(p, VodeParam | ParamCache) for p in self.params]
        self.avals, position = [], 0
        for index, count in enumerate(self.sizes):
            drop = index < len(self.params) and index > 0 and batched_params[index]
            for value in self.values[position : position + count]:
                self.avals.append(_aval(value, drop))
            position += count
        self.data = jax.tree_util.tree_map(lambda a: _aval(a, True), (x, y))

    def trace(self, fn: Any) -> tuple[Any, Any, list[int | None]]:
        """Jaxpr of `fn(x, y, model=model)`: from params and data to changed params and result.

        Returns:
            The closed jaxpr; the structure of the result (without the params), as a tree; and for each
            param the number of its arrays among the outputs, None if it was left alone.
        """
        shapes: list[Any] = []

        def body(x: Any, y: Any, *, model: Any) -> Any:
            with step(model, self.status, clear_params=(CACHE, CACHE)):
                return fn(x, y, model=model)

        def run(values: Any, x: Any, y: Any) -> Any:
            result, updates = self.structure.run("dependencies", body, values, (x, y))
            counts = [len(jax.tree_util.tree_leaves(u)) if u else None for u in updates]
            shapes.append((jax.tree_util.tree_structure(result), counts))
            return updates, result

        trace = jax.make_jaxpr(run, axis_env=[(AXIS, self.batch)])
        closed = trace(self.avals, *self.data)
        treedef, counts = shapes[-1]
        return closed, treedef, counts

    def numbers_of(self, flat: list[Any]) -> list[list[Any]]:
        """Numbers of all arrays, grouped by param."""
        out, position = [], 0
        for count in self.sizes[: len(self.params)]:
            out.append(flat[position : position + count])
            position += count
        return out


def _aval(value: Any, drop: bool) -> Any:
    value = value if hasattr(value, "dtype") else jnp.asarray(value)
    shape = value.shape[1:] if drop else value.shape
    return jax.ShapeDtypeStruct(shape, value.dtype)
