"""`gradient`: of a batch's energy, in states and weights alike."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core import BaseParam, Mask, is_param, named_params
from ..functional import value_and_grad
from ..utils import step
from . import _lazy
from ._energies import CACHE


def gradient(
    energy: Callable[..., Any], x: Any, y: Any, model: Any, params: Sequence[BaseParam]
) -> tuple[jax.Array, Any]:
    """`(F, dF/dparams)` of an energy of a batch in the present states.

    What the inference loop knows to be exactly zero is not computed; it is zero all the same.

    Args:
        energy: `energy(x, y, *, model)`, one number.
        x, y: the batch.
        model: what the params are in.
        params: states, weights, or both.

    Returns:
        F, and a tree like the model with gradients in `params` and None elsewhere.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm, pcx.nn as pxnn
        >>> pc = pxa.PC(pxm.MLP([2, 3], bias=False))
        >>> weight = pc.model.layers[0].nn.weight
        >>> x, y = jnp.eye(2), jnp.zeros((2, 3))
        >>> _ = pc.initialise(x, y)
        >>> F, grads = pxa.gradient(pc.learning_energy, x, y, pc.model, [weight])
        >>> bool(jnp.allclose(grads.layers[0].nn.weight.get(), weight))  # F = 1/2 |W|^2
        True
    """
    wanted = {id(param) for param in params}
    live = _lazy.live()
    moving = {
        id(param)
        for path, param in named_params(model)
        if id(param) in wanted and (live is None or path in live)
    }
    with step(model, clear_params=(CACHE, CACHE)):
        if moving:
            F, grads = value_and_grad(lambda param: id(param) in moving)(energy)(x, y, model=model)
            grads = grads["model"]
        else:
            F, grads = energy(x, y, model=model), Mask(lambda _: False)(model)
    still = wanted - moving
    return F, _with_zeros(grads, model, still) if still else grads


def _with_zeros(grads: Any, model: Any, params: set[int]) -> Any:
    zeros = jax.tree_util.tree_map(jnp.zeros_like, Mask(lambda p: id(p) in params)(model))
    return jax.tree_util.tree_map(
        lambda g, z: z if g is None else g, grads, zeros, is_leaf=lambda x: x is None or is_param(x)
    )


def grads_of(params: Sequence[BaseParam], model: Any, grads: Any) -> list[jax.Array]:
    """The gradients of some of the model's params, from a tree like the model."""
    by_path = dict(named_params(grads))
    paths = {id(param): path for path, param in named_params(model)}
    return [by_path[paths[id(param)]].get() for param in params]
