"""`Vode`: a vectorised node, with a state h, a prediction u and an energy between them."""

import inspect
from collections.abc import Mapping
from typing import Any, Self, overload

import jax.numpy as jnp

from ..core import RKG, Param, RandomKeyGenerator, describe, get, static
from ._arguments import SHAPE_FIRST, Config, EnergyFn, Notes, VodeParam, bind, check_energy_fn
from ._energy import NO_PREDICTION, where
from ._energy_module import EnergyModule, energy_modules
from ._rules import Ruleset, Tform

WRONG_SHAPE = """`{where}` was declared as Vode({shape}), but {key} is set to {got}. Expected \
shape {shape}, with any batch axes in front. {advice}."""
WRONG_U = "Declare the shape of the layer's output, or mend the layer before it"
WRONG_H = f"""{WRONG_U}. A target needs the prediction's shape: class labels are one-hot vectors, \
as from `pcx.data.one_hot(labels, classes)`"""

WRONG_ENERGY = """`{where}`: the energy function `{name}` must give an array of h's shape, not \
reduced: h is {h}, its result {got}."""


class Vode(EnergyModule):
    """A vectorised node: the state `h` of one layer, and how far it is from its prediction.

    Calling it stores the incoming prediction `u` and gives the state: `x = vode(layer(x))`. Its
    energy is the sum of `energy_fn` over the event axes, one scalar per sample.

    Args:
        shape: the event shape (of one sample), as a leading tuple or int, or by keyword. Optional:
            it allocates nothing, but every state and prediction is checked against it. Without it,
            the event shape is that of the state at the first call.
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

    # for each remembered result of a get rule, the value that it was computed from
    __slots__ = ("_sources",)

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
    def shape(self) -> tuple[int, ...] | None:
        """The event shape: declared, or that of the state at the first call; None before."""
        config = self._config.get()
        return config.notes.event_shape if config.shape is None else config.shape

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
        """Store the prediction (and more), and give the state.

        Args:
            u: the incoming prediction, of shape `event`; None to store none.
            rkg: where transformations draw random keys.
            output: which key to give instead of "h"; None gives the vode itself.
            **more: further values to store, in this order.
        """
        if u is not None:
            self.set("u", u, rkg)
        for key, value in more.items():
            self.set(key, value, rkg)
        notes = self.notes
        if notes.event_shape is None:
            state = self._load("h", self._load("u", None))
            notes.event_shape = None if state is None else jnp.shape(state)
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
        """Get a value by the rules of the present status; `default` if there is none.

        The result of a rule with transformations is kept in the cache, under the rule's text, and
        given again until the cache is cleared, something is set, or the value that it came from is
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
        if key in ("h", "u"):
            self._check_shape(key, value)
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
        return default if value is None else value

    def _check_shape(self, key: str, value: Any) -> None:
        config = self._config.get()
        shape = config.shape
        # a node without energy may be called with a stand-in for the prediction it ignores
        if shape is None or value is None or (config.energy_fn is None and key == "u"):
            return
        got = jnp.shape(value)
        if got[max(len(got) - len(shape), 0) :] != shape:
            advice = WRONG_H if key == "h" else WRONG_U
            found = describe(value)
            raise ValueError(
                WRONG_SHAPE.format(
                    where=where(self), shape=shape, key=key, got=found, advice=advice
                )
            )

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
        try:
            energy = energy_fn(self, RKG)
        except (TypeError, AttributeError) as error:
            # a user's energy function meets a None in its arithmetic
            for key, what in (("u", "prediction u"), ("h", "state h")):
                if self.get(key) is None:
                    raise ValueError(NO_PREDICTION.format(where=where(self), what=what)) from error
            raise
        h = self.get("h")
        if jnp.shape(energy) != jnp.shape(h):
            name = getattr(energy_fn, "__name__", repr(energy_fn))
            raise ValueError(
                WRONG_ENERGY.format(
                    where=where(self), name=name, h=describe(h), got=describe(energy)
                )
            )
        shape = self.shape
        event = jnp.ndim(h) if shape is None else min(len(shape), jnp.ndim(h))
        return jnp.sum(energy, axis=tuple(range(-event, 0)))

    def _summary(self) -> str:
        name = getattr(self.energy_fn, "__name__", repr(self.energy_fn))
        shape = "" if self.shape is None else f"{self.shape}, "
        return f"{type(self).__name__}({shape}{name})"

    def __repr__(self) -> str:
        return f"{self._summary()[:-1]}, h={self.h!r})"


def vodes(model: Any) -> list[Vode]:
    """The vodes of a model, each once, in the order of their paths.

    Example:
        >>> import pcx.models as pxm, pcx.predictive_coding as pxc
        >>> [vode.shape for vode in pxc.vodes(pxm.MLP([2, 8, 3]))]
        [(8,), (3,)]
    """
    found: dict[int, Vode] = {}
    for module in energy_modules(model):
        if isinstance(module, Vode):
            found.setdefault(id(module.h), module)
    return list(found.values())


def free_states(model: Any) -> list[VodeParam]:
    """The states that inference may move: those with a value that are not frozen.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> model = pxm.MLP([2, 8, 3])
        >>> with pxu.step(model, pxc.STATUS.INIT):
        ...     _ = model(jnp.ones(2))
        >>> pxc.free_states(model)  # the output is frozen
        [VodeParam(f32[8])]
    """
    return [v.h for v in vodes(model) if not v.is_frozen and v.h.get() is not None]


# what `help(Vode)` shows
Vode.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
        *SHAPE_FIRST.parameters.values(),
    ]
)
