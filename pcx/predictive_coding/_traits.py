"""What an energy function says of itself, so that nothing has to know its name."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

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
    """The traits of an energy function; those of a node without one (None) are of a constant."""
    if energy_fn is None:
        return Traits(stationary=True)
    own = getattr(energy_fn, "traits", None)
    return own if isinstance(own, Traits) else Traits()


def identity(u: Any) -> Any:
    """The mean map of a Gaussian."""
    return u
