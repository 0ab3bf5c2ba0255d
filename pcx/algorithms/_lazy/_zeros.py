"""Whether an optimiser leaves a param alone while its gradient is zero: a proof from its own code.

The optimiser is traced once on the params it will have, with their names, shapes and types, and each value
of the trace gets the set of params whose gradients must be zero for the value to be exactly zero. A sum is
zero where both terms are, a product where one factor is, and so on; of anything not listed nothing is
assumed. What the state holds is followed from `init` through `update` until nothing changes any more, so
the result is true of every step, whatever the schedule, the counters or the branches taken. Factors are
taken to be finite, as everything is for gradients that are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ...core import RKG
from ...predictive_coding._depends import sub_jaxpr


class Value(NamedTuple):
    """What is known of a value.

    Attributes:
        zero: the params (as bits) whose gradients must be zero for it to be zero; None if it need not be.
        finite: whether it is finite when those are zero (1/0 is not).
    """

    zero: int | None = None
    finite: bool = True


ANY, ZERO = Value(), Value(0)

# zero where their first argument is
_KEEP = frozenset(
    """
    neg convert_element_type broadcast_in_dim reshape transpose squeeze copy abs sign real imag
    conj sqrt cbrt tanh sin sinh asin asinh atan atanh tan expm1 log1p erf square floor ceil round
    slice rev reduce_sum reduce_max reduce_min cumsum dynamic_slice gather stop_gradient
    reduce_precision expand_dims
    """.split()  # noqa: SIM905
)
_ALL = frozenset(["add", "sub", "max", "min", "add_any", "concatenate", "pad"])
_PRODUCT = frozenset(["mul", "dot_general"])


def keeps_zeros(optax: Any, params: Mapping[str, Any], *, from_start: bool = True) -> bool:
    """Whether zero gradients of a param always give it a zero update, whatever the others' gradients are.

    True for SGD, momentum, Adam and their like; false with weight decay, noise, or updates by neighbours.

    Args:
        optax: an optax transformation.
        params: arrays by name, as `pxu.Optim` hands them to it; only names, shapes and types matter.
        from_start: the gradients have been zero since `init`. False: they may have been anything before,
            so that only optimisers without memory qualify, such as plain SGD.
    """
    shapes = {
        name: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for name, a in params.items()
    }
    generator = RKG.key
    key = generator._value
    try:
        start = jax.make_jaxpr(optax.init)(shapes)
        state = jax.eval_shape(optax.init, shapes)
        update = jax.make_jaxpr(optax.update)(shapes, state, shapes)
    except Exception:
        return False  # an optimiser with needs of its own: nothing is known of it
    finally:
        generator._value = key
    bits = [Value(1 << k) for k in range(len(shapes))]
    known = (
        _run(start, [ANY] * len(shapes))
        if from_start
        else [ANY] * len(jax.tree_util.tree_leaves(state))
    )
    while True:
        updates_and_state = _run(update, [*bits, *known, *[ANY] * len(shapes)])
        updates, after = updates_and_state[: len(bits)], updates_and_state[len(bits) :]
        joined = [_both(a, b) for a, b in zip(known, after, strict=True)]
        if joined == known:
            break
        known = joined
    return all(value.zero in (0, bit.zero) for value, bit in zip(updates, bits, strict=True))


def _both(a: Value, b: Value) -> Value:
    """What is known of a value that is one of two."""
    zero = None if a.zero is None or b.zero is None else a.zero | b.zero
    return Value(zero, a.finite and b.finite)


def _run(closed: Any, inputs: Sequence[Value]) -> list[Value]:
    return _follow(closed.jaxpr, [_concrete(c) for c in closed.consts], inputs)


def _concrete(value: Any) -> Value:
    try:
        return ZERO if not np.any(np.asarray(value)) else ANY
    except Exception:  # a traced constant, a key
        return ANY


def _follow(jaxpr: Any, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def read(var: Any) -> Value:
        return _concrete(var.val) if isinstance(var, Literal) else known[var]

    for eqn in jaxpr.eqns:
        arguments = [read(var) for var in eqn.invars]
        known.update(zip(eqn.outvars, _results(eqn, arguments), strict=True))
    return [read(var) for var in jaxpr.outvars]


def _results(eqn: Any, arguments: list[Value]) -> list[Value]:
    body = sub_jaxpr(eqn)
    if body is not None:
        inner, consts = body
        return _follow(inner, [_concrete(c) for c in consts], arguments)
    if eqn.primitive.name == "cond":
        branches = [_run(branch, arguments[1:]) for branch in eqn.params["branches"]]
        return [_reduce(_both, values) for values in zip(*branches, strict=True)]
    return [_result(eqn, arguments)] * len(eqn.outvars)


def _result(eqn: Any, a: list[Value]) -> Value:
    name = eqn.primitive.name
    finite = all(value.finite for value in a)
    if name in _KEEP:
        return Value(a[0].zero, finite)
    if name in _ALL:
        return _reduce(_both, a)
    if name in _PRODUCT:
        # a factor that is not finite makes 0 * inf = nan
        factors = [f.zero for f, other in (a[:2], a[1::-1]) if f.zero is not None and other.finite]
        return Value(min(factors, key=int.bit_count, default=None), finite)
    if name == "div":
        by_zero = a[1].zero is not None
        return Value(None if by_zero or not a[1].finite else a[0].zero, finite and not by_zero)
    if name == "select_n":
        return _reduce(_both, a[1:])
    if name == "clamp":
        low, _, high = eqn.invars
        spans = all(isinstance(v, Literal) for v in (low, high)) and low.val <= 0 <= high.val
        return Value(a[1].zero if spans else None, finite)
    if name == "integer_pow":
        inverse = eqn.params["y"] < 0
        return Value(
            None if inverse else a[0].zero, finite and not (inverse and a[0].zero is not None)
        )
    # the functions that are infinite at zero
    at_zero = name in ("rsqrt", "log", "pow") and a[0].zero is not None
    return Value(None, finite and not at_zero)


def _reduce(join: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
    first, *rest = values
    for value in rest:
        first = join(first, value)
    return first
