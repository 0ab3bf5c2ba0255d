"""Remembering a walk over an object graph, and seeing that nothing has changed since.

A walk visits every object below the keyword arguments, which costs about a microsecond for each
param. Most calls find what the last one found. So a walk is remembered on the object it began at,
together with the content of every container it went through; comparing that content by identity
is several times cheaper than walking, and as exact: any attribute set or deleted, any element
replaced in a list or dictionary, any static value changed is seen, and then the graph is walked
again.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import is_
from typing import Any

import equinox as eqx
import jax

from ..core import RKG, BaseModule, DynamicParam, StaticParam


class Unrememberable(Exception):
    """The graph holds something whose changes could go unseen."""


class Walk:
    """The containers of an object graph and what they held.

    Args:
        kwargs: the keyword arguments that were walked.
        params: the params that were found.

    Raises:
        Unrememberable: the graph holds something whose changes could go unseen.
    """

    __slots__ = ("_children", "_containers", "_dicts", "_lists", "_names", "_sizes", "_statics")

    def __init__(self, kwargs: dict[str, Any], params: list[DynamicParam]):
        self._dicts: list[dict[Any, Any]] = [param.__dict__ for param in params]  # metadata
        for metadata in self._dicts:
            for value in metadata.values():
                _check_hashable(value)
        self._lists: list[Any] = []
        self._statics: list[StaticParam] = []
        self._visit(kwargs.values())
        self._containers: list[Any] = [*self._dicts, *self._lists]
        self._sizes = list(map(len, self._containers))
        # empty ones hold nothing to compare
        self._dicts = [d for d in self._dicts if d]
        self._names = list(chain.from_iterable(self._dicts))
        self._children = list(self._content())

    def _visit(self, objects: Iterable[Any]) -> None:
        stack, seen = list(objects), set()
        while stack:
            x = stack.pop()
            if id(x) in seen or x is None or isinstance(x, DynamicParam | str | int | float):
                continue
            seen.add(id(x))
            if isinstance(x, BaseModule):
                if isinstance(x, type(RKG)):
                    raise Unrememberable  # its content depends on the running transform
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
                self._dicts.append(vars(x))
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

    def _content(self) -> Iterator[Any]:
        values = map(dict.values, self._dicts)
        statics = [static._value for static in self._statics]
        return chain(chain.from_iterable(values), chain.from_iterable(self._lists), statics)

    def fits(self) -> bool:
        """Whether every container still holds the very same objects under the same names."""
        return (
            list(map(len, self._containers)) == self._sizes
            and all(map(is_, chain.from_iterable(self._dicts), self._names))
            and all(map(is_, self._content(), self._children))
        )


def _check_hashable(value: Any) -> None:
    # what has no hash (a list in a `static`, an array) can be edited in place
    try:
        hash(value)
    except TypeError:
        raise Unrememberable from None
