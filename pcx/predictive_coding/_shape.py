"""The declared shape of a vode, and what is checked against it."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import describe
from ._energy import where

if TYPE_CHECKING:
    from ._vode import Vode

WRONG_SHAPE = """`{where}` was declared as Vode({shape}), but {key} is set to {got}. Expected \
shape {shape}, with any batch axes in front. {advice}."""
WRONG_U = "Declare the shape of the layer's output, or fix the layer before it"
WRONG_H = f"""{WRONG_U}. A target needs the prediction's shape: class labels are one-hot vectors, \
as from `pcx.data.one_hot(labels, classes)`"""

SEVERAL = "A node holds one array: give each of them a vode of its own, or pick one, `y[key]`"


class Shape(tuple[int, ...]):
    """An event shape; a tuple that also answers by `.get()`, as in PCX."""

    __slots__ = ()

    def get(self) -> tuple[int, ...]:
        """The plain tuple."""
        return tuple(self)


def check_shape(vode: "Vode", key: str, value: Any) -> None:
    """Refuse an h or u that does not end in the declared shape."""
    shape = vode._config.get().shape
    if shape is None or value is None:
        return
    several = isinstance(value, dict | tuple)
    got = () if several else jnp.shape(value)
    if several or got[max(len(got) - len(shape), 0) :] != shape:
        advice = SEVERAL if several else WRONG_H if key == "h" else WRONG_U
        raise ValueError(
            WRONG_SHAPE.format(
                where=where(vode), shape=shape, key=key, got=describe(value), advice=advice
            )
        )
