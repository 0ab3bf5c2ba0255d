"""Which transform is running: the guard against dead tracers.

Every tracked transform runs the user's function inside a *scope*. Params and modules remember
the scope they were made in. Writing a tracer into one that belongs to an outer scope would leave
a dead tracer behind when the transform returns, so it is refused at once, at the line that does it.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.core import Tracer


class Scope:
    """A token for one run of a transform's body; compared by identity."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _State(threading.local):
    scope: Scope | None = None
    # the param that `px.RKG` draws from inside the running transform; None outside of any
    key: Any = None


state = _State()


@contextlib.contextmanager
def enter(name: str) -> Iterator[Scope]:
    """Run the block in a fresh scope; the previous one comes back even if the block raises."""
    outer = state.scope, state.key
    state.scope = scope = Scope(name)
    try:
        yield scope
    finally:
        state.scope, state.key = outer


def has_tracer(value: Any) -> bool:
    """Whether a pytree holds a traced array."""
    if isinstance(value, jax.Array):
        return isinstance(value, Tracer)
    return any(isinstance(leaf, Tracer) for leaf in jax.tree_util.tree_leaves(value))


LEAK = """{what} would be left with a dead tracer: it was made outside `{scope}` and is not one \
of its tracked (keyword) arguments, so what is written to it inside the transform cannot be \
carried out.

Write one of these instead:
  - pass the object that holds it by keyword: `f(x, model=model)`;
  - return the value from the function and store it outside the transform;
  - for a value known before tracing, store a concrete array (NumPy) instead of a traced one."""


def check_write(owner: Scope | None, value: Any, obj: Any, name: str | None = None) -> None:
    """Raise if writing `value` into `obj`, made in scope `owner`, would leave a tracer behind."""
    if owner is state.scope or state.scope is None or not has_tracer(value):
        return
    where = locate(obj) or f"this {type(obj).__name__}"
    what = f"{where}.{name}" if name else where
    raise RuntimeError(LEAK.format(what=f"`{what}`", scope=state.scope.name))


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
