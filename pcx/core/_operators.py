"""The array operators that `Param` forwards, from one table.

Binary and comparison operators unwrap both sides and return plain arrays; the in-place form updates
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
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge")
}
_EQUALITY: dict[str, Callable[[Any, Any], Any]] = {"eq": operator.eq, "ne": operator.ne}
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
    "iter": iter,
}


def install_operators(cls: type, unwrap: Callable[[Any], Any]) -> None:
    """Give `cls` every operator of the tables above.

    Args:
        cls: a class with `_read()`, `_operand(name)` (the value, or an error if there is none) and
            `set(value)`.
        unwrap: returns the value of a param, and anything else as it is.
    """

    def add(name: str, method: Callable[..., Any]) -> None:
        method.__name__ = method.__qualname__ = dunder = f"__{name}__"
        setattr(cls, dunder, method)

    for name, fn in _EQUALITY.items():
        add(name, lambda self, other, fn=fn: fn(self._read(), unwrap(other)))
    for name, fn in (_BINARY | _ORDER).items():
        add(name, lambda self, other, fn=fn, n=name: fn(self._operand(n), unwrap(other)))
    for name, fn in _BINARY.items():
        add("r" + name, lambda self, other, fn=fn, n=name: fn(unwrap(other), self._operand(n)))
        if name != "divmod":
            add(
                "i" + name,
                lambda self, other, fn=fn, n=name: self.set(fn(self._operand(n), unwrap(other))),
            )
    for name, unary in _UNARY.items():
        add(name, lambda self, *args, fn=unary, n=name: fn(self._operand(n), *args))
    add("contains", lambda self, item: unwrap(item) in self._operand("in"))
    add("getitem", lambda self, index: self._operand("[...]")[_unwrap_index(index, unwrap)])
    add(
        "setitem",
        lambda self, index, value: self.set(
            self._jax_array("[...]").at[_unwrap_index(index, unwrap)].set(unwrap(value))
        ),
    )


def _unwrap_index(index: Any, unwrap: Callable[[Any], Any]) -> Any:
    return tuple(map(unwrap, index)) if isinstance(index, tuple) else unwrap(index)
