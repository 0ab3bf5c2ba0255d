"""`Chain`: layers one after the other, with a vode after each."""

from collections.abc import Callable, Sequence
from typing import Any

from ..predictive_coding import EnergyModule, Vode, se_energy

Activation = Callable[[Any], Any]
EnergyFn = Callable[..., Any]


class Chain(EnergyModule):
    """Layers one after the other, with a vode after each: `u_l = f_l(h_{l-1})` with `h_0 = x`.

    All models of this package are chains. Subclass it and override `predict` for a layer that is
    more than a call, or use it as it is.

    Args:
        layers: `f_1 ... f_L`, functions of one sample.
        shapes: the event shape of each layer's output, `L` tuples.
        energy_fn: energy of the output vode, `se_energy` or `ce_energy` for a classifier. That of
            the others is the squared error.

    Attributes:
        layers: as given.
        vodes: one `Vode` for each layer. The state of the last is frozen: it holds the target.

    Raises:
        ValueError: no layers, or not one shape for each.

    Example:
        >>> import jax, jax.numpy as jnp, pcx.models as pxm, pcx.nn as pxnn, pcx.utils as pxu
        >>> linear = pxnn.Linear(3, 2)
        >>> model = pxm.Chain([lambda x: jax.nn.relu(linear(x)), jnp.sum], [(2,), ()])
        >>> with pxu.step(model, "init"):
        ...     model(jnp.ones(3)).shape
        ()
    """

    def __init__(
        self,
        layers: Sequence[Callable[[Any], Any]],
        shapes: Sequence[tuple[int, ...]],
        energy_fn: EnergyFn = se_energy,
    ):
        if len(layers) == 0 or len(layers) != len(shapes):
            raise ValueError(
                f"{type(self).__name__} takes at least one layer and the event shape of each one's "
                f"output; got {len(layers)} layers and {len(shapes)} shapes"
            )
        self.layers = list(layers)
        self.vodes = [Vode(shape) for shape in shapes[:-1]] + [Vode(shapes[-1], energy_fn)]
        self.vodes[-1].h.frozen = True

    def predict(self, index: int, h: Any) -> Any:
        """The prediction of vode `index`, from the state below it (or from x for index 0)."""
        return self.layers[index](h)

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Pass one sample through the chain.

        Args:
            x: the input, `(*event)`.
            y: the target, of the output's shape, to clamp on the output vode; None to clamp
                nothing.

        Returns:
            The prediction of the output vode.
        """
        for index, vode in enumerate(self.vodes):
            x = vode(self.predict(index, x))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")
