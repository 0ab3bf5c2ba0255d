"""The array operators that `Param` forwards, from one table.

Binary and comparison operators unwrap both sides and give plain arrays; the in-place form updates
the cell and returns it, so `model.w -= lr * g` keeps the object that masks and optimisers know.
"""

import operator
from collections.abc import Callable
from typing import Any

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "divmod": divmod,
}
_COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "pos": operator.pos,
    "abs": abs,
    "invert": operator.invert,
    "round": round,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "len": len,
}


def install_operators(cls: type) -> None:
    """Give `cls` (with `_read` and `.set`) every operator of the tables above."""

    def add(name: str, method: Callable[..., Any]) -> None:
        method.__name__ = method.__qualname__ = dunder = f"__{name}__"
        setattr(cls, dunder, method)

    def value(x: Any) -> Any:
        return x._read() if isinstance(x, cls) else x

    for name, fn in (_BINARY | _COMPARISON).items():
        add(name, lambda self, other, fn=fn: fn(self._read(), value(other)))
    for name, fn in _BINARY.items():
        add("r" + name, lambda self, other, fn=fn: fn(value(other), self._read()))
        if name != "divmod":
            add("i" + name, lambda self, other, fn=fn: self.set(fn(self._read(), value(other))))
    for name, unary in _UNARY.items():
        add(name, lambda self, *args, fn=unary: fn(self._read(), *args))
    add("getitem", lambda self, index: self._read()[_unwrap(index, value)])
    add("contains", lambda self, item: value(item) in self._read())


def _unwrap(index: Any, value: Callable[[Any], Any]) -> Any:
    return tuple(map(value, index)) if isinstance(index, tuple) else value(index)
