"""`jit` that keeps track of params."""

import operator
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core import scope_state
from ._collect import Key, Parts, take_apart
from ._leaves import WithStatics, with_statics
from ._tracked import Structure, changes, write_back
from ._transform import Transform, refuse_non_data

UNCOMPARABLE = """{title}: a static value in the keyword arguments cannot be compared to that of \
an earlier call ({error}). A value that is not an array decides for which code the function is \
compiled, so it needs `==` with a bool. An array does not belong in a static field of an equinox \
module or in the metadata of a param: keep it in a `px.Param`"""


class _Version:
    """One structure of the keyword arguments for which the function was traced; by identity.

    A param that the function writes before it reads does not influence the result, not even by
    being empty: then its old value is left out of the call, and a vode that gets its first array
    inside a jitted step does not make it compile again.
    """

    def __init__(self, parts: Parts):
        self.key = parts.key
        self.structure = Structure(parts)
        # over all traces, which differ by the shapes of arrays
        self.written: frozenset[int] | None = None  # written first, in every trace
        self.read: frozenset[int] = frozenset()  # read first, in some trace

    def note(self, firsts: list[str | None], completed: bool) -> None:
        """Learn from a trace what happened first to each param."""
        self.read |= {i for i, first in enumerate(firsts) if first == "read"}
        if completed:
            written = frozenset(i for i, first in enumerate(firsts) if first == "write")
            self.written = written if self.written is None else self.written & written

    def skips(self, params: frozenset[int]) -> bool:
        """Whether none of `params` matters to the result, in every trace so far."""
        return self.written is not None and params <= self.written and not params & self.read


class _ReadLeftOut(Exception):
    """With arguments of these shapes, a body reads what was left out of the call."""


class _Call(threading.local):
    """What was left out of the call in progress."""

    left_out: frozenset[int] = frozenset()


class _Route:
    """How a call with certain keyword arguments is run."""

    def __init__(self, version: _Version, left_out: frozenset[int], parts: Parts):
        self.version, self.left_out = version, left_out
        self._select: Callable[[Any], Any] = tuple
        if left_out:
            structure = Structure(parts)
            owners = structure.spread(range(len(structure.specs)))
            kept = [i for i, owner in enumerate(owners) if owner not in left_out]
            # param 0, the random key, is always among them
            self._select = operator.itemgetter(*kept) if len(kept) > 1 else lambda all_: all_[:1]

    def values(self, parts: Parts) -> tuple[Any, ...]:
        """The arrays to pass, which `parts` then no longer holds."""
        values = tuple(self._select(parts.values))
        parts.values.clear()  # for `_unshared`, which counts references
        return values


class Jit(Transform):
    """See `jit`."""

    name = "jit"

    def __init__(
        self,
        fn: Callable[..., Any],
        static_argnums: int | Sequence[int] | None = None,
        donate_argnums: int | Sequence[int] | None = None,
        donate_params: bool = False,
        **jit_kwargs: Any,
    ):
        super().__init__(fn)
        self.donate_params = donate_params
        self._static = _as_tuple(static_argnums)
        self._versions: list[_Version] = []
        self._routes: dict[Key, _Route] = {}
        self._call = _Call()
        donate = _shift(_as_tuple(donate_argnums))
        static = (0, *_shift(self._static))
        self._jitted: Any = jax.jit(
            self._pure(), static_argnums=static, donate_argnums=donate or None, **jit_kwargs
        )
        # inside another transform there is nothing to give away: the arrays are the outer one's
        self._donating: Any = self._jitted
        if donate_params:
            self._donating = jax.jit(
                self._pure(), static_argnums=static, donate_argnums=(*donate, 1), **jit_kwargs
            )

    def _pure(self) -> Callable[..., Any]:
        def pure(version: _Version, own: Any, plain: Any, *args: Any) -> tuple[Any, Any]:
            firsts: list[Any] = []
            completed = False
            try:
                # donated arrays are gone after the call, so then every param needs its new one
                result, updates = version.structure.run(
                    self.title, self.fn, (*own, *plain), args, self.donate_params, firsts.extend
                )
                completed = True
            finally:
                version.note(firsts, completed)
                if self._call.left_out & version.read:
                    raise _ReadLeftOut
            return with_statics(result), changes(updates)

        pure.__name__ = pure.__qualname__ = getattr(self.fn, "__name__", "pure")
        return pure

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parts = take_apart(kwargs)
        route = self._route(parts)
        values = route.values(parts)
        jitted = self._jitted
        if self.donate_params and scope_state.scope is None:
            jitted, values = self._donating, _unshared(values)
        outer, self._call.left_out = self._call.left_out, route.left_out
        try:
            result, updates = jitted(route.version, values, parts.arrays, *args)
        except _ReadLeftOut:
            return self._again(args, kwargs)
        except TypeError:
            refuse_non_data(self.title, self._without_statics(args), may_be_static=True)
            raise
        finally:
            self._call.left_out = outer
        if scope_state.scope is not None:
            self._note_outside(route.version, parts.params)
        write_back(parts.params, updates)
        return result.value() if type(result) is WithStatics else result

    def _again(self, args: Any, kwargs: Any) -> Any:
        """Run the same call once more with nothing left out."""
        parts = take_apart(kwargs)
        self._routes[parts.key] = self._new_route(parts)
        return self(*args, **kwargs)

    def _route(self, parts: Parts) -> _Route:
        try:
            route = self._routes.get(parts.key)
            if route is None:
                route = self._routes[parts.key] = self._resolve(parts)
        except (TypeError, ValueError) as error:
            raise TypeError(UNCOMPARABLE.format(title=self.title, error=error)) from error
        return route

    def _resolve(self, parts: Parts) -> _Route:
        """By a version traced before that differs only in what does not matter, or a new one."""
        for version in self._versions:
            differing = version.key.differing_params(parts.key)
            if differing is None or not version.skips(differing):
                continue
            if not any(version.structure.specs[i].size for i in differing):
                return _Route(version, differing, parts)
        return self._new_route(parts)

    def _new_route(self, parts: Parts) -> _Route:
        version = _Version(parts)
        self._versions.append(version)
        return _Route(version, frozenset(), parts)

    def _note_outside(self, version: _Version, params: list[Any]) -> None:
        """Tell the params of an outer transform what happened to them first in here."""
        for index, param in enumerate(params):
            if param._first is None:
                if index in version.read:
                    param._first = "read"
                elif index in (version.written or ()):
                    param._first = "write"

    def _without_statics(self, args: tuple[Any, ...]) -> list[Any]:
        static = {n % len(args) for n in self._static} if args else set()
        return [None if n in static else arg for n, arg in enumerate(args)]

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The lowered computation of this call, as `jax.jit(...).lower`; nothing is run."""
        parts = take_apart(kwargs)
        route = self._route(parts)
        return self._donating.lower(route.version, route.values(parts), parts.arrays, *args)

    def clear_cache(self) -> None:
        """Forget compiled versions."""
        self._jitted.clear_cache()
        self._donating.clear_cache()
        self._versions.clear()
        self._routes.clear()


def _as_tuple(argnums: int | Sequence[int] | None) -> tuple[int, ...]:
    return () if argnums is None else (argnums,) if isinstance(argnums, int) else tuple(argnums)


def _shift(argnums: tuple[int, ...]) -> tuple[int, ...]:
    # three arguments of the protocol come first; negative numbers count from the end as before
    return tuple(n if n < 0 else n + 3 for n in argnums)


def _unshared(values: Sequence[Any]) -> tuple[Any, ...]:
    """Copies in place of arrays that anything else holds as well.

    A donated array is gone after the call. One that only its param holds is never missed; one that
    is also in a user's variable, in another param or in another model must stay. References are
    counted by the interpreter, so this is exact and costs next to nothing.
    """
    return tuple([jnp.copy(v) if sys.getrefcount(v) > _ALONE else v for v in values])


def _count_alone() -> int:
    """What `sys.getrefcount` says in `_unshared` of an array that only its param holds."""
    counts: list[int] = []
    holder = [object()]
    values = (holder[0],)

    def look(values: Sequence[Any]) -> None:
        counts.extend([sys.getrefcount(v) for v in values])

    look(values)
    return counts[0]


_ALONE = _count_alone()


def jit(
    static_argnums: int | Sequence[int] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_params: bool = False,
    **jit_kwargs: Any,
) -> Callable[[Callable[..., Any]], Jit]:
    """Compile a function whose keyword arguments are tracked; positional ones are as in `jax.jit`.

    A change of structure (a static value, metadata of a param, a state that was empty and is read)
    compiles again; nothing else does.

    Args:
        static_argnums: positions of positional arguments that are compile-time constants.
        donate_argnums: positions of positional arguments whose memory XLA may reuse.
        donate_params: let XLA reuse the memory of the params' old values, except of arrays that
            something else holds too (they are copied).
        **jit_kwargs: any other option of `jax.jit`.

    Returns:
        A decorator.

    Raises:
        TypeError: at the call, if a module is passed positionally.
        RuntimeError: if the function writes a traced value to an object that is not among its
            keyword arguments, or puts another object in the place of a param.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> @pxf.jit()
        ... def add(x, *, total):
        ...     total += x
        ...     return total * 2
        >>> total = px.Param(jnp.array(1.0))
        >>> float(add(jnp.array(2.0), total=total)), float(total)
        (6.0, 3.0)
    """
    if callable(static_argnums):
        raise TypeError(
            "write `@pxf.jit()` with parentheses: every pxf transform takes its options first"
        )
    return lambda fn: Jit(fn, static_argnums, donate_argnums, donate_params, **jit_kwargs)
