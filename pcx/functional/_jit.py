"""`jit` that keeps track of params."""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import jax

from ..core import RKG_LOCK, check_call, uncommitted
from ._collect import Key, Parts, take_apart
from ._donation import INTERRUPTS, unshared
from ._explain import explain
from ._tracked import Structure, changes, store, write_back
from ._transform import Transform, refuse_non_data
from ._version import Output, Version

UNCOMPARABLE = """{title}: a static value in the keyword arguments cannot be compared to that of \
an earlier call ({error}). A value that is not an array decides for which code the function is \
compiled, so it needs `==` with a bool. An array does not belong in a static field of an equinox \
module or in the metadata of a param: keep it in a `px.Param`"""

NO_SUCH_KEYWORD = """{title}: donate_argnames={names} names {got!r}, which is not a keyword \
argument of this call (they are: {known}). Positional arguments are donated with `donate_argnums`"""

LOST = """pcx: the params were donated (donate_params=True) before this error came, and their old \
arrays are gone. Load them again, or run with donate_params=False (`donate=False` in pcx.algorithms)"""

# versions of objects that are gone, kept because an equal model may be made anew
KEEP_RETIRED = 4
# the first calls run Python code of JAX after the arrays were donated, the others do not
COLD_CALLS = 3

_NUMBERS = itertools.count()


class _Calls(threading.local):
    """The call in progress, for its trace.

    Attributes:
        now: the version and the keyword arguments.
        key: the key that it was called with, if it is outermost and does not hold the lock.
        locked: whether its trace took the lock.
    """

    now: tuple[Version, Parts] | None = None
    key: Any = None
    locked = False


_CALLS = _Calls()


class _KeyMoved(Exception):
    """Another thread draws, or drew, from the key with which this call is traced."""


class Jit(Transform):
    """See `jit`."""

    name = "jit"

    def __init__(
        self,
        fn: Callable[..., Any],
        static_argnums: int | Sequence[int] | None = None,
        donate_argnums: int | Sequence[int] | None = None,
        donate_argnames: str | Sequence[str] | None = None,
        donate_params: bool = False,
        **jit_kwargs: Any,
    ):
        super().__init__(fn)
        self.donate_params = donate_params
        self._names = _as_tuple(donate_argnames)
        self._static = _as_tuple(static_argnums)
        self._donated = _shift(_as_tuple(donate_argnums))
        self._options = {"static_argnums": _shift(self._static) or None, **jit_kwargs}
        self._by_key: dict[Key, Version] = {}
        self._number = next(_NUMBERS)
        self._compiled(None, donate=False)  # options that JAX refuses are refused here

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parts = take_apart(kwargs)
        found = parts.versions.get(self._number)
        version = (found and found()) or self._version(parts, kwargs)
        outermost = check_call(self.title, len(parts.params) > 1)
        if not (version.draws and outermost):
            try:
                return self._run(version, parts, args, outermost)
            except _KeyMoved:
                with RKG_LOCK:
                    return self(*args, **kwargs)
        with RKG_LOCK:  # no other thread may draw from the same key
            parts.values[0] = parts.params[0]._value
            return self._run(version, parts, args, outermost)

    def _run(self, version: Version, parts: Parts, args: tuple[Any, ...], outermost: bool) -> Any:
        key, *kept = parts.values
        parts.values.clear()  # for `unshared`, which counts references
        given: list[Any] = []
        jitted = version.jitted
        # inside another transform there is nothing to give away: the arrays are the outer one's
        donates = outermost and version.donating is not None
        if donates:
            jitted = version.donating
            given, kept = _split(kept, version.chosen)
            given = unshared(given)
        out: list[Any] = []
        try:
            _CALLS.now = version, parts
            _CALLS.key = key if outermost and not version.draws else None
            if donates and version.used < COLD_CALLS:
                INTERRUPTS.start()
            # one call into C, so that an interrupt finds the new arrays in `out` or the old alive
            call = (key, given, kept, parts.arrays, *args)
            try:
                out.extend(itertools.starmap(jitted, (call,)))
            except ValueError:
                free = uncommitted(key)
                if free is key:
                    raise
                # drawn on another device last
                out.extend(itertools.starmap(jitted, ((free, *call[1:]),)))
            version.used += 1
            updates = out[0].func.updates(*out[0].args)
            if outermost:
                store(parts.params, updates)
            else:
                write_back(parts.params, updates)
            return out[0]()
        except BaseException as error:
            if not (out or version.used):
                # JAX never again takes the fast path of a function whose first trace failed
                self._by_key.pop(parts.key, None)
                parts.versions.pop(self._number, None)
            if out and outermost:
                store(parts.params, out[0].func.updates(*out[0].args))
            elif isinstance(error, TypeError):
                refuse_non_data(self.title, self._without_statics(args), may_be_static=True)
            elif any(getattr(value, "is_deleted", bool)() for value in given):
                error.add_note(LOST)
            raise
        finally:
            _CALLS.now = _CALLS.key = None
            if _CALLS.locked:
                _CALLS.locked = False
                RKG_LOCK.release()
            if INTERRUPTS.handlers:
                INTERRUPTS.stop()

    def _version(self, parts: Parts, kwargs: dict[str, Any]) -> Version:
        """The version for these keyword arguments, an old or a new one."""
        try:
            version = self._by_key.pop(parts.key, None)
        except (TypeError, ValueError) as error:
            if isinstance(error.__cause__, BaseException) and not isinstance(
                error.__cause__, Exception
            ):
                raise error.__cause__ from None  # Ctrl-C, which JAX reports as an error of `==`
            raise TypeError(UNCOMPARABLE.format(title=self.title, error=error)) from error
        if version is None:
            retired = [key for key, v in list(self._by_key.items()) if not v.lives()]
            for key in retired[: -KEEP_RETIRED or None]:
                self._by_key.pop(key, None)  # unless another thread did
            version = self._new_version(parts, kwargs)
        self._by_key[parts.key] = version  # the last used is the last
        version.note(kwargs)
        parts.versions[self._number] = ref(version)
        return version

    def _new_version(self, parts: Parts, kwargs: dict[str, Any]) -> Version:
        chosen = None
        if self._names and not self.donate_params:
            for name in self._names:
                if name not in kwargs:
                    known = ", ".join(map(repr, kwargs)) or "none"
                    raise ValueError(
                        NO_SUCH_KEYWORD.format(
                            title=self.title, names=self._names, got=name, known=known
                        )
                    )
            named = {id(p) for p in take_apart({n: kwargs[n] for n in self._names}).params[1:]}
            structure = Structure(parts)
            chosen = tuple(structure.spread([id(p) in named for p in parts.params])[1:])
        donating = None
        if self.donate_params or self._names:
            donating = self._compiled(chosen, donate=True)
        return Version(self._compiled(None, donate=False), donating, chosen)

    def _compiled(self, chosen: tuple[bool, ...] | None, donate: bool) -> Any:
        title, fn, known = self.title, self.fn, self._by_key

        def pure(key: Any, given: Any, kept: Any, plain: Any, *args: Any) -> Output:
            assert _CALLS.now is not None
            (version, parts), called_with = _CALLS.now, _CALLS.key
            values = (key, *_merge(given, kept, chosen), *plain)
            explain(title, version, parts, known, values, args)
            # donated arrays are gone after the call, so then every param needs its new one
            result, updates = Structure(parts).run(title, fn, values, args, full=donate)
            new = changes(updates)
            if new.get(0, key) is key:  # the key is not donated
                new.pop(0, None)
            if 0 in new and called_with is not None:
                # from here to the end of the call signals wait: one in between would leave it locked
                INTERRUPTS.start()
                # without waiting: who holds it may wait for this trace
                _CALLS.locked = RKG_LOCK.acquire(blocking=False)
                if not _CALLS.locked or parts.params[0]._value is not called_with:
                    version.draws = True
                    raise _KeyMoved
            version.draws = bool(version.draws) or 0 in new
            output = Output.of(result, new)
            if donate:
                INTERRUPTS.start()
            return output

        pure.__name__ = pure.__qualname__ = getattr(fn, "__name__", "pure")
        donated = (*self._donated, 1) if donate else self._donated
        return jax.jit(pure, donate_argnums=donated or None, **self._options)

    def _without_statics(self, args: tuple[Any, ...]) -> list[Any]:
        static = {n % len(args) for n in self._static} if args else set()
        return [None if n in static else arg for n, arg in enumerate(args)]

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The lowered computation of this call, as `jax.jit(...).lower`; nothing is run."""
        return self._ahead("lower", args, kwargs)

    def jaxpr(self, *args: Any, **kwargs: Any) -> Any:
        """The jaxpr of this call; nothing is run, and the call itself need not trace it again.

        Its inputs are the params' values and then the positional arguments, its outputs the new values
        of the params and then the result.

        Raises:
            TypeError, ValueError: as the call does.

        Example:
            >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
            >>> double = pxf.jit()(lambda x, *, w: 2 * w * x)
            >>> jaxpr = double.jaxpr(jnp.ones(3), w=px.Param(jnp.ones(())))
            >>> [var.aval.shape for var in jaxpr.outvars]
            [(3,)]
        """
        return self._ahead("trace", args, kwargs).jaxpr.jaxpr

    def _ahead(self, stage: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parts = take_apart(kwargs)
        version = self._version(parts, kwargs)
        key, *own = parts.values
        given, kept = ([], own) if version.donating is None else _split(own, version.chosen)
        try:
            _CALLS.now = version, parts
            jitted = version.donating or version.jitted
            return getattr(jitted, stage)(key, given, kept, parts.arrays, *args)
        finally:
            _CALLS.now = None
            if INTERRUPTS.handlers:
                INTERRUPTS.stop()

    def clear_cache(self) -> None:
        """Forget compiled versions."""
        self._by_key.clear()

    @property
    def _versions(self) -> list[Version]:
        """The versions of living objects."""
        return [version for version in self._by_key.values() if version.lives()]

    @property
    def _donating(self) -> "Jit":
        return self

    def _cache_size(self) -> int:
        """Number of compiled functions held, as `jax.jit` counts them."""
        both = [f for v in self._by_key.values() for f in (v.jitted, v.donating) if f is not None]
        return sum(f._cache_size() for f in both)


def _as_tuple(option: Any) -> tuple[Any, ...]:
    return () if option is None else (option,) if isinstance(option, int | str) else tuple(option)


def _shift(argnums: tuple[int, ...]) -> tuple[int, ...]:
    # four arguments of the protocol come first; negative numbers count from the end as before
    return tuple(n if n < 0 else n + 4 for n in argnums)


def _split(own: list[Any], chosen: tuple[bool, ...] | None) -> tuple[list[Any], list[Any]]:
    """The arrays to give away, and the others; `own` is empty afterwards unless it is returned."""
    if chosen is None:
        return own, []
    given = [value for value, wanted in zip(own, chosen, strict=True) if wanted]
    kept = [value for value, wanted in zip(own, chosen, strict=True) if not wanted]
    own.clear()
    return given, kept


def _merge(given: list[Any], kept: list[Any], chosen: tuple[bool, ...] | None) -> list[Any]:
    if chosen is None:
        return [*given, *kept]
    given_, kept_ = iter(given), iter(kept)
    return [next(given_ if wanted else kept_) for wanted in chosen]


def jit(
    static_argnums: int | Sequence[int] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Sequence[str] | None = None,
    donate_params: bool = False,
    **jit_kwargs: Any,
) -> Callable[[Callable[..., Any]], Jit]:
    """Compile a function whose keyword arguments are tracked; positional ones are as in `jax.jit`.

    A change of structure (a static value, metadata of a param, a state that was empty) compiles
    again; nothing else does. What was compiled is freed when the objects it was compiled for are.

    Args:
        static_argnums: positions of positional arguments that are compile-time constants.
        donate_argnums: positions of positional arguments whose memory XLA may reuse.
        donate_argnames: names of keyword arguments whose params' memory XLA may reuse.
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
    return lambda fn: Jit(
        fn, static_argnums, donate_argnums, donate_argnames, donate_params, **jit_kwargs
    )
