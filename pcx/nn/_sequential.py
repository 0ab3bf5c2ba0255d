"""`Sequential`: modules one after the other."""

from collections.abc import Callable, Iterator
from typing import Any

from ..core import Module


class Sequential(Module):
    """Calls its layers one after the other.

    Args:
        *layers: callables (layers, vodes, functions), or one list of them.

    Example:
        >>> import jax, jax.numpy as jnp, pcx.nn as pxnn
        >>> net = pxnn.Sequential(pxnn.Linear(3, 4), jax.nn.relu, pxnn.Linear(4, 2))
        >>> net(jnp.ones(3)).shape, len(net)
        ((2,), 3)
    """

    def __init__(self, *layers: Any):
        if len(layers) == 1 and isinstance(layers[0], list | tuple):
            layers = tuple(layers[0])
        for position, layer in enumerate(layers):
            if not callable(layer):
                raise TypeError(
                    f"Sequential takes callables (layers, vodes, functions); layer {position} is "
                    f"{layer!r} of type {type(layer).__name__}"
                )
        self.layers: list[Callable[[Any], Any]] = list(layers)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, index: Any) -> Any:
        picked = self.layers[index]
        return Sequential(picked) if isinstance(index, slice) else picked

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)
