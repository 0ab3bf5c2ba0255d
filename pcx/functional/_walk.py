"""Remembering a walk over an object graph, and seeing that nothing has changed since.

`collect` visits every object below the keyword arguments, which costs more than a microsecond for each param.
Most calls find what the last one found. So a walk is remembered on the object it began at, together with
the content of every container it went through; comparing that content by identity is many times
cheaper than walking, and as exact: any attribute set or deleted, any element replaced in a list or
dictionary, any static value changed is seen, and then the graph is walked again.
"""

from collections.abc import Iterable
from operator import is_
from typing import Any

import equinox as eqx
import jax

from ..core import BaseModule, DynamicParam, StaticParam


class Walk:
    """The containers of an object graph and what they held.

    Args:
        kwargs: the keyword arguments that were walked.
        params: the params that were found, in order.

    Raises:
        Unrememberable: the graph holds something whose changes could go unseen.
    """

    __slots__ = ("_children", "_dicts", "_lists", "_metadata", "_names", "_statics", "_values")

    def __init__(self, kwargs: dict[str, Any], params: list[DynamicParam]):
        self._dicts: list[dict[Any, Any]] = []
        self._lists: list[list[Any]] = []
        self._statics: list[StaticParam] = []
        self._visit(kwargs.values())
        self._names, self._children = self._content()
        self._values = [s._value for s in self._statics]
        self._metadata = [dict(p.__dict__) for p in params]

    def _visit(self, objects: Iterable[Any]) -> None:
        stack, seen = list(objects), set()
        while stack:
            x = stack.pop()
            if id(x) in seen or x is None or isinstance(x, DynamicParam | str | int | float):
                continue
            seen.add(id(x))
            if isinstance(x, BaseModule):
                if type(x)._register.__func__ is not BaseModule._register.__func__:
                    raise Unrememberable
                self._dicts.append(vars(x))
                stack.extend(vars(x).values())
            elif type(x) is dict:
                self._dicts.append(x)
                stack.extend(x.values())
            elif type(x) is list:
                self._lists.append(x)
                stack.extend(x)
            elif isinstance(x, StaticParam):
                _check_hashable(x._value)
                self._statics.append(x)
            elif isinstance(x, tuple):
                stack.extend(x)
            elif isinstance(x, eqx.Module):
                stack.extend(vars(x).values())
            elif isinstance(x, jax.Array):
                pass
            elif jax.tree_util.all_leaves([x]):
                _check_hashable(x)
            else:
                raise Unrememberable

    def _content(self) -> tuple[list[Any], list[Any]]:
        names: list[Any] = []
        children: list[Any] = []
        for d in self._dicts:
            names += d
            children += d.values()
        for x in self._lists:
            children += x
        return names, children

    def fits(self) -> bool:
        """Whether every container still holds the very same objects under the same names."""
        names, children = self._content()
        return (
            len(names) == len(self._names)
            and len(children) == len(self._children)
            and all(map(is_, names, self._names))
            and all(map(is_, children, self._children))
            and all(map(is_, [s._value for s in self._statics], self._values))
        )

    def same_metadata(self, params: list[DynamicParam]) -> bool:
        """Whether the params carry the attributes that they carried."""
        return [p.__dict__ for p in params] == self._metadata


class Unrememberable(Exception):
    """The graph holds something whose changes could go unseen."""


def _check_hashable(value: Any) -> None:
    # what has no hash (a list in a `static`, an array) can be edited in place
    try:
        hash(value)
    except TypeError:
        raise Unrememberable from None
