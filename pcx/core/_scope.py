"""Which transform is running: the guard against dead tracers.

Every tracked transform runs the user's function inside a *scope*, which knows JAX's trace that it
runs in. Params and modules remember the scope they were made in. Writing a tracer into one that
belongs to an outer scope, or under a trace that the scope does not know (`jax.vmap`, `jax.lax.scan`
and the like inside it), would leave a dead tracer behind when the transform returns, so it is
refused at once, at the line that does it.
"""

import sys
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

try:
    from jax.extend.core import get_opaque_trace_state as _trace_state
except ImportError:  # before JAX 0.8
    from jax.core import get_opaque_trace_state as _trace_state

# which trace of JAX is running; compared with `==`
current_trace = _trace_state

# the trace outside of any transform
with jax.ensure_compile_time_eval():
    _TOP = current_trace()


class Scope:
    """One run of a transform's body; compared by identity.

    Attributes:
        name: the transform, for error messages.
        trace: JAX's trace that the body runs in.
        key: the param that `px.RKG` draws from in it.
        outer: for a transform of JAX's own, which scopes do not know, the scope around it.
    """

    __slots__ = ("key", "name", "outer", "trace")

    def __init__(self, name: str, trace: Any, outer: "Scope | None" = None):
        self.name, self.trace, self.outer = name, trace, outer
        self.key: Any = None

    @classmethod
    def now(cls, name: str) -> "Scope":
        """A scope of the trace of JAX that runs now."""
        return cls(name, current_trace())


class _State:
    """The scope that runs, in each thread."""

    _var: ContextVar[Scope | None] = ContextVar("scope", default=None)

    @property
    def scope(self) -> Scope | None:
        return self._var.get()

    def run(self, scope: Scope, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a scope. It is left in C, where no interrupt can come in between."""
        return copy_context().run(self._run, scope, fn, *args)

    def _run(self, scope: Scope, fn: Callable[..., Any], *args: Any) -> Any:
        self._var.set(scope)
        return fn(*args)


state = _State()

_UNKNOWN = "a transform of JAX's own"


def here() -> Scope | None:
    """Where an object is made: the present scope, or a transform of JAX's own inside it."""
    scope, trace = state.scope, current_trace()
    known = _TOP if scope is None else scope.trace
    return scope if trace == known else Scope(_UNKNOWN, trace, scope)


def in_unknown_trace() -> bool:
    """Whether a transform of JAX's own runs that the present scope does not know."""
    scope = state.scope
    return current_trace() != (_TOP if scope is None else scope.trace)


def made_here(owner: Scope | None) -> bool:
    """Whether an object made in `owner` belongs to what runs now."""
    if owner is not None and owner.name is _UNKNOWN:
        return owner.outer is state.scope and owner.trace == current_trace()
    return owner is state.scope and not in_unknown_trace()


def has_tracer(value: Any) -> bool:
    """Whether a pytree holds a traced array."""
    if isinstance(value, jax.Array):
        return isinstance(value, Tracer)
    return any(isinstance(leaf, Tracer) for leaf in jax.tree_util.tree_leaves(value))


INSTEAD = """Write one of these instead:
  - the transform of the same name in `pcx.functional`, with the object by keyword: `pxf.jit` for \
`jax.jit` and `eqx.filter_jit`, `pxf.vmap`, `pxf.value_and_grad` for `jax.grad`, `pxf.scan` for \
`jax.lax.scan`, `fori_loop` and `map`, `pxf.while_loop`, `pxf.cond`, `pxf.checkpoint`;
  - a pure function, whose changes stay inside: `pxf.pure(fn, model=model)`."""

UNKNOWN_WRITE = (
    """{what} would be left with a dead tracer: it is written inside a transform of JAX's own \
(`jax.jit`, `jax.vmap`, `jax.grad`, `jax.lax.scan`, ...), which does not track params.

"""
    + INSTEAD
)

UNKNOWN_CALL = (
    """{title} is called with params inside a transform of JAX's own (`jax.jit`, `jax.lax.scan`, \
...), which does not track them: they would become constants of it.

"""
    + INSTEAD
)


def check_call(title: str, tracked: bool) -> bool:
    """Refuse a call with params inside a transform of JAX's own that compiles.

    Args:
        title: the transform that is called.
        tracked: whether params are passed to it.

    Returns:
        Whether the call is outermost: nothing is being traced.
    """
    if state.scope is not None:
        return False
    if current_trace() == _TOP:
        return True
    if tracked and has_tracer(jnp.zeros(())):
        raise RuntimeError(UNKNOWN_CALL.format(title=title))
    return False


LEAK = """{what} would be left with a dead tracer: it was made outside `{scope}` and is not one \
of its tracked (keyword) arguments, so what is written to it inside does not reach the caller.

Write one of these instead:
  - pass the object that holds it by keyword: `f(x, model=model)`;
  - return the value from the function and store it outside the transform;
  - for a value known before tracing, store a concrete array (NumPy) instead of a traced one."""


def check_write(owner: Scope | None, value: Any, obj: Any, name: str | None = None) -> None:
    """Raise if writing `value` into `obj`, made in scope `owner`, would leave a tracer behind."""
    if type(value) in _NO_ARRAYS or not has_tracer(value) or made_here(owner):
        return
    where = locate(obj) or f"this {type(obj).__name__}"
    what = f"`{where}.{name}`" if name else f"`{where}`"
    if state.scope is None or in_unknown_trace():
        raise RuntimeError(UNKNOWN_WRITE.format(what=what))
    raise RuntimeError(LEAK.format(what=what, scope=state.scope.name))


_NO_ARRAYS = frozenset({type(None), bool, int, float, str})


# frames that hold no variable of the user, by the first part of their module's name
_FOREIGN = frozenset({"jax", "jaxlib", "pytest", "_pytest", "pluggy", "contextlib", "functools"})


def locate(obj: Any) -> str | None:
    """The path of `obj` as the running code sees it, such as `model.vodes[1].h`; None if unseen.

    Used by error messages only: objects do not know their owners, so the calling functions' local
    variables are searched, outermost first, for `obj` or a module that holds it.
    """
    frames = _user_frames()
    # a module-level frame's locals are its globals: the usual place of `model` in a script
    places = [frame.f_locals for frame in reversed(frames)]
    # a model in a module's globals that a function reaches by closure
    places += [frame.f_globals for frame in frames]
    seen: set[int] = set()
    for place in places:
        for name, value in list(place.items()):
            if value is obj and name != "self":
                return name
            if id(value) in seen or not getattr(type(value), "_is_pcx_module", False):
                continue
            seen.add(id(value))
            path = _path_to(obj, value)
            if path is not None:
                return (type(value).__name__ if name == "self" else name) + path
    return None


def _user_frames() -> list[Any]:
    """The stack, innermost first, without frames of JAX, of pytest and of this folder."""
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _FOREIGN and not module.startswith("pcx.core"):
            frames.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return frames


def _path_to(obj: Any, root: Any) -> str | None:
    if root is obj:
        return ""
    leaves = jax.tree_util.tree_flatten_with_path(root, is_leaf=lambda x: x is obj)[0]
    for path, leaf in leaves:
        if leaf is obj:
            return jax.tree_util.keystr(path)
    return None
