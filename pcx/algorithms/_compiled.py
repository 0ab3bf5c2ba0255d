"""`compiled`: a method of an algorithm as one compiled function."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..core import scope_state
from ..functional import Jit, jit, pure
from ..nn import compute_dtype
from ..utils import _mesh
from . import _lazy
from ._batch import as_batches, explain


def compiled(
    *,
    static: Sequence[str] = (),
    donate: bool = False,
    first: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Make a method of an algorithm one compiled function.

    In the method, `self` is this call's own copy of the algorithm. What it writes into params (states,
    weights, optimisers) is kept; other attributes that it sets last for the call only. Arguments that are not
    static are batches: a mesh divides their first axis.

    Args:
        static: names of arguments that are compile-time constants, such as a number of steps.
        donate: let XLA reuse the memory of old params, unless the algorithm was made with `donate=False`.
        first: `first(algorithm, *args, run)` is called instead at the first call, and calls `run()` itself.

    Returns:
        A decorator of methods.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> class Curious(pxa.PC):
        ...     @pxa.compiled(static=("power",))
        ...     def surprise(self, x, y, power=2):
        ...         return jnp.mean(jnp.abs(self.initialise(x, y) - y) ** power)
        >>> Curious(pxm.MLP([2, 4, 2])).surprise(jnp.eye(2), jnp.eye(2), power=1).shape
        ()
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)
        names = [*signature.parameters][1:]
        defaults = tuple(p.default for p in [*signature.parameters.values()][1:])
        numbers = tuple(map(names.index, static))

        def body(*args: Any, algorithm: Any) -> Any:
            mesh = algorithm.mesh
            before = {} if mesh is None else _mesh.values_of(algorithm)
            with _lazy.session(), compute_dtype(algorithm.compute_dtype):
                out = method(algorithm, *args)
            if mesh is not None:
                _mesh.keep_placed(mesh, algorithm, before)
            return out

        body.__name__ = body.__qualname__ = method.__name__

        def works(self: Any, args: Sequence[Any]) -> bool:
            traced = {n: a for n, a in enumerate(args) if n not in numbers}

            def run(traced: dict[int, Any], *, algorithm: Any) -> Any:
                return body(*(traced.get(n, a) for n, a in enumerate(args)), algorithm=algorithm)

            try:
                jax.eval_shape(pure(run, algorithm=self), traced)
            except Exception:
                return False
            return True

        plain: Jit = jit(static_argnums=numbers)(body)
        donating: Jit = jit(static_argnums=numbers, donate_params=True)(body) if donate else plain

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) < len(names):
                args = _complete(signature, defaults, self, args, kwargs)
            args = as_batches(args, names)
            if scope_state.scope is None and (self.mesh is not None or _mesh.is_guarded()):
                args = _placed(self, args, numbers)
            run = donating if donate and self.donate else plain
            unseen = first and getattr(self, "_unseen", False) and scope_state.scope is None
            try:
                if unseen:
                    object.__setattr__(self, "_unseen", False)
                    return first(self, *args, run=lambda: run(*args, algorithm=self))  # type: ignore[misc]
                return run(*args, algorithm=self)
            except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
                if unseen:
                    object.__setattr__(self, "_unseen", True)
                if scope_state.scope is None:
                    where = f"{type(self).__name__}.{method.__name__}"
                    given = dict(zip(names, args, strict=False))
                    if len(given) == len(args):
                        explain(error, where, given, lambda other: works(self, [*other.values()]))
                raise

        call.jitted = donating  # type: ignore[attr-defined]
        return call

    return decorate


def _placed(algorithm: Any, args: tuple[Any, ...], static: Sequence[int]) -> tuple[Any, ...]:
    """The arguments on the devices of the mesh, where all else is put as well, or on the only one."""
    algorithm.place()
    mesh = algorithm.mesh
    put = _mesh.to_device if mesh is None else functools.partial(_mesh.place_batch, mesh)
    return tuple(arg if i in static else put(arg) for i, arg in enumerate(args))


def _complete(
    signature: inspect.Signature, defaults: Any, self: Any, args: Any, kwargs: Any
) -> tuple[Any, ...]:
    """All arguments by position."""
    if not kwargs and inspect.Parameter.empty not in defaults[len(args) :]:
        return (*args, *defaults[len(args) :])
    bound = signature.bind(self, *args, **kwargs)
    bound.apply_defaults()
    return (*bound.args[1:], *bound.kwargs.values())
