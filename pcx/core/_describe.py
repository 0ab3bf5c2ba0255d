"""Short descriptions of values, for `repr` and error messages."""

from typing import Any


def describe(value: Any) -> str:
    """A short description of a value: `f32[3,4]` for arrays."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        short = str(dtype).replace("float", "f").replace("uint", "u").replace("int", "i")
        return f"{short}[{','.join(map(str, shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(describe(v) for v in value)
        if len(inner) > 60:
            inner = f"{len(value)} items"
        return f"{type(value).__name__}({inner})"
    return repr(value)
