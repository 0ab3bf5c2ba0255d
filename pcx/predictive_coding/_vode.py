"""`Vode`: a vectorised node, with a state h, a prediction u and an energy between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self


import jax.numpy as jnp

from ..core import RKG, Param, ParamCache, ParamDict, RandomKeyGenerator, describe, get, locate
from ..core import scope_state, static
from ._energy import NO_PREDICTION, se_energy
from ._energy_module import EnergyModule
from ._rules import Ruleset, Tform


class VodeParam(Param):
    """The state of a vode. Subclass it to tell nodes apart in masks."""

    __slots__ = ()

    class Cache(ParamDict, ParamCache):
        """The temporaries of a vode: predictions and remembered results."""

        __slots__ = ()


@dataclass(frozen=True)
class _Config:
    """What of a vode never changes; one static object, so that a call compares one thing."""

    energy_fn: Callable[..., Any] | None
    ruleset: Ruleset
    shape: tuple[int, ...] | None


WRONG_SHAPE = """`{where}` was declared as Vode({shape}), but {key} is set to {got}. Expected shape {shape}, \
with any batch axes in front. Declare the shape of the layer's output, or mend the layer before it."""

_FIELDS = ("energy_fn", "ruleset", "tforms", "param_type")


class Vode(EnergyModule):
    """A vectorised node: the state `h` of one layer of a network, and how far it is from its prediction.

    Calling it stores the incoming prediction `u` and gives the state: `x = vode(layer(x))`. Its energy is
    the sum of `energy_fn` over the event axes, one scalar per sample.

    Args:
        shape: the event shape (of one sample), as a leading tuple or int or by keyword. Optional; it
            allocates nothing, but every state and prediction is checked against it.
        energy_fn: `f(vode, rkg) -> array` of h's shape; None for a node without an energy.
        ruleset: `{status: rules}`, see `Ruleset`; by default `{STATUS.INIT: ("h, u <- u",)}`, forward
            initialisation.
        tforms: transformations that rules use, `{name: f(vode, key, value, rkg) -> value}`.
        param_type: class of the param `h`, a `VodeParam`.

    Attributes:
        h: the state, a `VodeParam`. Freeze it (`vode.h.frozen = True`) to keep masks from selecting it.
        cache: the temporaries, a `VodeParam.Cache`.

    Raises:
        ValueError, TypeError: malformed arguments or rules; later, values that do not fit the shape.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode((2,))
        >>> vode.set("h", jnp.array([1.0, 2.0]))(jnp.zeros(2)).tolist()   # the state, not the prediction
        [1.0, 2.0]
        >>> float(vode.energy())
        2.5
    """

    def __init__(
        self,
        *args: Any,
        shape: int | tuple[int, ...] | None = None,
        energy_fn: Callable[..., Any] | None = se_energy,
        ruleset: Mapping[Any, Any] | None = None,
        tforms: Mapping[str, Tform] | None = None,
        param_type: type[VodeParam] = VodeParam,
    ):
        given: dict[str, Any] = {
            "energy_fn": energy_fn,
            "ruleset": ruleset,
            "tforms": tforms,
            "param_type": param_type,
        }
        if args and isinstance(args[0], int | tuple | list):
            shape, *rest = args
            args = tuple(rest)
        if len(args) > len(_FIELDS):
            raise TypeError(f"Vode takes (shape, {', '.join(_FIELDS)}); got {len(args)} after the shape")
        given.update(zip(_FIELDS, args, strict=False))
        energy_fn, param_type = given["energy_fn"], given["param_type"]
        if energy_fn is not None and not callable(energy_fn):
            raise TypeError(
                f"energy_fn must be a function (vode, rkg) -> array, or None; got {energy_fn!r}"
            )
        if not (isinstance(param_type, type) and issubclass(param_type, VodeParam)):
            raise TypeError(f"param_type must be a subclass of VodeParam; got {param_type!r}")
        rules = Ruleset.parse(given["ruleset"] or {}, given["tforms"] or {})
        self._config = static(_Config(energy_fn, rules, _event_shape(shape)))
        self.h = param_type()
        self.cache = param_type.Cache()

    @property
    def energy_fn(self) -> Callable[..., Any] | None:
        """The energy function, or None."""
        return self._config.get().energy_fn

    @property
    def ruleset(self) -> Ruleset:
        """The parsed rules."""
        return self._config.get().ruleset

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The event shape: declared, or recorded at the first call outside any transform."""
        declared = self._config.get().shape
        recorded = self.__dict__.get("_recorded")
        return declared if declared is not None else get(recorded)

    def __call__(
        self,
        u: Any = None,
        rkg: RandomKeyGenerator = RKG,
        output: str | None = "h",
        **more: Any,
    ) -> Any:
        """Store the prediction (and more), and give the state.

        Args:
            u: the incoming prediction, of shape `event`; None to store none.
            rkg: where transformations draw random keys.
            output: which key to give instead of "h"; None gives the vode itself.
            **more: further values to store.
        """
        if u is not None:
            self.set("u", u, rkg)
        for key, value in more.items():
            self.set(key, value, rkg)
        return self if output is None else self.get(output, rkg=rkg)

    def set(self, key: str, value: Any, rkg: RandomKeyGenerator = RKG) -> Self:
        """Set a value by the rules of the present status; without a rule, store it under its key.

        Returns:
            The vode.

        Raises:
            ValueError: "h" or "u" does not fit the declared shape.
        """
        value = get(value)
        rules = self.ruleset.on_set(self._status, key)
        for rule in rules:
            new = self.ruleset.transform(rule, self, key, value, rkg)
            for target in rule.targets:
                self._store(target, new)
        if not rules:
            self._store(key, value)
        return self

    def get(self, key: str, default: Any = None, rkg: RandomKeyGenerator = RKG) -> Any:
        """Get a value by the rules of the present status; `default` if there is none."""
        rule = self.ruleset.on_get(self._status, key)
        if rule is None:
            return self._load(key, default)
        source = self._load(rule.targets[0], None)
        if source is None:
            return default
        # remembered until the cache is cleared or the source changes
        memo = self.cache.get(f"{self._status}|{rule.text}")
        if memo is not None and memo[0] is source:
            return memo[1]
        value = self.ruleset.transform(rule, self, key, source, rkg)
        if rule.tforms:
            self.cache[f"{self._status}|{rule.text}"] = (source, value)
        return value

    def _store(self, key: str, value: Any) -> None:
        if key in ("h", "u"):
            self._check_shape(key, value)
        param = self.__dict__.get(key)
        if isinstance(param, Param):
            param.set(value)
        else:
            self.cache[key] = value

    def _load(self, key: str, default: Any) -> Any:
        param = self.__dict__.get(key)
        value = param.get() if isinstance(param, Param) else self.cache.get(key)
        return default if value is None else value

    def _check_shape(self, key: str, value: Any) -> None:
        config = self._config.get()
        # a node without energy may be called with a stand-in for the prediction it ignores
        if value is None or (config.energy_fn is None and key == "u"):
            return
        got = jnp.shape(value)
        shape = config.shape
        if shape is None:
            if scope_state.scope is None and "_recorded" not in self.__dict__ and key == "h":
                self._recorded = static(got)
        elif got[max(len(got) - len(shape), 0) :] != shape:
            raise ValueError(
                WRONG_SHAPE.format(
                    where=locate(self) or "this vode", shape=shape, key=key, got=describe(value)
                )
            )

    def energy(self) -> Any:
        """The sum of `energy_fn` over the event axes.

        Returns:
            A scalar; for states with batch axes in front of the event shape, one per sample. 0.0 for a
            vode without an energy function.

        Raises:
            ValueError: before a forward pass; h and u of different shapes; an energy function whose
                result has not h's shape.
        """
        energy_fn = self.energy_fn
        if energy_fn is None:
            return 0.0
        try:
            energy = energy_fn(self, RKG)
        except (TypeError, AttributeError) as error:
            if self.get("u") is None or self.get("h") is None:
                what = "prediction u" if self.get("u") is None else "state h"
                where = locate(self) or "this vode"
                raise ValueError(NO_PREDICTION.format(where=where, what=what)) from error
            raise
        h = self.get("h")
        if jnp.shape(energy) != jnp.shape(h):
            name = getattr(energy_fn, "__name__", repr(energy_fn))
            raise ValueError(
                f"`{locate(self) or 'this vode'}`: the energy function `{name}` must give an array of h's "
                f"shape, not reduced: h is {describe(h)}, its result {describe(energy)}"
            )
        shape = self.shape
        event = jnp.ndim(h) if shape is None else min(len(shape), jnp.ndim(h))
        return jnp.sum(energy, axis=tuple(range(-event, 0)))

    def __repr__(self) -> str:
        fn = self.energy_fn
        name = getattr(fn, "__name__", repr(fn))
        shape = "" if self._config.get().shape is None else f"{self._config.get().shape}, "
        return f"{type(self).__name__}({shape}{name}, h={self.h!r})"


def _event_shape(shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(d, int) and not isinstance(d, bool) and d >= 0 for d in dims):
        raise TypeError(f"the shape of a vode is a tuple of ints, such as Vode((128,)); got {shape!r}")
    return dims



