"""`Layer` and `StatefulLayer`: the one adapter from an equinox module to a pcx module."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
from jax.tree_util import GetAttrKey, tree_leaves, tree_map, tree_map_with_path

from ..core import RKG, Module, RandomKeyGenerator, get, is_param
from ._param import LayerParam, StateParam


class Layer(Module):
    """Makes any equinox module a pcx layer: its arrays become `LayerParam`s under `.nn`.

    Args:
        cls: an equinox module class (or any callable pytree class). If its constructor takes a `key`,
            one is drawn from `rkg`.
        *args, **kwargs: for the constructor of `cls`.
        filter: which leaves become params; arrays by default. The others stay as they are.
        rkg: where random keys come from.

    Example:
        >>> import equinox as eqx, jax.numpy as jnp, pcx.nn as pxnn
        >>> layer = pxnn.Layer(eqx.nn.Linear, 3, 2)
        >>> layer.nn.weight
        LayerParam(f32[2,3])
        >>> layer(jnp.ones(3)).shape
        (2,)
    """

    nn: Any

    def __init__(
        self,
        cls: Callable[..., Any],
        *args: Any,
        filter: Callable[[Any], bool] = eqx.is_array,
        rkg: RandomKeyGenerator = RKG,
        **kwargs: Any,
    ):
        self._wrap(self._build(cls, args, kwargs, rkg), filter)

    def _build(self, cls: Any, args: Any, kwargs: dict[str, Any], rkg: RandomKeyGenerator) -> Any:
        if "key" not in kwargs and "key" in inspect.signature(cls).parameters:
            kwargs = {**kwargs, "key": rkg()}
        return cls(*args, **kwargs)

    def _wrap(self, module: Any, filter: Callable[[Any], bool]) -> None:
        if not callable(module):
            raise TypeError(f"Layer wraps callable modules; {type(module).__name__} is not callable")
        self.nn = tree_map(lambda leaf: LayerParam(leaf) if filter(leaf) else leaf, module)
        self._keyed = _wants_key(module)

    def __call__(self, *args: Any, key: jax.Array | None = None, **kwargs: Any) -> Any:
        """Call the wrapped module; a random one (dropout) draws its key from `px.RKG` if none is given."""
        return self._unwrapped()(*args, **self._with_key(key, kwargs), **kwargs)

    def _unwrapped(self) -> Any:
        return tree_map(get, self.nn, is_leaf=is_param)

    def _with_key(self, key: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if key is not None:
            return {"key": key}
        return {"key": RKG()} if self._keyed and not self.is_eval else {}

    def _on_mode_change(self) -> None:
        inference = self.is_eval

        def flip(path: Any, leaf: Any) -> Any:
            named = path and isinstance(path[-1], GetAttrKey) and path[-1].name == "inference"
            return inference if named and isinstance(leaf, bool) else leaf

        self.nn = tree_map_with_path(flip, self.nn, is_leaf=is_param)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.nn!r})"


def _wants_key(module: Any) -> bool:
    """Whether calls need randomness: equinox's own layers take a key they mostly ignore."""
    if type(module).__module__.startswith("equinox"):
        parts = tree_leaves(module, is_leaf=lambda x: isinstance(x, eqx.nn.Dropout))
        if isinstance(module, eqx.nn.Sequential | eqx.nn.Lambda):
            return True
        return any(isinstance(part, eqx.nn.Dropout) for part in parts)
    try:
        return "key" in inspect.signature(module).parameters
    except (TypeError, ValueError):
        return False


class StatefulLayer(Layer):
    """A `Layer` around an equinox module with state (`eqx.nn.State`), such as batch normalisation.

    The state is a `StateParam` in `.state` and is updated by every call in train mode (and in a module
    that is in neither mode); eval mode leaves it alone.

    Args:
        cls, *args, filter, rkg, **kwargs: as for `Layer`.
    """

    def _build(self, cls: Any, args: Any, kwargs: dict[str, Any], rkg: RandomKeyGenerator) -> Any:
        module, state = eqx.nn.make_with_state(lambda: super(StatefulLayer, self)._build(cls, args, kwargs, rkg))()
        self.state = StateParam(state)
        return module

    def __call__(self, *args: Any, key: jax.Array | None = None, **kwargs: Any) -> Any:
        """Call the wrapped module with its state, keep the new state, return the output."""
        # equinox kills the old state object on update; a copy keeps ours alive if the call fails
        state = tree_map(lambda x: x, self.state.get())
        output, state = self._unwrapped()(*args, state, **self._with_key(key, kwargs), **kwargs)
        if not self.is_eval:
            self.state.set(state)
        return output


class NamedLayer(Layer):
    """Base of the named layers: `wraps` says which equinox class; its constructor is not copied."""

    wraps: ClassVar[Any]
    # constructor arguments whose name differs here from equinox's: ours -> theirs
    renames: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        wraps = cls.__dict__.get("wraps")
        if wraps is not None:
            cls.__signature__ = _signature(wraps, cls.renames)  # type: ignore[attr-defined]
            cls.__doc__ = (cls.__doc__ or "") + (
                f"\n\nArguments as for `equinox.nn.{wraps.__name__}`, with `rkg=` in place of `key=`."
            )

    def __init__(
        self,
        *args: Any,
        filter: Callable[[Any], bool] = eqx.is_array,
        rkg: RandomKeyGenerator = RKG,
        **kwargs: Any,
    ):
        names = {**self.renames}
        for ours, theirs in names.items():
            if ours in kwargs:
                kwargs[theirs] = kwargs.pop(ours)
        super().__init__(self.wraps, *args, filter=filter, rkg=rkg, **kwargs)


def _signature(wraps: Any, renames: dict[str, str]) -> inspect.Signature:
    ours = {theirs: name for name, theirs in renames.items()}
    parameters = [
        p.replace(name=ours.get(p.name, p.name), annotation=inspect.Parameter.empty)
        for p in inspect.signature(wraps).parameters.values()
        if p.name != "key" and p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    rkg = inspect.Parameter("rkg", inspect.Parameter.KEYWORD_ONLY, default=RKG)
    return inspect.Signature([*parameters, rkg])
