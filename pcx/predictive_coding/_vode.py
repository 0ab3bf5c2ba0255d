"""`Vode`: a vectorised node, with a state h, a prediction u and an energy between them."""

import inspect
from collections.abc import Mapping
from typing import Any, Self, overload

import jax.numpy as jnp

from ..core import RKG, Param, RandomKeyGenerator, describe, get, static
from ._arguments import SHAPE_FIRST, Config, EnergyFn, Notes, VodeParam, bind, check_energy_fn
from ._clamp import KEY, Clamp, clamp_of, hold
from ._energy import NO_PREDICTION, where
from ._energy_module import EnergyModule
from ._rules import Ruleset, Tform
from ._shape import Shape, check_shape
from ._traits import name_of, traits

WRONG_ENERGY = """`{where}`: the energy function `{name}` must return an array of h's shape, not \
reduced: h is {h}, its result {got}."""


class Vode(EnergyModule):
    """A vectorised node: the state `h` of one layer, and how far it is from its prediction.

    Calling it stores the incoming prediction `u` and returns the state: `x = vode(layer(x))`. Its
    energy is the sum of `energy_fn` over the event axes, one scalar per sample.

    Args:
        shape: the event shape (of one sample), as a leading tuple or int, or by keyword. Optional:
            it allocates nothing, but every state is checked against it, and every prediction that
            the energy compares with the state: a node whose energy does not read u may be called
            with anything. Without it, the event shape is that of the state at the first call.
        energy_fn: `f(vode, rkg) -> array` of h's shape; None for a node without an energy.
        ruleset: `{status: rules}`, see `Ruleset`. What it says of a status replaces the default,
            which is forward initialisation, `{STATUS.INIT: ("h, u <- u",)}`.
        tforms: transformations that rules use, `{name: f(vode, key, value, rkg) -> value}`.
        param_type: class of the param `h`, a `VodeParam`.

    Attributes:
        h: the state, a `VodeParam`. `vode.h.frozen = True` lets masks leave it out.
        cache: the temporaries, a `VodeParam.Cache`.

    Raises:
        TypeError, ValueError: malformed arguments or rules; later, values that do not fit.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode((2,))
        >>> vode.set("h", jnp.array([1.0, 2.0]))(jnp.zeros(2)).tolist()  # the state, not u
        [1.0, 2.0]
        >>> float(vode.energy())
        2.5
    """

    # for each remembered result of a get rule, the value that it was computed from; whether h was
    # set before u in this pass; whether the energy is being computed. Copies start without
    __slots__ = ("_comparing", "_given", "_sources")

    @overload
    def __init__(
        self,
        shape: int | tuple[int, ...] | list[int],
        energy_fn: EnergyFn | None = ...,
        ruleset: Mapping[Any, Any] | None = ...,
        tforms: Mapping[str, Tform] | None = ...,
        param_type: type[VodeParam] = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        energy_fn: EnergyFn | None = ...,
        ruleset: Mapping[Any, Any] | None = ...,
        tforms: Mapping[str, Tform] | None = ...,
        param_type: type[VodeParam] = ...,
        *,
        shape: int | tuple[int, ...] | list[int] | None = ...,
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any):
        arguments = bind(args, kwargs)
        rules = Ruleset.parse(arguments["ruleset"] or {}, arguments["tforms"] or {})
        self._config = static(Config(arguments["energy_fn"], rules, arguments["shape"]))
        param_type = arguments["param_type"]
        self.h = param_type()
        self.cache = param_type.Cache()

    @property
    def energy_fn(self) -> EnergyFn | None:
        """The energy function, or None."""
        return self._config.get().energy_fn

    @energy_fn.setter
    def energy_fn(self, energy_fn: EnergyFn | None) -> None:
        check_energy_fn(energy_fn)
        old = self._config.get()
        self._config = static(Config(energy_fn, old.ruleset, old.shape, old.notes))

    @property
    def ruleset(self) -> Ruleset:
        """The parsed rules."""
        return self._config.get().ruleset

    @property
    def shape(self) -> Shape | None:
        """The event shape: declared, or that of the state at the first call; None before."""
        config = self._config.get()
        shape = config.notes.event_shape if config.shape is None else config.shape
        return None if shape is None else Shape(shape)

    @property
    def is_frozen(self) -> bool:
        """Whether inference leaves the state alone: `vode.h.frozen` is set."""
        return bool(self.h.__dict__.get("frozen", False))

    @property
    def notes(self) -> Notes:
        """What was learned while this vode was used."""
        return self._config.get().notes

    def __call__(
        self,
        u: Any = None,
        rkg: RandomKeyGenerator = RKG,
        output: str | None = "h",
        **more: Any,
    ) -> Any:
        """Store the prediction (and more), and return the state.

        Args:
            u: the incoming prediction, of shape `event`; None to store none.
            rkg: where transformations draw random keys.
            output: which key to return instead of "h"; None for the vode itself.
            **more: further values to store, in this order, for the energy or rules to read: after
                `vode(u, s=s)` the energy function finds `vode.get("s")`.
        """
        if u is not None:
            self.set("u", u, rkg)
        for key, value in more.items():
            self.set(key, value, rkg)
        self._given = False
        notes = self.notes
        if notes.event_shape is None:
            state = self._load("h", self._load("u", None))
            notes.event_shape = None if state is None else jnp.shape(state)
        return self if output is None else self.get(output, rkg=rkg)

    def set(self, key: str, value: Any, rkg: RandomKeyGenerator = RKG) -> Self:
        """Set a value by the rules of the present status; without a rule, store it under its key.

        A frozen state that is set before its prediction arrives is a target: forward initialisation
        does not overwrite it in that pass. A `Clamp` for "h" holds some entries only, see `clamp`.

        Returns:
            The vode.

        Raises:
            ValueError: "h" or "u" does not fit the declared shape.
        """
        value = get(value)
        if key == "h":
            if isinstance(value, Clamp):
                hold(self, value)
                return self
            if clamp_of(self) is not None:
                del self.cache[KEY]
            self._given = value is not None and self.is_frozen and self._awaits_u()
        rules = self.ruleset.on_set(self._status, key)
        for rule in rules:
            new = self.ruleset.transform(rule, self, key, value, rkg)
            for target in rule.targets:
                if not (target == "h" != key and getattr(self, "_given", False)):
                    self._store(target, new)
        if not rules:
            self._store(key, value)
        if key == "u":
            self._given = False
        return self

    def clamp(self, value: Any, mask: Any) -> Self:
        """Hold the entries of h where the mask is True; the others stay free. See `Clamp`.

        It lasts until the cache is cleared, as an algorithm does after each pass, or h is set whole;
        so clamp in the model's `__call__`, before the vode is called if others read its state.

        Args:
            value: what to hold, of h's shape.
            mask: booleans that broadcast to it.

        Returns:
            The vode.

        Raises:
            ValueError: the vode is frozen, or shapes do not fit.

        Example:
            >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
            >>> vode = pxc.Vode((2,)).clamp(jnp.array([5.0, 5.0]), jnp.array([True, False]))
            >>> vode.status = pxc.STATUS.INIT
            >>> vode(jnp.zeros(2)).tolist()
            [5.0, 0.0]
        """
        return self.set("h", Clamp(value, mask))

    def _awaits_u(self) -> bool:
        """Whether u, which has not come yet in this pass, is going to set h."""
        rules = self.ruleset.on_set(self._status, "u")
        return self.cache.get("u") is None and any("h" in rule.targets for rule in rules)

    def get(self, key: str, default: Any = None, rkg: RandomKeyGenerator = RKG) -> Any:
        """Get a value by the rules of the present status; `default` if there is none.

        The result of a rule with transformations is kept in the cache, under the rule's text, and
        returned again until the cache is cleared, something is set, or the value that it came from is
        another array (so after an update of h, or when a transform traces it, it is made anew).
        """
        rule = self.ruleset.on_get(self._status, key)
        if rule is None:
            return self._load(key, default)
        source = self._load(rule.targets[0], None)
        if source is None or not rule.tforms:
            return default if source is None else source
        sources = self._remembered()
        if sources.get(rule.text) is source and rule.text in self.cache:
            return self.cache[rule.text]
        value = self.ruleset.transform(rule, self, key, source, rkg)
        self.cache[rule.text] = value
        sources[rule.text] = source
        return value

    def _remembered(self) -> dict[str, Any]:
        # the copies that transforms make start without
        if not hasattr(self, "_sources"):
            self._sources: dict[str, Any] = {}
        return self._sources

    def _store(self, key: str, value: Any) -> None:
        if key == "h" or (key == "u" and self._compares()):
            check_shape(self, key, value)
        if key == "h" and value is not None and (clamp := clamp_of(self)) is not None:
            value = clamp(value)
        # transformations may look at any value of the vode
        self._remembered().clear()
        param = self.__dict__.get(key)
        if isinstance(param, Param):
            param.set(value)
        else:
            self.cache[key] = value

    def _load(self, key: str, default: Any) -> Any:
        param = self.__dict__.get(key)
        value = param.get() if isinstance(param, Param) else self.cache.get(key)
        if key == "u" and getattr(self, "_comparing", False):
            check_shape(self, key, value)
        return default if value is None else value

    def _compares(self) -> bool:
        """Whether the energy is known to compare h with u; else u is checked when it is read."""
        known = traits(self.energy_fn).mean is not None
        return known and type(self).energy is Vode.energy

    def energy(self) -> Any:
        """The sum of `energy_fn` over the event axes.

        Returns:
            A scalar; for states with batch axes in front of the event shape, one per sample. 0.0
            for a vode without an energy function.

        Raises:
            ValueError: before a forward pass; h and u of different shapes; an energy function whose
                result has not h's shape.
        """
        energy_fn = self.energy_fn
        if energy_fn is None:
            return 0.0
        self._comparing = True
        try:
            energy = energy_fn(self, RKG)
        except (TypeError, AttributeError) as error:
            # a user's energy function meets a None in its arithmetic
            for key, what in (("u", "prediction u"), ("h", "state h")):
                if self.get(key) is None:
                    raise ValueError(NO_PREDICTION.format(where=where(self), what=what)) from error
            raise
        finally:
            self._comparing = False
        h = self.get("h")
        if jnp.shape(energy) != jnp.shape(h):
            raise ValueError(
                WRONG_ENERGY.format(
                    where=where(self), name=name_of(energy_fn), h=describe(h), got=describe(energy)
                )
            )
        return self.sum_over_event(energy)

    def sum_over_event(self, array: Any) -> Any:
        """The sum of an array of h's shape over the event axes: a scalar, or one per sample."""
        shape, ndim = self.shape, jnp.ndim(array)
        event = ndim if shape is None else min(len(shape), ndim)
        return jnp.sum(array, axis=tuple(range(-event, 0)))

    def _summary(self) -> str:
        name = name_of(self.energy_fn)
        shape = "" if self.shape is None else f"{self.shape}, "
        return f"{type(self).__name__}({shape}{name})"

    def __repr__(self) -> str:
        return f"{self._summary()[:-1]}, h={self.h!r})"


# what `help(Vode)` shows
Vode.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
        *SHAPE_FIRST.parameters.values(),
    ]
)
