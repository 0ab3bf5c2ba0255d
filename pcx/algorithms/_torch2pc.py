"""`pc_gradients`: the three modes of Torch2PC for a sequential model and any loss."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import Mask
from ..functional import jit, pure, value_and_grad, vmap
from ..nn import LayerParam, Sequential
from ._energies import AXIS, BATCHED

MODES = {
    "strict": "strict",
    "fixed_pred": "fixed_pred",
    "exact": "exact",
    # Torch2PC's own names
    "Strict": "strict",
    "FixedPred": "fixed_pred",
    "Exact": "exact",
}

# with more sweeps than this the loop is scanned, so that compile time stays flat in n
MAX_UNROLLED = 32


class PCGradients(NamedTuple):
    """What `pc_gradients` gives; the first five as `PCInfer` returns them, one item for each layer.

    Attributes:
        activations: v_hat, of a forward pass; the last is the model's output.
        loss: of that output.
        output_gradient: d loss / d v_hat[-1].
        beliefs: v.
        errors: epsilon, prediction - belief; the last is the gradient of the loss.
        gradients: a tree like the model with the gradient in each layer param and None elsewhere:
            what PyTorch has in `.grad`. Give it to `optim.step(model, gradients)`.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.nn as pxnn
        >>> model = pxnn.Sequential(pxnn.Linear(3, 4), pxnn.Linear(4, 2))
        >>> result = pxa.pc_gradients(model, jnp.ones((5, 3)), jnp.zeros((5, 2)), mode="exact")
        >>> [v.shape for v in result.beliefs], result.gradients.layers[0].nn.weight.shape
        ([(5, 4), (5, 2)], (4, 3))
        >>> bool(jnp.allclose(result.errors[-1], result.output_gradient))
        True
    """

    activations: list[jax.Array]
    loss: jax.Array
    output_gradient: jax.Array
    beliefs: list[jax.Array]
    errors: list[jax.Array]
    gradients: Any


def mean_squared_error(u: Any, y: PyTree) -> jax.Array:
    """Mean of (u - y)^2 over batch and features: PyTorch's `MSELoss()`.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa
        >>> float(pxa.mean_squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]])))
        2.0
    """
    return jnp.mean(jnp.square(u - y))


def pc_gradients(
    model: Any,
    x: PyTree,
    y: PyTree,
    loss: Callable[[Any, Any], Any] = mean_squared_error,
    mode: str = "strict",
    eta: float = 0.1,
    n: int = 20,
    v_init: Sequence[Any] | None = None,
) -> PCGradients:
    """Beliefs, errors and weight gradients of a sequential model, as `Torch2PC.PCInfer`.

    With v_hat the activations of a forward pass, v_0 = x, and J_l the Jacobian of layer l:

        exact        eps_l = d loss / d v_hat_l,   v = v_hat - eps
        fixed_pred   v = v_hat; n sweeps:  eps_l = v_hat_l - v_l,
                     v_l += eta (eps_l - J_{l+1}(v_hat_l)' eps_{l+1}),   eps_L = d loss / d v_hat_L
        strict       v = v_init or v_hat; n sweeps:  eps_l = f_l(v_{l-1}) - v_l,
                     v_l += eta (eps_l - J_{l+1}(v_l)' eps_{l+1}),   eps_L = d loss / d f_L(v_{L-1})

        gradients    (d f_l / d theta_l)' eps_l, at v_hat (exact, fixed_pred) or v (strict)

    "exact" is back-propagation; so is "fixed_pred" with eta = 1 and n >= the number of layers.
    "strict" is predictive coding. The errors are those of the last sweep; with n = 0 they are
    measured without moving v. The last belief stays at v_hat in the iterative modes. Random layers
    (dropout) draw the same numbers in every sweep.

    Args:
        model: `pxnn.Sequential`, or a list of callables on one sample. Each item is one layer; wrap
            several in a `Sequential` to make them one.
        x, y: a batch of inputs and targets.
        loss: `f(output, y) -> scalar` on the batch, its own reduction included, so that errors and
            gradients scale with it as in PyTorch. A new function compiles anew: define it once.
        mode: "strict", "fixed_pred" or "exact"; Torch2PC's "Strict", "FixedPred", "Exact" work too.
        eta, n: size and number of the sweeps; not used by "exact".
        v_init: first beliefs, one array for each layer (that of the last one is not used); for
            "strict" only.

    Raises:
        TypeError: the model is no sequence of callables.
        ValueError: an unknown mode, negative n, or a `v_init` that does not fit.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import pcx.algorithms as pxa, pcx.nn as pxnn, pcx.utils as pxu
        >>> model = pxnn.Sequential(pxnn.Linear(3, 4), jax.nn.relu, pxnn.Linear(4, 2))
        >>> optim = pxu.Optim(optax.adam(1e-3), pxu.M(pxnn.LayerParam)(model))
        >>> x, y = jnp.ones((5, 3)), jnp.zeros((5, 2))
        >>> vhat, loss, dLdy, v, epsilon, gradients = pxa.pc_gradients(model, x, y, mode="strict")
        >>> _ = optim.step(model, gradients)
        >>> [e.shape for e in epsilon]
        [(5, 4), (5, 4), (5, 2)]

    References:
        Rosenbaum, "On the relationship between predictive coding and backpropagation", 2022,
        algorithms 1-3; Millidge, Tschantz & Buckley, 2020.
    """
    layers = _layers(model)
    if mode not in MODES:
        raise ValueError(f'mode must be "strict", "fixed_pred" or "exact"; got {mode!r}')
    if not isinstance(n, int) or n < 0:
        raise ValueError(f"n is the number of sweeps, an int >= 0; got {n!r}")
    if v_init is not None:
        if MODES[mode] != "strict":
            warnings.warn(f'v_init is for mode="strict"; {mode!r} ignores it', stacklevel=2)
            v_init = None
        elif len(v_init) not in (len(layers), len(layers) - 1):
            raise ValueError(
                f"v_init needs one array for each layer, {len(layers)} (the last may be left out); "
                f"got {len(v_init)}"
            )
        else:
            v_init = [jnp.asarray(v) for v in v_init[: len(layers) - 1]]
    return _RUN(x, y, v_init, eta, loss, MODES[mode], n, model=model)


def _layers(model: Any) -> list[Callable[[Any], Any]]:
    layers = model.layers if isinstance(model, Sequential) else model
    if not isinstance(layers, list | tuple) or not layers or not all(map(callable, layers)):
        raise TypeError(
            "pc_gradients takes a pxnn.Sequential or a list of callables, at least one; got "
            f"{type(model).__name__}"
        )
    return list(layers)


def _infer(
    x: PyTree, y: PyTree, v_init: Any, eta: Any, loss: Any, mode: str, n: int, *, model: Any
) -> PCGradients:
    # all from the model as it is now: what a pass changes (random keys, batch statistics) is the
    # same in each of them, and only the forward pass changes it for good
    outputs = pure(_outputs, model=model)
    shifted = pure(_shifted, model=model)
    learn = pure(_local_gradients, model=model)

    v_hat = _forward(x, model=model)

    def slope(u: Any) -> Any:
        return jax.grad(lambda u: jnp.asarray(loss(u, y)))(u)

    value, d_output = jax.value_and_grad(lambda u: jnp.asarray(loss(u, y)))(v_hat[-1])

    def result(v: list[Any], eps: list[Any], at: list[Any]) -> PCGradients:
        return PCGradients(v_hat, value, d_output, v, eps, learn([x, *at[:-1]], eps))

    if mode == "exact":
        zeros = [jnp.zeros_like(a) for a in v_hat]
        eps = jax.grad(lambda shifts: jnp.asarray(loss(shifted(x, shifts), y)))(zeros)
        return result([a - e for a, e in zip(v_hat, eps, strict=True)], eps, v_hat)

    if mode == "fixed_pred":
        _, fixed = jax.vjp(outputs, [x, *v_hat[:-1]])

    def measure(v: list[Any]) -> tuple[list[Any], Any]:
        if mode == "fixed_pred":
            u, pull = v_hat, fixed
        else:
            u, pull = jax.vjp(outputs, [x, *v[:-1]])
        last = d_output if mode == "fixed_pred" else slope(u[-1])
        return [a - b for a, b in zip(u[:-1], v[:-1], strict=True)] + [last], pull

    def sweep(v: list[Any]) -> tuple[list[Any], list[Any]]:
        eps, pull = measure(v)
        pulled = pull([jnp.zeros_like(eps[0]), *eps[1:]])[0][1:]
        moved = [
            (b + eta * (e - p)).astype(b.dtype) for b, e, p in zip(v, eps, pulled, strict=False)
        ]
        return [*moved, v[-1]], eps

    v = list(v_hat) if v_init is None else [*map(_like, v_init, v_hat), v_hat[-1]]
    eps, _ = measure(v)
    if n <= MAX_UNROLLED:
        for _ in range(n):
            v, eps = sweep(v)
    else:
        v, eps = jax.lax.fori_loop(0, n, lambda _, carry: sweep(carry[0]), (v, eps))
    return result(v, eps, v if mode == "strict" else v_hat)


_RUN = jit(static_argnums=(4, 5, 6))(_infer)


def _like(v: Any, v_hat: Any) -> Any:
    if v.shape != v_hat.shape:
        raise ValueError(f"v_init has an array of shape {v.shape} for activations {v_hat.shape}")
    return v.astype(v_hat.dtype)


def _on_batch(fn: Callable[..., Any]) -> Callable[..., Any]:
    return vmap(BATCHED, in_axes=(0,), axis_name=AXIS)(fn)


@_on_batch
def _forward(x: PyTree, *, model: Any) -> Any:
    out = []
    for layer in _layers(model):
        x = layer(x)
        out.append(x)
    return out


@_on_batch
def _outputs(inputs: list[Any], *, model: Any) -> Any:
    """Each layer on its own input."""
    return [layer(v) for layer, v in zip(_layers(model), inputs, strict=True)]


@vmap(BATCHED, in_axes=(0, 0), axis_name=AXIS)
def _shifted(x: PyTree, shifts: list[Any], *, model: Any) -> Any:
    """The model's output with something added to every activation."""
    for layer, shift in zip(_layers(model), shifts, strict=True):
        x = layer(x) + shift
    return x


def _local_gradients(inputs: list[Any], errors: list[Any], *, model: Any) -> Any:
    """(d f_l / d theta_l)' eps_l for each layer l, summed over the batch."""

    def product(*, model: Any) -> Any:
        u = _outputs(inputs, model=model)
        return sum(jnp.vdot(a, e) for a, e in zip(u, errors, strict=True))

    mask = Mask(LayerParam).hasnot(frozen=True)
    return value_and_grad(mask)(product)(model=model)[1]["model"]
