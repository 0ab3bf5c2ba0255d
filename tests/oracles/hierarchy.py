"""The generative hierarchy of pcn-torch (Stenlund 2025) and of the blog series: top-down.

x_0 is clamped to the data; level l = 0…L-1 is predicted from above, a_l = W_l x_{l+1} (+ b_l):

    pcn-torch ("after"):  u_l = f(a_l)               blog ("before"):  u_l = W_l f(x_{l+1}) + b_l
    ε_l = x_l - u_l;  the top x_L has no prediction (ε_L = 0), or with `prior` N(0, 1) (ε_L = x_L)
    read-out ŷ = V x_L + c;   E = Σ_l ½‖ε_l‖² + E_sup(y, ŷ),  E_sup squared error or cross-entropy

    inference  x_l ← x_l - η (ε_l - Jᵀ ε_{l-1}),  top also + Vᵀ ∂E_sup/∂ŷ;
               "after": Jᵀ ε_{l-1} = W_{l-1}ᵀ (f'(a_{l-1}) ⊙ ε_{l-1})
    learning   ΔW_l = +η (f'(a_l) ⊙ ε_l) x_{l+1}ᵀ,  Δb_l = +η f'(a_l) ⊙ ε_l
               ["before": η ε_l f(x_{l+1})ᵀ, η ε_l]
               ΔV = -η ∂E_sup/∂ŷ x_Lᵀ;  all batch averages, from the errors at the last states
    test       the same inference **without** E_sup, then ŷ = V x_L

State gradients are per sample and simultaneous; both phases are plain gradient descent.
"""
# ruff: noqa: E741 - l is the layer index of the equations

from dataclasses import dataclass

import numpy as np

from .energy import SQUARED
from .mlp import ACTIVATIONS


@dataclass(frozen=True)
class Hierarchy:
    """weights[l] is (n_l, n_{l+1}), biases[l] (n_l,); readout V is (n_out, n_L), readout_bias c."""

    weights: list
    biases: list
    readout: np.ndarray
    readout_bias: np.ndarray
    activation: str = "tanh"
    place: str = "after"
    prior: bool = False
    output: object = SQUARED

    @property
    def L(self):
        return len(self.weights)

    def predict(self, l, above):
        """u_l from x_{l+1}."""
        f, _ = ACTIVATIONS[self.activation]
        if self.place == "after":
            return f(above @ self.weights[l].T + self.biases[l])
        return f(above) @ self.weights[l].T + self.biases[l]

    def label(self, x):
        return x[self.L] @ self.readout.T + self.readout_bias


def errors(net, x):
    """[ε_0, …, ε_L]."""
    top = x[net.L] if net.prior else np.zeros_like(x[net.L])
    return [x[l] - net.predict(l, x[l + 1]) for l in range(net.L)] + [top]


def gains(net, x):
    """[f'(a_l) ⊙ ε_l]: the errors as the weights see them; "before": ε_l itself."""
    eps = errors(net, x)
    if net.place == "before":
        return eps[: net.L]
    _, df = ACTIVATIONS[net.activation]
    return [df(x[l + 1] @ net.weights[l].T + net.biases[l]) * eps[l] for l in range(net.L)]


def energy(net, x, y=None):
    """(batch,)."""
    E = sum(0.5 * (e**2).sum(-1) for e in errors(net, x))
    return E if y is None else E + net.output.value(y, net.label(x))


def state_gradient(net, x, y=None):
    """[0 (x_0 is data), ∂E/∂x_1, …, ∂E/∂x_L]."""
    eps, gain = errors(net, x), gains(net, x)
    _, df = ACTIVATIONS[net.activation]
    grads = [np.zeros_like(x[0])]
    for l in range(1, net.L + 1):
        down = gain[l - 1] @ net.weights[l - 1]
        grads.append(eps[l] - (df(x[l]) * down if net.place == "before" else down))
    if y is not None:
        grads[net.L] = grads[net.L] + net.output.du(y, net.label(x)) @ net.readout
    return grads


def weight_gradient(net, x, y=None):
    """([(dW_l, db_l)], (dV, dc)): gradients of E, averaged over the batch; ΔW = -η dW."""
    f, _ = ACTIVATIONS[net.activation]
    B, pairs = len(x[0]), []
    for l, gain in enumerate(gains(net, x)):
        pre = x[l + 1] if net.place == "after" else f(x[l + 1])
        pairs.append((-gain.T @ pre / B, -gain.mean(0)))
    if y is None:
        return pairs, None
    d = net.output.du(y, net.label(x))
    return pairs, (d.T @ x[net.L] / B, d.mean(0))


def initial_states(net, data, init="zeros", rng=None):
    """x_0 = data; latents "zeros", "normal" ~ N(0, 1), or "forward": top zero, then x_l := u_l."""
    sizes = [w.shape[1] for w in net.weights]
    if init == "normal":
        return [data] + [rng.standard_normal((len(data), n)) for n in sizes]
    x = [data] + [np.zeros((len(data), n)) for n in sizes]
    if init == "forward":
        for l in range(net.L - 1, 0, -1):
            x[l] = net.predict(l, x[l + 1])
    return x


def infer(net, x, y=None, *, T, lr):
    """The trajectory of T simultaneous steps; y=None is test inference."""
    states = [x]
    for _ in range(T):
        g = state_gradient(net, states[-1], y)
        states.append(
            [states[-1][0]] + [a - lr * d for a, d in zip(states[-1][1:], g[1:], strict=True)]
        )
    return states


def train_step(net, x, y, *, T, lr_infer, lr_learn):
    """T inference steps with the label, then one local update: (new net, trajectory)."""
    states = infer(net, x, y, T=T, lr=lr_infer)
    pairs, readout = weight_gradient(net, states[-1], y)
    new = {
        "weights": [W - lr_learn * dW for W, (dW, _) in zip(net.weights, pairs, strict=True)],
        "biases": [b - lr_learn * db for b, (_, db) in zip(net.biases, pairs, strict=True)],
        "readout": net.readout - lr_learn * readout[0],
        "readout_bias": net.readout_bias - lr_learn * readout[1],
    }
    return Hierarchy(
        **new, activation=net.activation, place=net.place, prior=net.prior, output=net.output
    ), states


def predict(net, x, *, T, lr):
    """ŷ after T steps of inference without the label."""
    return net.label(infer(net, x, None, T=T, lr=lr)[-1])
