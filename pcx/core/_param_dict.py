"""`ParamDict`, a dictionary in a param, and `ParamCache`, which marks temporary values."""

from collections.abc import Iterator
from typing import Any, Self

from ._param import DynamicParam, get

_MISSING = object()


class ParamCache:
    """Marker class of params that hold temporaries; `M(ParamCache)` selects them.

    Example:
        >>> import pcx as px, pcx.utils as pxu
        >>> class Trace(px.Param, px.ParamCache):
        ...     pass
        >>> pxu.M(px.ParamCache)([px.Param(1), Trace(2)])
        [None, Trace(2)]
    """

    __slots__ = ()


class ParamDict(DynamicParam):
    """A dictionary in one param, for caches. Cleared (`.set(None)`) means empty.

    Example:
        >>> import pcx as px
        >>> d = px.ParamDict()
        >>> d["u"] = 3
        >>> "u" in d, d.get("u"), d.get("e", 0)
        (True, 3, 0)
        >>> "u" in d.set(None)
        False
    """

    __slots__ = ()

    def __init__(self, value: Any = None):
        super().__init__()
        if value is not None:
            self.set(value)

    def get(self, key: Any = _MISSING, default: Any = None) -> Any:
        """The value under `key` (or `default`); without a key, the whole dictionary or None."""
        value = self._read()
        if key is _MISSING:
            return value
        return default if value is None else value.get(key, default)

    def set(self, value: Any) -> Self:
        """Replace the whole dictionary; None empties it.

        Raises:
            TypeError: `value` is neither a dictionary nor None.
        """
        value = get(value)
        if value is not None and not isinstance(value, dict):
            raise TypeError(
                f"ParamDict.set takes a dict or None, got {type(value).__name__}; "
                "write `d[key] = value` for a single entry"
            )
        return super().set(value)

    def __getitem__(self, key: Any) -> Any:
        value = self._read()
        if value is None or key not in value:
            raise KeyError(key)
        return value[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        # a fresh dict: the old one may still be referenced by the caller of a transform
        self.set({**(self._read() or {}), key: value})

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self.set({k: v for k, v in self._read().items() if k != key} or None)

    def __contains__(self, key: Any) -> bool:
        return key in (self._read() or {})

    def __iter__(self) -> Iterator[Any]:
        return iter(self._read() or {})

    def __len__(self) -> int:
        return len(self._read() or {})
