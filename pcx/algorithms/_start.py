"""How an algorithm's states start, and how its optimisers do."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import RKG, BaseParam, Mask
from ..nn import LayerParam
from ..predictive_coding import VodeParam, vodes
from . import _lazy
from ._energies import batch_size, forward

Start = Literal["forward", "zero", "normal", "persistent"] | tuple[Literal["normal"], float]

BAD_INIT = """init must be "forward", "zero", "normal", ("normal", standard deviation) or "persistent"; \
got {got!r}"""


def check_start(init: Any) -> None:
    """Refuse an unknown `init`."""
    scaled = (
        isinstance(init, tuple)
        and len(init) == 2
        and init[0] == "normal"
        and isinstance(init[1], int | float)
        and init[1] > 0
    )
    if not scaled and init not in ("forward", "zero", "normal", "persistent"):
        raise ValueError(BAD_INIT.format(got=init))


def start_states(x: PyTree, y: PyTree, model: Any, init: Start) -> Any:
    """Give every state of a model its first value, in place; the prediction of a forward pass."""
    if init == "persistent" and _fits(x, y, model):
        kept = [(vode.h, vode.h.get()) for vode in vodes(model)]
        prediction = forward(x, y, model)
        for h, value in kept:
            # a node that is clamped in one call and absent in another, such as a label
            if value is not None and h.get() is not None:
                h.set(value)
        return prediction
    batch_size(x, y)  # must be known
    # states left by another batch (of another size, perhaps) are no part of this one
    model.clear_params(VodeParam)
    with _lazy.observe(x, y, model):
        prediction = forward(x, y, model)
    if init not in ("forward", "persistent"):
        scale = init[1] if isinstance(init, tuple) else float(init == "normal")
        for vode in vodes(model):
            h = vode.h.get()
            if vode.is_frozen or h is None:
                continue
            vode.h.set(
                scale * jax.random.normal(RKG(), h.shape, h.dtype) if scale else jnp.zeros_like(h)
            )
    return prediction


def _fits(x: PyTree, y: PyTree, model: Any) -> bool:
    """Whether every free vode holds a state for a batch of this size."""
    states = [vode.h.get() for vode in vodes(model) if not vode.is_frozen]
    if any(h is None for h in states):
        return False
    sizes = {h.shape[0] for h in states}
    return len(sizes) <= 1 if x is None and y is None else sizes <= {batch_size(x, y)}


def once_unfrozen(mask: Mask) -> Mask:
    """Selects what `mask` does, and what it would if it were not frozen."""

    def select(param: BaseParam) -> bool:
        others = tuple((k, v) for k, v in param.metadata if k != "frozen")
        return mask.select(param) or mask.select(type(param).rebuild(None, others))

    return Mask(select)


TRAINABLE = Mask(LayerParam).hasnot(frozen=True)
