"""`Transform`, the base of all tracked transforms."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from jax.tree_util import keystr, tree_flatten_with_path

from ..core import BaseModule, describe
from ._leaves import is_dynamic

NO_FUNCTION = """pxf.{name} takes its options first and the function second: write \
`pxf.{name}(...)(fn)` or decorate with `@pxf.{name}(...)`; got {got!r} in place of the function"""

NOT_DATA = """{title}: positional argument {position} {what}. Positional arguments are plain JAX \
values and are never tracked. Pass it by keyword, as in `f(x, model=model)`, and declare it after \
a `*`: `def f(x, *, model): ...`{or_static}"""


class Transform:
    """A function under a transform that keeps track of params. Keeps its name and documentation."""

    name: ClassVar[str]

    def __init__(self, fn: Callable[..., Any]):
        if not callable(fn):
            raise TypeError(NO_FUNCTION.format(name=self.name, got=fn))
        self.fn = fn
        self.title = f"pxf.{self.name}({getattr(fn, '__name__', type(fn).__name__)})"
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # as for any function in a class body: a method
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({show_function(self.fn)})"


def show_function(fn: Any) -> str:
    """A transform with all layers below it, or the name of a function."""
    return repr(fn) if isinstance(fn, Transform) else getattr(fn, "__qualname__", repr(fn))


def refuse_non_data(title: str, args: Sequence[Any], may_be_static: bool = False) -> None:
    """Raise if a positional argument holds a leaf that JAX cannot take, such as a module's name."""
    for position, arg in enumerate(args):
        for path, leaf in tree_flatten_with_path(arg)[0]:
            if is_dynamic(leaf) or hasattr(leaf, "__jax_array__"):
                continue
            where = f" at `{keystr(path).lstrip('.')}`" if path else ""
            what = f"is or holds {describe(leaf)[:60]}{where}, which is no array"
            if isinstance(arg, BaseModule):
                what = f"is a {type(arg).__name__}, which has attributes that are not arrays{where}"
            or_static = ", or list its position in `static_argnums`" if may_be_static else ""
            raise TypeError(
                NOT_DATA.format(title=title, position=position, what=what, or_static=or_static)
            )
