"""A model on a batch: its forward pass, and its energies."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import Mask, ParamCache
from ..functional import vmap
from ..predictive_coding import STATUS, VodeParam, vodes
from ..utils import step

# what differs from sample to sample; everything else in a model is shared by the batch
BATCHED = Mask(VodeParam | ParamCache).to((None, 0))
CACHE = VodeParam.Cache
AXIS = "batch"

NO_BATCH = """x and y are both None, so the number of samples is not known. Give y, such as the images that a \
decoder explains, or for a decoder x, its first states: `jnp.zeros((n, *model.vodes[0].shape))`. (States of an \
earlier batch go on with `init="persistent"`; `pxa.MCPC.generate(n=...)` draws new ones.)"""


def batched(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Map `fn(x, y, *, model)` over the batch: states and caches along axis 0, weights shared."""
    return vmap(BATCHED, in_axes=(0, 0), axis_name=AXIS)(fn)


@batched
def call(x: PyTree, y: PyTree, *, model: Any) -> Any:
    """The model's prediction for a batch; predictions stay in the vodes."""
    return model(x, y)


@batched
def _call_and_energy(x: PyTree, y: PyTree, *, model: Any) -> Any:
    prediction = model(x, y)
    return model.energy(), prediction


@batched
def _call_and_vode_energies(x: PyTree, y: PyTree, *, model: Any) -> Any:
    model(x, y)
    return [vode.energy() for vode in vodes(model)]


def sample_energies(x: PyTree, y: PyTree, *, model: Any) -> tuple[jax.Array, Any]:
    """Energy of each sample, shape (batch,), and the prediction."""
    energy, prediction = _call_and_energy(x, y, model=model)
    return jnp.asarray(energy), prediction


def vode_energies(x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
    """Energy of each vode, averaged over the batch, shape (vodes,)."""
    with step(model, clear_params=(CACHE, CACHE)):
        energies = _call_and_vode_energies(x, y, model=model)
    return jnp.stack([jnp.mean(jnp.asarray(e)) for e in energies])


def forward(x: PyTree, y: PyTree, model: Any, status: str | None = STATUS.INIT) -> Any:
    """A pass under a status: by default forward initialisation, `h := u` for every node.

    Returns:
        The prediction.
    """
    with step(model, status, clear_params=(CACHE, CACHE)):
        return call(x, y, model=model)


def batch_size(x: PyTree, y: PyTree) -> int:
    """Number of samples in a batch.

    Raises:
        ValueError: neither x nor y is there to tell.
    """
    leaves = jax.tree_util.tree_leaves((x, y))
    if not leaves:
        raise ValueError(NO_BATCH)
    return int(leaves[0].shape[0])
