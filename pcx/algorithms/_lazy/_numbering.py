"""When two traced computations certainly give the same value: value numbering of jaxprs.

Every value gets a number; a value computed by the same primitive, with the same settings, from values of
the same numbers, gets the same number. So equal numbers mean the same expression, hence the same
value, whatever the inputs; different numbers mean nothing.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from ...predictive_coding._depends import sub_jaxpr

_LARGE = 1 << 16


class Numbering:
    """Numbers for values, across several jaxprs."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        # values that are known by identity must not be replaced by others at their address
        self._kept: list[Any] = []

    def of(self, key: Hashable) -> int:
        """The number of a key, the same at each call."""
        return self._numbers.setdefault(key, len(self._numbers))

    def of_object(self, value: Any) -> int:
        """The number of an array or tracer: by content for small concrete arrays, else by identity."""
        if isinstance(value, jax.core.Tracer) or np.size(value) > _LARGE:
            self._kept.append(value)
            return self.of(("object", id(value)))
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        return self.of(("array", str(array.dtype), array.shape, array.tobytes()))

    def fresh(self) -> int:
        """A number that nothing else has."""
        return self.of(("fresh", len(self._numbers)))

    def run(self, closed: Any, inputs: Sequence[int]) -> list[int]:
        """Numbers of the outputs of a closed jaxpr, given those of its inputs."""
        return self._run(closed.jaxpr, [self.of_object(c) for c in closed.consts], inputs)

    def _run(self, jaxpr: Any, consts: Sequence[int], inputs: Sequence[int]) -> list[int]:
        known: dict[Any, int] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, inputs, strict=True))

        def read(var: Any) -> int:
            if isinstance(var, Literal):
                return self.of(("literal", str(var.aval), np.asarray(var.val).tobytes()))
            return known[var]

        for eqn in jaxpr.eqns:
            arguments = [read(var) for var in eqn.invars]
            body = sub_jaxpr(eqn)
            if eqn.effects:
                numbers = [self.fresh() for _ in eqn.outvars]
            elif body is not None:
                inner, values = body
                numbers = self._run(inner, [self.of_object(c) for c in values], arguments)
            else:
                key = (eqn.primitive.name, _settings(eqn.params, self._kept), tuple(arguments))
                numbers = [self.of((*key, i)) for i in range(len(eqn.outvars))]
            known.update(zip(eqn.outvars, numbers, strict=True))
        return [read(var) for var in jaxpr.outvars]


def _settings(params: dict[str, Any], kept: list[Any]) -> Hashable:
    return tuple((name, _setting(value, kept)) for name, value in sorted(params.items()))


def _setting(value: Any, kept: list[Any]) -> Hashable:
    if isinstance(value, list | tuple):
        return (type(value), *(_setting(v, kept) for v in value))
    inner = getattr(value, "jaxpr", value)
    if hasattr(inner, "eqns"):
        consts = getattr(value, "consts", ())
        kept.extend(consts)
        # the printed form has every primitive and setting, and names variables in order
        return (str(inner), *map(id, consts))
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    try:
        hash(value)
    except TypeError:
        kept.append(value)
        return id(value)
    # the number 1 equals True and 1.0
    return (type(value), value)
