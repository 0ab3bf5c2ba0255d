"""Remembering a walk over an object graph, and seeing that nothing has changed since.

A walk visits every object below the keyword arguments, which costs about a microsecond for each
param. Most calls find what the last one found. So a walk is remembered on the object it began at,
together with the content of every container it went through; comparing that content by identity
is several times cheaper than walking, and as exact: any attribute set or deleted, any element
replaced in a list or dictionary, any static value edited, any class replaced is seen, and then the
graph is walked again.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import equinox as eqx
import jax

from ..core import CODE, RKG, BaseModule, Content, DynamicParam, StaticParam

_VALUE = attrgetter("_value")


class Unrememberable(Exception):
    """The graph holds something whose changes could go unseen."""


class Walk:
    """The containers of an object graph and what they held.

    Args:
        kwargs: the keyword arguments that were walked.
        params: the params that were found.
        root: the object that remembers this, which is not held.

    Raises:
        Unrememberable: the graph holds something whose changes could go unseen.
    """

    __slots__ = (
        "_codes",
        "_containers",
        "_content",
        "_dicts",
        "_functions",
        "_held",
        "_lists",
        "_objects",
        "_sizes",
        "_statics",
        "_types",
    )

    def __init__(self, kwargs: dict[str, Any], params: list[DynamicParam], root: Any):
        self._dicts: list[dict[Any, Any]] = [param.__dict__ for param in params]  # metadata
        self._lists: list[Any] = []
        self._statics: list[StaticParam] = []
        self._objects: list[Any] = [*params]
        self._functions: list[Any] = []
        for metadata in [*self._dicts]:
            for value in metadata.values():
                self._look_into(value)
        self._visit(kwargs.values())
        self._containers: list[Any] = [*self._dicts, *self._lists]
        self._sizes = list(map(len, self._containers))
        # names and values of the dictionaries, live; empty ones hold nothing to compare
        dicts = [d for d in self._dicts if d]
        self._content: list[Any] = [*dicts, *map(dict.values, dicts), *self._lists]
        self._held = list(self._present())
        # `_Memory` compares its class
        self._objects = [x for x in self._objects if x is not root]
        self._types = list(map(type, self._objects))
        self._codes = list(map(CODE, self._functions))

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
                self._objects.append(x)
                self._dicts.append(vars(x))
                stack.extend(vars(x).values())
            elif type(x) is dict:
                self._dicts.append(x)
                stack.extend(x.values())
            elif type(x) is list:
                self._lists.append(x)
                stack.extend(x)
            elif isinstance(x, StaticParam):
                self._look_into(x._value)
                self._look_into(x.metadata)
                self._statics.append(x)
                self._objects.append(x)
                self._dicts.append(vars(x))
            elif isinstance(x, tuple):
                stack.extend(x)
            elif isinstance(x, eqx.Module):
                self._objects.append(x)
                self._dicts.append(vars(x))
                stack.extend(vars(x).values())
            elif isinstance(x, jax.Array):
                pass
            elif jax.tree_util.all_leaves([x]):
                self._look_into(x)
            else:
                raise Unrememberable

    def _look_into(self, static: Any) -> None:
        content = Content()
        content.of(static)
        if not content.seen_whole:
            raise Unrememberable
        for container in content.containers:
            (self._dicts if isinstance(container, dict) else self._lists).append(container)
        self._objects += content.objects
        self._functions += content.functions

    def _present(self) -> Iterator[Any]:
        return chain(chain.from_iterable(self._content), map(_VALUE, self._statics))

    def fits(self) -> bool:
        """Whether every container still holds the very same objects under the same names."""
        return (
            list(map(len, self._containers)) == self._sizes
            and all(map(is_, self._present(), self._held))
            and all(map(is_, map(type, self._objects), self._types))
            and all(map(is_, map(CODE, self._functions), self._codes))
        )
