"""`Clamp`: values for some entries of a state."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import describe
from ._energy import where
from ._shape import check_shape

if TYPE_CHECKING:
    from ._vode import Vode

BAD_MASK = """Clamp: the mask is {mask}, which does not broadcast to the value, {value}. Give one boolean for \
each entry, or for each entry of one sample"""

FROZEN = """`{where}` is frozen, so the entries that the mask of a Clamp leaves free could not move. Write \
`{where}.h.frozen = False` before it is used"""

# where a vode keeps its clamp, in the cache
KEY = "clamp"


@dataclasses.dataclass(frozen=True)
class Clamp:
    """A target that is known in part: entries of h where the mask is True are held at the value.

        h <- where(mask, value, h)

    whenever h is stored, so the energy has no gradient in these entries; the others are inferred. It
    can stand for y in any call of an algorithm, as long as the output vode is not frozen.

    Args:
        value: what to hold, `(batch, *event)`; entries that the mask leaves free are not read.
        mask: booleans of value's shape, or of one that broadcasts to it, such as `event`.

    Raises:
        ValueError: the mask does not broadcast to the value.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.predictive_coding as pxc
        >>> model = pxm.LinearDecoder([2, 8, 4])
        >>> model.vodes[-1].h.frozen = False  # its free entries are to be inferred
        >>> pc = pxa.PC(model, T=5, state_optim=optax.sgd(0.1), init="persistent")
        >>> half = pxc.Clamp(jnp.ones((3, 4)), jnp.array([True, True, False, False]))
        >>> _ = pc.infer(None, half)
        >>> model.vodes[-1].h.shape, bool((model.vodes[-1].h[:, :2] == 1).all())
        ((3, 4), True)

    References:
        Salvatori et al., "Associative memories via predictive coding", 2021.
    """

    value: Any
    mask: Any

    def __post_init__(self) -> None:
        shape = jnp.shape(self.value)
        xp = np if isinstance(self.mask, np.ndarray | list | tuple | bool) else jnp
        try:
            mask = xp.broadcast_to(xp.asarray(self.mask, bool), shape)
        except ValueError as error:
            got = describe(np.asarray(self.mask) if xp is np else self.mask)
            raise ValueError(BAD_MASK.format(mask=got, value=describe(self.value))) from error
        object.__setattr__(self, "mask", mask)

    def __call__(self, h: Any) -> Any:
        """The state h with the clamped entries at their values."""
        return jnp.where(self.mask, self.value, h)


def _unflatten(_: Any, children: Any) -> Clamp:
    # what transforms put in place of the arrays need not have a shape
    clamp = object.__new__(Clamp)
    for name, child in zip(("value", "mask"), children, strict=True):
        object.__setattr__(clamp, name, child)
    return clamp


jax.tree_util.register_pytree_with_keys(
    Clamp,
    lambda c: (
        ((jax.tree_util.GetAttrKey("value"), c.value), (jax.tree_util.GetAttrKey("mask"), c.mask)),
        None,
    ),
    _unflatten,
    lambda c: ((c.value, c.mask), None),
)


def clamp_of(vode: "Vode") -> Clamp | None:
    """The clamp that a vode holds in the present pass."""
    clamp = vode.cache.get(KEY)
    return clamp if isinstance(clamp, Clamp) else None


def hold(vode: "Vode", clamp: Clamp) -> None:
    """Let a vode hold the clamp's entries from now on, for `Vode.set`."""
    if vode.is_frozen:
        raise ValueError(FROZEN.format(where=where(vode)))
    check_shape(vode, "h", clamp.value)
    vode._store(KEY, clamp)
    if (h := vode.h.get()) is not None:
        vode._store("h", h)
