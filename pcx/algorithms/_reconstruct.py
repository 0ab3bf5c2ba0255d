"""What a generative model makes of data: its code by inference, and the data by a forward pass from the code."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..predictive_coding import STATUS, Clamp, Vode, vodes
from ..predictive_coding._clamp import hold
from ..predictive_coding._graph import nodes
from ..utils import step
from ._energies import CACHE, call

NO_CODE = """{who}.reconstruct looks for a code: a free node that neither x nor another node predicts, as the \
first one of `pxm.LinearDecoder`. {cls} has none: {found}. `predict(x)` is its prediction; to infer an input from \
an output take a decoder, `BidirectionalPC(input_shape=...)` or `HybridPC`."""


def codes(who: str, model: Any, x: PyTree) -> list[Vode]:
    """The free nodes that nothing predicts, where generation starts."""
    sample = jax.tree_util.tree_map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    found = nodes(model, sample)
    roots = [
        vode
        for vode, node in zip(vodes(model), found, strict=True)
        if not node.inputs and not node.frozen
    ]
    if not roots:
        listed = ", ".join(f"`{n.name}` has {' and '.join(n.inputs) or 'a clamp'}" for n in found)
        raise ValueError(NO_CODE.format(who=who, cls=type(model).__name__, found=listed))
    return roots


def decode(x: PyTree, model: Any, roots: list[Vode]) -> Any:
    """The prediction of a forward pass in which these nodes keep their states, and all others follow."""
    states = [vode.h.get() for vode in roots]
    model.clear_params(CACHE)
    with step(model, STATUS.INIT, clear_params=(None, CACHE)):
        for vode, h in zip(roots, states, strict=True):
            hold(vode, Clamp(h, jnp.ones(h.shape, bool)))
        return call(x, None, model=model)
