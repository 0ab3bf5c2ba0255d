"""The three modes of Torch2PC (Rosenbaum 2022) on a sequential model, for any loss.

`loss(u, y) -> (scalar, ∂loss/∂u)`: the batch's loss, its own reduction included, so with a mean
over the batch the errors are small by 1/B and weight gradients are *summed* over samples: what
loss.backward() would give. ε has the sign of ∂loss (prediction - belief), opposite to e of the
other oracles.

    exact       ε_l = ∂loss/∂v̂_l,  v_l = v̂_l - ε_l
    fixed_pred  v = v̂;  n sweeps:
                ε_l = v̂_l - v_l;  v_l += η (ε_l - J_{l+1}(v̂_l)ᵀ ε_{l+1}),  ε_L = ∂loss(v̂_L)
    strict      v = v_init or v̂;  n sweeps:
                ε_l = f_l(v_{l-1}) - v_l;  v_l += η (ε_l - J_{l+1}(v_l)ᵀ ε_{l+1}),
                ε_L = ∂loss(f_L(v_{L-1})) at the beginning of the sweep
    ∂θ_l = (∂f_l/∂θ_l)ᵀ ε_l, the input of f_l at v̂_{l-1} (exact, fixed_pred) or v_{l-1} (strict)

Sweeps run top→bottom (l = L-1…1) and ε_l is measured just before v_l moves; v_{l-1} has not moved
then, so a sweep is simultaneous: one step of SGD(η) on F. The ε returned, and used for ∂θ, are
those **measured in the last sweep** (not recomputed after it): that is why fixed_pred needs n = L,
not L - 1, to equal back-propagation. `refresh=True` recomputes them at the final v instead. n = 0
measures ε without moving v. In the two iterative modes v_L stays v̂_L: it takes no part.
"""
# ruff: noqa: E741 - l is the layer index of the equations

from dataclasses import dataclass

import numpy as np

from .backprop import deltas
from .energy import log_softmax


@dataclass
class Inference:
    v_hat: list  # [x, v̂_1, …, v̂_L]
    loss: float
    dloss: np.ndarray  # ∂loss/∂v̂_L
    v: list  # [x, v_1, …, v_L]
    epsilon: list  # [None, ε_1, …, ε_L]
    grads: list  # [(dW_l, db_l)]


def mse_mean(u, y):
    """torch.nn.MSELoss(): mean over batch and features."""
    return ((u - y) ** 2).mean(), 2 * (u - y) / u.size


def sum_of_squares(u, y):
    """½ Σ (u - y)² over batch and features: ε_L = u - y, the loss for which strict is PC-SE."""
    return 0.5 * ((u - y) ** 2).sum(), u - y


def ce_mean(u, y):
    """Mean over the batch of -y·log softmax(u), y one-hot: torch.nn.CrossEntropyLoss()."""
    log_p = log_softmax(u)
    return -(y * log_p).sum() / len(u), (y.sum(-1, keepdims=True) * np.exp(log_p) - y) / len(u)


def errors(net, v_hat, v, y, loss, mode):
    """[None, ε_1, …, ε_L] at the beliefs v."""
    L = net.L
    u = v_hat if mode == "fixed_pred" else net.predictions(v)
    return [None] + [u[l] - v[l] for l in range(1, L)] + [loss(u[L], y)[1]]


def pc_infer(net, loss, x, y, mode="strict", *, eta=0.1, n=20, v_init=None, refresh=False):
    """v_init = [v_1, …, v_{L-1}] (a v_L is ignored); only strict uses it."""
    v_hat, L = net.forward(x), net.L
    value, dloss = loss(v_hat[-1], y)
    v = list(v_hat)
    if mode == "exact":
        eps = deltas(net, v_hat, dloss)
        v = [x] + [v_hat[l] - eps[l] for l in range(1, L + 1)]
    else:
        if mode == "strict" and v_init is not None:
            v = [x, *v_init[: L - 1], v_hat[L]]
        eps = errors(net, v_hat, v, y, loss, mode)
        for _ in range(n):
            eps = errors(net, v_hat, v, y, loss, mode)
            at = v_hat if mode == "fixed_pred" else v
            step = {l: eta * (eps[l] - net[l + 1].vjp(at[l], eps[l + 1])) for l in range(1, L)}
            v = [x] + [v[l] + step[l] for l in range(1, L)] + [v[L]]
        if refresh:
            eps = errors(net, v_hat, v, y, loss, mode)
    at = v if mode == "strict" else v_hat
    grads = [net[l].weight_vjp(at[l - 1], eps[l]) for l in range(1, L + 1)]
    return Inference(v_hat, value, dloss, v, eps, grads)
