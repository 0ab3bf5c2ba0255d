"""`gradient`: of a batch's energy, in states and weights alike."""

from collections.abc import Callable, Sequence, Set
from types import MethodType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import BaseParam, Mask, named_params
from ..functional import value_and_grad
from ..utils import step
from . import _lazy
from ._energies import CACHE


def gradient(
    energy: Callable[..., Any], x: PyTree, y: PyTree, model: Any, params: Sequence[BaseParam]
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
    paths = frozenset(path for path, param in named_params(model) if id(param) in wanted)
    live = _lazy.live()
    if live is None or not isinstance(energy, MethodType):
        F, grads = _in_all(paths, energy, x, y, model)
    else:  # steps differ in what is zero, and in nothing else
        method = energy.__func__

        def gradient_of_energy(x: PyTree, y: PyTree, *, algorithm: Any, model: Any) -> Any:
            return _in_all(paths, MethodType(method, algorithm), x, y, model)

        traced = _lazy.traced_once((method, paths), gradient_of_energy)
        F, grads = traced(x, y, algorithm=energy.__self__, model=model)
    if live is not None:  # what no gradient needs, XLA leaves out
        for path, grad in named_params(grads):
            if path not in live:
                grad.set(jax.tree_util.tree_map(jnp.zeros_like, grad.get()))
    return F, grads


def _in_all(
    paths: Set[str], energy: Any, x: PyTree, y: PyTree, model: Any
) -> tuple[jax.Array, Any]:
    """F and its gradient in all params with these paths."""
    wanted = {id(param) for path, param in named_params(model) if path in paths}
    with step(model, clear_params=(CACHE, CACHE)):
        if not wanted:
            return energy(x, y, model=model), Mask(lambda _: False)(model)
        F, grads = value_and_grad(lambda param: id(param) in wanted)(energy)(x, y, model=model)
    return F, grads["model"]


def grads_of(params: Sequence[BaseParam], model: Any, grads: Any) -> list[jax.Array]:
    """The gradients of some of the model's params, from a tree like the model."""
    by_path = dict(named_params(grads))
    paths = {id(param): path for path, param in named_params(model)}
    return [by_path[paths[id(param)]].get() for param in params]
