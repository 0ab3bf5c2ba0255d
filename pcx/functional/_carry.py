"""What loops and branches share: params must leave in the form in which they came."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax.tree_util import tree_leaves

from .. import core
from ._leaves import WithStatics, is_dynamic
from ._tracked import Updates, collect, write_back

CHANGED = """{title}: `{name}` is {old} before {what} and {new} after it. What a loop or branch \
carries must keep its structure, shape and dtype.{hint}"""

FIRST = """ Give it a value before: for vodes, run the forward initialisation \
(`with pxu.step(model, pxc.STATUS.INIT): ...`) first; for caches, clear them inside the body \
with `pxu.step(model, clear_params=pxc.VodeParam.Cache)`; for optimisers, call `optim.init(...)` \
first"""


class Carried:
    """The keyword arguments of one call of a loop or branch."""

    def __init__(self, title: str, kwargs: dict[str, Any]):
        self.title = title
        self.structure, self.params, self.values = collect(kwargs, title)
        self._touched: set[int] = set()

    def run(
        self, fn: Callable[..., Any], values: Sequence[Any], args: tuple[Any, ...], what: str
    ) -> tuple[Any, list[Any]]:
        """Run `fn`; its result and all arrays after it, checked against those before.

        Args:
            fn: the body, called with `args` and the keyword arguments.
            values: all arrays of the keyword arguments.
            args: the positional arguments.
            what: what runs, for error messages.
        """
        structure = self.structure
        result, updates = structure.run(self.title, fn, values, args, full=True)
        flat = self._flatten(updates, values, what)
        # plain arrays in kwargs are carried along unchanged
        return result, flat + list(values[structure.size :])

    def _flatten(self, updates: Updates, values: Sequence[Any], what: str) -> list[Any]:
        structure = self.structure
        flat: list[Any] = []
        for index, old in enumerate(structure.split(values)):
            spec, new = structure.specs[index], updates[index][0]
            new = new.value() if type(new) is WithStatics else new
            arrays = [leaf for leaf in tree_leaves(new) if is_dynamic(leaf)]
            if not (spec.fits(new) and all(map(alike, arrays, old))):
                before = spec.join(old)
                raise TypeError(
                    CHANGED.format(
                        title=self.title,
                        name=structure.name_of(index),
                        old=core.describe(before),
                        new=core.describe(new),
                        what=what,
                        hint=FIRST
                        if before is None or (isinstance(before, dict) and not before)
                        else "",
                    )
                )
            if any(a is not b for a, b in zip(arrays, old, strict=True)):
                self._touched.add(index)
            flat.extend(arrays)
        return flat

    def write_back(self, values: Sequence[Any]) -> None:
        """Store the final arrays in the caller's params, those that any run of a body changed."""
        mine, specs = self.structure.split(values), self.structure.specs
        write_back(self.params, {i: specs[i].join(mine[i]) for i in sorted(self._touched)})


def alike(a: Any, b: Any) -> bool:
    """Whether two arrays have one shape and dtype."""
    return jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)
