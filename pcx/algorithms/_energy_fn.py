"""The batched energy of a model, as every algorithm uses it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Mask, ParamCache, named_params
from ..functional import pure as pure
from ..functional import value_and_grad, vmap
from ..predictive_coding import STATUS, VodeParam
from ..predictive_coding import vodes as vodes_of
from ..utils import step

# what differs from sample to sample; everything else in a model is shared by the batch
BATCHED = Mask(VodeParam | ParamCache).to((None, 0))
CACHE = VodeParam.Cache
AXIS = "batch"


def batched(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Map `fn(x, y, *, model)` over the batch: states and caches along axis 0, weights shared."""
    return vmap(BATCHED, in_axes=(0, 0), axis_name=AXIS)(fn)


@batched
def call(x: Any, y: Any, *, model: Any) -> Any:
    """The model's prediction for a batch; predictions stay in the vodes."""
    return model(x, y)


@batched
def _call_and_energy(x: Any, y: Any, *, model: Any) -> Any:
    prediction = model(x, y)
    return model.energy(), prediction


@batched
def _call_and_vode_energies(x: Any, y: Any, *, model: Any) -> Any:
    model(x, y)
    return [vode.energy() for vode in vodes_of(model)]


def sample_energies(x: Any, y: Any, *, model: Any) -> tuple[jax.Array, Any]:
    """Energy of each sample, shape (batch,), and the prediction."""
    energy, prediction = _call_and_energy(x, y, model=model)
    return jnp.asarray(energy), prediction


def total_energy(x: Any, y: Any, *, model: Any) -> jax.Array:
    """Sum of the samples' energies, so that each state's gradient is that of its own sample."""
    return jnp.sum(sample_energies(x, y, model=model)[0])


def vode_energies(x: Any, y: Any, *, model: Any) -> jax.Array:
    """Energy of each vode, averaged over the batch, shape (vodes,)."""
    with step(model, clear_params=(CACHE, CACHE)):
        energies = _call_and_vode_energies(x, y, model=model)
    return jnp.stack([jnp.mean(jnp.asarray(e)) for e in energies])


def gradient(
    x: Any, y: Any, model: Any, params: list[Any], energy: Callable[..., Any]
) -> tuple[jax.Array, Any]:
    """`(F, dF/dparams)` of a batch's total energy in the present states.

    Returns:
        The energy summed over the batch, and a tree like the model with gradients in `params`.
    """
    wanted = {id(param) for param in params}
    with step(model, clear_params=(CACHE, CACHE)):
        value, grads = value_and_grad(lambda param: id(param) in wanted)(energy)(x, y, model=model)
    return value, grads["model"]


def grads_of(params: list[Any], model: Any, grads: Any) -> list[jax.Array]:
    """The gradients of some of the model's params, from a tree like the model."""
    by_path = dict(named_params(grads))
    paths = {id(param): path for path, param in named_params(model)}
    return [by_path[paths[id(param)]].get() for param in params]


def forward(x: Any, y: Any, model: Any, status: str | None = STATUS.INIT) -> Any:
    """A pass under a status: by default forward initialisation, `h := u` for every node.

    Returns:
        The prediction.
    """
    with step(model, status, clear_params=(CACHE, CACHE)):
        return call(x, y, model=model)
