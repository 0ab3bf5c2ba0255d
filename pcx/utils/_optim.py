"""`Optim`: an optax optimiser for the params that a mask selected."""

import functools
import weakref
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import BaseModule, named_params, static, warn
from ._update import (
    ALL_MISSING,
    MISSING,
    NOT_OPTAX,
    OptimParam,
    Source,
    Update,
    apply,
    fresh_state,
    is_transformation,
    one_scale,
    params_by_path,
    with_value,
)

NOTHING = """{cls}.init: there is no param in what it was given, so there is nothing to optimise. \
Give it a masked model, as in `optim.init(pxu.M(pxnn.LayerParam)(model))`, with a mask that \
selects params the model has."""


NOT_A_NUMBER = """{cls}: {name}={value!r} is no number, and the arguments given by name are numbers that \
may change without a new compilation. Give what is none of them with the optimiser: \
`{cls}(functools.partial(optax.adam, {name}=...), learning_rate=1e-3)`."""

NO_FACTORY = """{cls}: {names} would be given to the function that makes the optimiser, and {optax!r} is \
no such function. Write `{cls}(optax.adamw, learning_rate=1e-3)`, not \
`{cls}(optax.adamw(1e-3), ...)`."""


class Optim(BaseModule):
    """An optax optimiser for params in a model.

    A jitted function that gets an `Optim` compiles once for all that have the same optax settings,
    such as `optax.adam(1e-3)` made anew in each trial of a sweep.

    Args:
        optax: an optax transformation, or a function that makes one: of no arguments, which `init` calls
            anew each time, or of the numbers given.
        params: what to optimise: a masked model, such as `pxu.M(pxnn.LayerParam)(model)`. Without
            it, call `init` before the first step, or let the first step take the params that have
            gradients.
        **numbers: arguments of `optax`, such as `learning_rate`. They are kept in the param `numbers`,
            a dict of arrays, so that other numbers compile nothing anew, and a `pxt.Population` may
            have others for each member.

    Raises:
        TypeError: `optax` is neither; or an argument given by name is no number.

    Example:
        >>> import jax.numpy as jnp, optax, pcx as px, pcx.utils as pxu
        >>> model = [px.Param(jnp.array(1.0))]
        >>> optim = pxu.Optim(optax.sgd(0.1), pxu.M(px.Param)(model))
        >>> _ = optim.step(model, [jnp.array(2.0)])
        >>> round(float(model[0]), 3)
        0.8
        >>> optim = pxu.Optim(optax.sgd, pxu.M(px.Param)(model), learning_rate=0.1)
        >>> _ = optim.numbers.set({"learning_rate": jnp.array(0.4)})
        >>> _ = optim.step(model, [jnp.array(2.0)])
        >>> round(float(model[0]), 3)
        0.0
    """

    # for which params it was started; a copy does not know
    __slots__ = ("_params",)

    # the arguments of the function that makes the optimiser, where it has any
    numbers: OptimParam | None = None

    def __init__(self, optax: Any, params: Any = None, **numbers: Any):
        if not is_transformation(optax) and not callable(optax):
            raise TypeError(self._not_optax(f"got {optax!r}"))
        if numbers:
            self._check_numbers(optax, numbers)
            self.numbers = OptimParam({name: _as_number(x) for name, x in numbers.items()})
        self._given = static(Source(optax))
        # what the factory made; None for a transformation, and before the first `init`
        self._made = static(None)
        if numbers:
            self.optax  # noqa: B018 - a factory may refuse the numbers, which inside a step it cannot read
        self.state = OptimParam()
        if params is not None:
            self.init(params)

    @property
    def optax(self) -> Any:
        """The optax transformation in use: as given, or as the last `init` had it made.

        A factory that `init` has not called yet is called now.

        Raises:
            TypeError: the factory returns something else.
        """
        given = self._given.get()
        if not given.is_factory:
            return given.value
        if self.numbers is not None:
            # not kept: inside a transform the numbers are that transform's
            return self._make(functools.partial(given.value, **self.numbers.get()))
        if self._made.get() is None:
            self._made.set(Source(self._make(given.value)))
        return self._made.get().value

    def init(self, params: Any) -> "Optim":
        """Start with fresh state for every param in `params` that has a value; None is skipped.

        If all of them are empty (states before the first forward pass), the first step decides.

        Raises:
            ValueError: there is no param.
        """
        chosen = list(named_params(params))
        if not chosen:
            raise ValueError(NOTHING.format(cls=type(self).__name__))
        self._made.set(None)
        self.state.set(fresh_state(self.optax, with_value(chosen)))
        self._note_params(chosen)
        return self

    def clear(self) -> None:
        """Forget the state; the next `init` or `step` starts afresh."""
        self.state.set(None)
        self._note_params(())

    def _note_params(self, chosen: Iterable[tuple[str, Any]]) -> None:
        object.__setattr__(self, "_params", tuple(weakref.ref(param) for _, param in chosen))

    def is_of_another(self, params: Any) -> bool:
        """Whether it has a state that was started for other params than any of these.

        An optimiser that was copied, or loaded, does not know for which params it was started: False.

        Example:
            >>> import jax.numpy as jnp, optax, pcx as px, pcx.utils as pxu
            >>> first, second = [px.Param(jnp.ones(2))], [px.Param(jnp.ones(2))]
            >>> optim = pxu.Optim(optax.adam(0.1), first)
            >>> optim.is_of_another(first), optim.is_of_another(second)
            (False, True)
        """
        known = getattr(self, "_params", ())
        if self.state.get() is None or not known:
            return False
        there = {id(param) for _, param in named_params(params)}
        return not any(id(ref()) in there for ref in known)

    def step(
        self,
        model: Any,
        grads: Any,
        scale_by: Any = None,
        apply_updates: bool = True,
        allow_none: bool = False,
        *,
        mul: Any = None,
        scale_by_batch_size: bool | None = None,
        **extra_args: Any,
    ) -> dict[str, Any]:
        """Update the params from their gradients.

        A param of this optimiser without a gradient keeps its value and its part of the optimiser's
        state. What the state has for all params together goes on if any of them has a gradient: a
        count of steps, a norm over all gradients (to which those without one add nothing), the
        vector that `optax.flatten` makes of them. (`optax.MultiSteps` drops what it has accumulated
        for a param that has no gradient in the step that applies the mean.)

        Args:
            model: what the params were selected from.
            grads: a tree like the model with gradients in this optimiser's params, as
                `grads["model"]` from `pxf.value_and_grad`. Never changed; gradients of other params
                are ignored.
            scale_by: multiply the gradients by this number first; True means the batch size, which
                turns the gradient of a mean over the batch into that of each sample's own energy.
                The batch size is read off the states of the model's vodes; it is 1 for one sample.
            apply_updates: write the new values; otherwise only the state advances.
            allow_none: do not warn of params without a gradient.
            mul: the paper's name of `scale_by`.
            scale_by_batch_size: True is `scale_by=True`, in the spelling of the paper's releases.
            **extra_args: for transformations that take them, such as line searches.

        Returns:
            The updates, a dict from param path to array.

        Raises:
            ValueError: none of the params has a gradient (unless `allow_none`, or all are frozen);
                one is not in the model; the batch size is asked for and not known; or several of
                `scale_by`, `mul` and `scale_by_batch_size` are given.

        Warns:
            UserWarning: once, of params without a gradient that are not frozen.
        """
        name = type(self).__name__
        scale = one_scale(name, scale_by=scale_by, mul=mul, scale_by_batch_size=scale_by_batch_size)
        call = Update(name, model, grads, scale, allow_none)
        # optax itself mixes types, such as a rate with the count of steps
        with jax.numpy_dtype_promotion("standard"):
            updates, state = self._advance(call, extra_args)
        given = self._given.get()
        if not given.warned.issuperset(call.unexplained):
            given.warned |= set(call.unexplained)
            warn(call.message(MISSING, call.unexplained))
        if apply_updates:
            apply(call.params, updates)
        self.state.set(state)
        return updates

    def _advance(self, call: Update, extra_args: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The updates, and the state after them."""
        state = self.state.get()
        if state is None:
            chosen = [(path, p) for path, p in named_params(call.model) if path in call.grads]
            state = fresh_state(self.optax, with_value(chosen))
        if state is None:
            if call.allow_none:
                return {}, None
            raise ValueError(call.message(ALL_MISSING, []))
        return call.run(self.optax, state, extra_args)

    def _make(self, factory: Any) -> Any:
        made = factory()
        if not is_transformation(made):
            raise TypeError(self._not_optax(f"{factory!r} returned {made!r}"))
        return made

    def _check_numbers(self, optax: Any, numbers: dict[str, Any]) -> None:
        cls = type(self).__name__
        if is_transformation(optax):
            raise TypeError(NO_FACTORY.format(cls=cls, names=", ".join(numbers), optax=optax))
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, _NUMBERS):
                raise TypeError(NOT_A_NUMBER.format(cls=cls, name=name, value=value))

    def _not_optax(self, got: str) -> str:
        return NOT_OPTAX.format(cls=type(self).__name__, got=got)

    def apply_updates(self, model: Any, updates: dict[str, Any]) -> None:
        """Add updates, as `step` returns them, to the model's params."""
        apply(params_by_path(model), updates)

    def __repr__(self) -> str:
        state = self.state.get()
        return f"{type(self).__name__}({len(state.paths) if state else 0} params)"


_NUMBERS = int | float | np.number | np.ndarray | jax.Array


def _as_number(value: Any) -> jax.Array:
    # A number of Python's own takes the type of what it meets. An array in its place would not, if it
    # were an integer's.
    return jnp.asarray(value, float if isinstance(value, int | float) else None)
