"""`Layer` and `StatefulLayer`: the one adapter from an equinox module to a pcx module."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, tree_flatten, tree_map, tree_map_with_path

from ..core import RKG, Module, RandomKeyGenerator, describe, get, is_param, locate
from ._param import BufferParam, HeldKey, LayerParam, StateParam
from ._precision import active_dtype, cast_floating, floating_dtype
from ._view import View

NOT_CALLABLE = """Layer wraps callable modules; {name} is not callable. Pass the class and its \
arguments apart, as in `pxnn.Layer(eqx.nn.MLP, 2, 2, 8, 1)`, and give the class a `__call__`."""

NO_INPUT = """the layer {name} was called with None. If that is the state of a vode, it has no \
value yet: initialise the states with a forward pass, \
`with pxu.step(model, pxc.STATUS.INIT): model(x)`."""

STATEFUL = """Layer({name}): this module's call takes a state beside its input. Write \
`pxnn.StatefulLayer({name}, ...)`, which keeps the state in a param and passes it."""


class Layer(Module):
    """Makes any equinox module a pcx layer: its arrays become `LayerParam`s under `.nn`.

    Arrays of integers or booleans become `BufferParam`s: they are saved, and nothing trains them.
    Settings answer under `.nn` as values and by `.get()`.

    Train and eval mode set the `inference` flags of the wrapped module. A module that draws random
    numbers when called (dropout) takes its key from `px.RKG`, unless the call passes one.

    Args:
        cls: an equinox module class, or any class whose instances are callable pytrees. If its
            constructor takes a `key`, one is drawn from `rkg`.
        *args: for the constructor of `cls`.
        filter: which floating point leaves become `LayerParam`s; arrays by default. The others stay
            as they are.
        hold: draw random numbers once for each `pxnn.training_batch`, so that every pass of a
            training step (and every call in a pass) drops the same units. By default each call
            draws anew.
        rkg: where random keys come from.
        **kwargs: for the constructor of `cls`.

    Raises:
        TypeError: instances of `cls` cannot be called, or need a state (see `StatefulLayer`).

    Example:
        >>> import equinox as eqx, jax.numpy as jnp, pcx.nn as pxnn
        >>> layer = pxnn.Layer(eqx.nn.Linear, 3, 2)
        >>> layer.nn.weight
        LayerParam(f32[2,3])
        >>> layer(jnp.ones(3)).shape
        (2,)
    """

    def __init__(
        self,
        cls: Callable[..., Any],
        /,
        *args: Any,
        filter: Callable[[Any], bool] = eqx.is_array,
        hold: bool = False,
        rkg: RandomKeyGenerator = RKG,
        **kwargs: Any,
    ):
        module = self._build(cls, args, kwargs, rkg)
        if not callable(module):
            raise TypeError(NOT_CALLABLE.format(name=type(module).__name__))
        # decided here and kept as static values: calls are traced often, constructors are not
        self._key_use = _key_use(module)
        if hold:
            self.held_key = HeldKey()
        self.nn = tree_map(functools.partial(_as_param, filter), module)

    @property
    def nn(self) -> Any:
        """The wrapped module, with params for arrays."""
        module = self.__dict__["nn"]
        return View(module) if isinstance(module, eqx.Module) else module

    @nn.setter
    def nn(self, module: Any) -> None:
        self.__dict__["nn"] = module

    def _build(self, cls: Any, args: Any, kwargs: dict[str, Any], rkg: RandomKeyGenerator) -> Any:
        module = _construct(cls, args, kwargs, rkg)
        if any(isinstance(part, eqx.nn.StateIndex) for part in _parts(module)):
            raise TypeError(STATEFUL.format(name=type(module).__name__))
        return module

    def __call__(self, *args: Any, key: jax.Array | None = None, **kwargs: Any) -> Any:
        """Call the wrapped module.

        Args:
            *args: for the wrapped module.
            key: for a module that draws random numbers; taken from `px.RKG` if not given.
            **kwargs: for the wrapped module.
        """
        dtype = active_dtype()
        if dtype is None:
            return self._call(args, key, kwargs)
        output = self._call(cast_floating(args, dtype), key, kwargs, dtype)
        return cast_floating(output, floating_dtype(args))

    def _call(
        self, args: tuple[Any, ...], key: Any, kwargs: dict[str, Any], dtype: Any = None
    ) -> Any:
        module = tree_map(get, self.__dict__["nn"], is_leaf=is_param)
        if dtype is not None:
            module = cast_floating(module, dtype)
        if key is None and self._key_use != "never":
            wanted = self._key_use == "always" or not self.is_eval
            # the key may be among the positional arguments
            given = "key" in inspect.signature(module).bind_partial(*args, **kwargs).arguments
            key = self._draw() if wanted and not given else None
        if key is not None:
            kwargs = {**kwargs, "key": key}
        try:
            return module(*args, **kwargs)
        except (TypeError, ValueError, AttributeError) as error:
            name = type(module).__name__
            if any(arg is None for arg in args):
                raise TypeError(NO_INPUT.format(name=name)) from error
            inputs = ", ".join(describe(arg) for arg in args if not isinstance(arg, eqx.nn.State))
            where = f" at `{path}`" if (path := locate(self)) else ""
            error.add_note(f"This happened in the {name}{where}, called with {inputs}.")
            raise

    def _draw(self) -> jax.Array:
        held = self.__dict__.get("held_key")
        key = None if held is None else held.get()
        return RKG() if key is None else key

    def _on_mode_change(self) -> None:
        inference = self.is_eval

        def flip(path: Any, leaf: Any) -> Any:
            named = path and isinstance(path[-1], GetAttrKey) and path[-1].name == "inference"
            return inference if named and isinstance(leaf, bool) else leaf

        self.nn = tree_map_with_path(flip, self.__dict__["nn"], is_leaf=is_param)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__['nn']!r})"


class StatefulLayer(Layer):
    """A `Layer` around an equinox module with state (`eqx.nn.State`), such as a spectral norm.

    The state is a `StateParam` in `.state`. Every call in train mode (or in neither mode) updates
    it, in a `pxnn.training_batch` once for each batch; eval mode leaves it alone.

    Args:
        cls: an equinox module class whose instances are called as `module(*args, state)` and return
            `(output, new state)`.
        *args: for the constructor of `cls`.
        filter: as for `Layer`.
        rkg: as for `Layer`.
        **kwargs: for the constructor of `cls`.

    Example:
        >>> import equinox as eqx, jax.numpy as jnp, pcx as px, pcx.nn as pxnn
        >>> linear = eqx.nn.Linear(3, 2, key=px.RKG())
        >>> layer = pxnn.StatefulLayer(eqx.nn.SpectralNorm, linear, "weight")
        >>> layer(jnp.ones(3)).shape
        (2,)
    """

    def _build(self, cls: Any, args: Any, kwargs: dict[str, Any], rkg: RandomKeyGenerator) -> Any:
        module, state = eqx.nn.make_with_state(_construct)(cls, args, kwargs, rkg)
        self.state = StateParam(state)
        return module

    def __call__(self, *args: Any, key: jax.Array | None = None, **kwargs: Any) -> Any:
        """Call the wrapped module with its state, keep the new state, and return the output."""
        # equinox kills the old state object on update; a copy keeps ours alive if the call fails
        state = tree_map(lambda x: x, self.state.get())
        output, state = self._call((*args, state), key, kwargs)
        if not self.is_eval:
            self.state.update(state)
        return output


class NamedLayer(Layer):
    """Base of the named layers: `wraps` says which equinox class.

    The constructor's arguments are read from that class, not copied, so they cannot drift from it.

    Example:
        >>> import equinox as eqx, jax.numpy as jnp, pcx.nn as pxnn
        >>> class MLP(pxnn.NamedLayer):
        ...     wraps = eqx.nn.MLP
        >>> MLP(3, 2, width_size=8, depth=1)(jnp.ones(3)).shape
        (2,)
    """

    wraps: ClassVar[Any]
    # constructor arguments whose name differs here from equinox's: ours -> theirs
    renames: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "wraps" in cls.__dict__:
            describe_as(cls, cls.wraps, cls.renames)

    def __init__(self, *args: Any, **kwargs: Any):
        for ours, theirs in self.renames.items():
            if ours in kwargs:
                if theirs in kwargs:
                    raise TypeError(
                        f"{type(self).__name__}: {ours!r} and {theirs!r} are one argument; pass one of them"
                    )
                kwargs[theirs] = kwargs.pop(ours)
        super().__init__(self.wraps, *args, **kwargs)


def describe_as(cls: type, wraps: Any, renames: dict[str, str], **defaults: Any) -> None:
    """Give a layer class the constructor signature of an equinox class, for `help`.

    Args:
        renames: `{our name: theirs}` of the arguments.
        **defaults: defaults that differ from equinox's.
    """
    ours = {theirs: name for name, theirs in renames.items()}
    parameters = [
        p.replace(
            name=ours.get(p.name, p.name),
            default=defaults.get(p.name, p.default),
        )
        for p in inspect.signature(wraps).parameters.values()
        if p.name != "key" and p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    rkg = inspect.Parameter(
        "rkg", inspect.Parameter.KEYWORD_ONLY, default=RKG, annotation=RandomKeyGenerator
    )
    cls.__signature__ = inspect.Signature([*parameters, rkg])  # type: ignore[attr-defined]
    cls.__doc__ = (
        f"{inspect.cleandoc(cls.__doc__ or '')}\n\n"
        f"Arguments as for `equinox.nn.{wraps.__name__}`, with `rkg=` in place of `key=`."
    )


def _as_param(filter: Callable[[Any], bool], leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | np.ndarray) and not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return BufferParam(leaf)
    return LayerParam(leaf) if filter(leaf) else leaf


def _construct(cls: Any, args: Any, kwargs: dict[str, Any], rkg: RandomKeyGenerator) -> Any:
    if "key" not in kwargs and _parameter(cls, "key") is not None:
        kwargs = {**kwargs, "key": rkg()}
    return cls(*args, **kwargs)


def _parameter(function: Any, name: str) -> inspect.Parameter | None:
    try:
        return inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # some builtins have no signature
        return None


def _key_use(module: Any) -> str:
    """When a call needs a random key: "always", "not in eval" or "never".

    Nearly every equinox layer accepts a key and ignores it. Drawing one for those would be waste,
    and would make random results depend on how many such layers there are; so a key is drawn only
    if some part of the module uses it: dropout, or a module from elsewhere whose call takes a key.
    """
    key = _parameter(module, "key")
    if key is None:
        return "never"
    if key.default is inspect.Parameter.empty:
        return "always"
    if any(map(_draws, _parts(module))):
        return "not in eval"
    return "never"


def _draws(part: Any) -> bool:
    if isinstance(part, eqx.nn.Dropout):
        return True
    theirs = type(part).__module__.partition(".")[0] == "equinox"
    return not theirs and callable(part) and _parameter(part, "key") is not None


def _parts(tree: Any) -> Iterator[Any]:
    """Every equinox module in a tree, itself included, outer ones first."""
    if isinstance(tree, eqx.Module):
        yield tree
    for child in tree_flatten(tree, is_leaf=lambda x: x is not tree and isinstance(x, eqx.Module))[
        0
    ]:
        if child is not tree and isinstance(child, eqx.Module):
            yield from _parts(child)
