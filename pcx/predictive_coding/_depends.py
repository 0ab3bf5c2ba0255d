"""Which inputs of a traced function each of its outputs depends on."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import Literal

_SUB_JAXPRS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def propagate(jaxpr: Any, inputs: list[int], convolutions: list[str]) -> list[int]:
    """For each output of a jaxpr, the union of the masks of the inputs that it depends on."""
    known: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(var: Any) -> int:
        return 0 if isinstance(var, Literal) else known.get(var, 0)

    for eqn in jaxpr.eqns:
        arguments = [read(var) for var in eqn.invars]
        if eqn.primitive.name.startswith("conv_general"):
            convolutions.append(eqn.primitive.name)
        body = sub_jaxpr(eqn)
        if body is not None:
            results = propagate(body[0], arguments, convolutions)
        else:
            union = 0
            for mask in arguments:
                union |= mask
            results = [union] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def sub_jaxpr(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """Body and constants of a call-like equation, if its inputs and outputs are the equation's own."""
    # a loop feeds its outputs back, a branch may not run: only calls that run once can be looked into
    if eqn.primitive.name.startswith(("scan", "while", "cond")):
        return None
    for name in _SUB_JAXPRS:
        body = eqn.params.get(name)
        inner = getattr(body, "jaxpr", body)
        if hasattr(inner, "eqns"):
            same = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)
            consts = getattr(body, "consts", ())
            if same and len(inner.constvars) == len(consts):
                return inner, consts
    return None
