"""What an energy function says of itself, so that nothing has to know its name."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ..core import locate

F = TypeVar("F", bound=Callable[..., Any])


class Traits(NamedTuple):
    """What algorithms may ask of an energy function.

    Attributes:
        mean: from the prediction u to the mean of h under the node's distribution (its inverse link); None
            if it is not known.
        stationary: whether the gradients in h, u and the vode's own params are all zero wherever h = u.
        precision: of a Gaussian, `1 / sigma^2` in the energy `(h - u)^2 / (2 sigma^2)`: a number, or a
            function of the vode; None for other distributions.

    Example:
        >>> import pcx.predictive_coding as pxc
        >>> pxc.traits(pxc.se_energy).stationary, pxc.traits(pxc.ce_energy).stationary
        (True, False)
    """

    mean: Callable[[Any], Any] | None = None
    stationary: bool = False
    precision: Any = None


def energy_function(
    *,
    mean: Callable[[Any], Any] | None = None,
    stationary: bool = False,
    precision: float | Callable[[Any], Any] | None = None,
) -> Callable[[F], F]:
    """Declare what an energy function of your own is; without it, nothing is assumed.

    Args:
        mean, stationary, precision: see `Traits`.

    Returns:
        A decorator, which returns the function itself.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> @pxc.energy_function(mean=lambda u: u, stationary=True)
        ... def log_cosh(vode, rkg):
        ...     h, u = pxc.state_and_prediction(vode)
        ...     return jnp.log(jnp.cosh(h - u))
        >>> float(pxc.traits(log_cosh).mean(2.0))
        2.0
    """

    def declare(fn: F) -> F:
        fn.traits = Traits(mean, stationary, precision)  # type: ignore[attr-defined]
        return fn

    return declare


def traits(energy_fn: Any) -> Traits:
    """The traits of an energy function.

    Args:
        energy_fn: None, a node without an energy, has those of a constant. A `functools.partial`
            has those of its function, so declare what holds for all of its arguments. A function
            that wraps another has none unless they are declared for it: it may change the energy.

    Returns:
        What was declared by `energy_function`; else `Traits()`, which promises nothing.

    Example:
        >>> import functools, pcx.predictive_coding as pxc
        >>> pxc.traits(functools.partial(pxc.se_energy)).precision
        1.0
    """
    if energy_fn is None:
        return Traits(stationary=True)
    own = getattr(energy_fn, "traits", None)
    # `functools.wraps` copies attributes
    copied = own is getattr(getattr(energy_fn, "__wrapped__", None), "traits", None)
    if isinstance(own, Traits) and not copied:
        return own
    return traits(energy_fn.func) if isinstance(energy_fn, functools.partial) else Traits()


NO_MEAN = """`{where}`: the mean of a node with the energy function `{name}` is not known. Declare it: \
`@pxc.energy_function(mean=f)` above the function, with f the map from the prediction u to the mean of h \
(the identity for a Gaussian, `jax.nn.sigmoid` for Bernoulli logits)"""


def mean(vode: Any, u: Any) -> Any:
    """The mean of the state of a vode, given its prediction: the inverse link of its distribution.

    Args:
        vode: a `Vode`; its energy function says which distribution.
        u: a prediction, of any batch shape.

    Returns:
        An array of u's shape.

    Raises:
        ValueError: its energy function has not declared a mean (or it has none, `energy_fn=None`).

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> pxc.mean(pxc.Vode((2,), pxc.ce_energy), jnp.zeros(2)).tolist()
        [0.5, 0.5]
    """
    energy_fn = vode.energy_fn
    link = traits(energy_fn).mean
    if link is None:
        raise ValueError(NO_MEAN.format(where=locate(vode) or "this vode", name=name_of(energy_fn)))
    return link(u)


def name_of(fn: Any) -> str:
    """The name of a function, or of the function of a partial, for messages."""
    if isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__name__", repr(fn)))


def identity(u: Any) -> Any:
    """The mean map of a Gaussian."""
    return u
