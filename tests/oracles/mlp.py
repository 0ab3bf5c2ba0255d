"""A small MLP with hand-derived Jacobian products: the substrate of every oracle.

One layer, input h (batch, n_in), output u (batch, n_out):

    place="before":   u = [h +] a W f(h) + b          J = [I +] a W diag f'(h)
    place="after":    u = [h +] f(z), z = a W h + b   J = [I +] a diag f'(z) W

[.] only with `skip` (a unit skip connection). The multiplier a scales the weight, never the bias.
Derivatives at kinks are JAX's: relu'(0) = 0, leaky_relu'(0) = 1, hard_tanh'(±1) = 1.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

_erf = np.vectorize(math.erf, otypes=[float])
_C = math.sqrt(2 / math.pi)


def _normal_cdf(x):
    return 0.5 * (1 + _erf(x / math.sqrt(2)))


def _gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(_C * (x + 0.044715 * x**3)))


def _gelu_tanh_derivative(x):
    t = np.tanh(_C * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * _C * (1 + 3 * 0.044715 * x**2)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {  # name: (f, f')
    "identity": (lambda x: x, np.ones_like),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float)),
    "leaky_relu": (lambda x: np.where(x >= 0, x, 0.01 * x), lambda x: np.where(x >= 0, 1.0, 0.01)),
    "hard_tanh": (lambda x: np.clip(x, -1, 1), lambda x: (np.abs(x) <= 1).astype(float)),
    "gelu": (_gelu_tanh, _gelu_tanh_derivative),  # jax.nn.gelu's default, approximate=True
    "gelu_erf": (
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
    ),
}


@dataclass(frozen=True)
class Layer:
    """One layer f_l. W is (n_out, n_in), b is (n_out,) or None."""

    W: np.ndarray
    b: np.ndarray | None = None
    activation: str = "identity"
    place: str = "before"
    a: float = 1.0
    skip: bool = False

    def affine(self, h):
        z = self.a * h @ self.W.T
        return z if self.b is None else z + self.b

    def __call__(self, h):
        f, _ = ACTIVATIONS[self.activation]
        u = self.affine(f(h)) if self.place == "before" else f(self.affine(h))
        return h + u if self.skip else u

    def vjp(self, h, e):
        """J(h)ᵀ e, (batch, n_in)."""
        _, df = ACTIVATIONS[self.activation]
        if self.place == "before":
            g = df(h) * (self.a * e @ self.W)
        else:
            g = self.a * (df(self.affine(h)) * e) @ self.W
        return g + e if self.skip else g

    def jvp(self, h, v):
        """J(h) v, (batch, n_out)."""
        _, df = ACTIVATIONS[self.activation]
        if self.place == "before":
            d = self.a * (df(h) * v) @ self.W.T
        else:
            d = df(self.affine(h)) * (self.a * v @ self.W.T)
        return d + v if self.skip else d

    def weight_vjp(self, h, e):
        """((∂u/∂W)ᵀ e, (∂u/∂b)ᵀ e), summed over the batch: post- times pre-synaptic."""
        f, df = ACTIVATIONS[self.activation]
        post, pre = (e, f(h)) if self.place == "before" else (df(self.affine(h)) * e, h)
        return self.a * post.T @ pre, None if self.b is None else post.sum(0)

    def matrix(self):
        """The Jacobian of a linear layer, (n_out, n_in): a W, plus I with a skip."""
        assert self.activation == "identity"
        M = self.a * self.W
        return M + np.eye(len(M)) if self.skip else M


class MLP:
    """Layers 1…L. `net[l]` is layer l, counted from 1 as in the equations."""

    def __init__(self, layers):
        self.layers = list(layers)
        self.L = len(self.layers)

    def __getitem__(self, l):
        assert 1 <= l <= self.L
        return self.layers[l - 1]

    def forward(self, x):
        """[x, u_1, …, u_L] of a forward pass."""
        h = [x]
        for layer in self.layers:
            h.append(layer(h[-1]))
        return h

    def predictions(self, h):
        """[None, u_1, …, u_L], u_l = f_l(h_{l-1}), at the given states h_0…h_L."""
        return [None] + [self[l](h[l - 1]) for l in range(1, self.L + 1)]

    @property
    def params(self):
        """Flat list W_1, b_1, W_2, … (absent biases skipped), in the order of `flatten`."""
        return flatten([(layer.W, layer.b) for layer in self.layers])

    def with_params(self, params):
        it, layers = iter(params), []
        for layer in self.layers:
            W = next(it)
            layers.append(replace(layer, W=W, b=None if layer.b is None else next(it)))
        return MLP(layers)


def flatten(pairs):
    """[(dW_1, db_1), …] -> [dW_1, db_1, …] without the absent biases."""
    return [array for pair in pairs for array in pair if array is not None]


def make_mlp(rng, dims, activation="tanh", place="after", bias=True, scale=1.0):
    """Random MLP, W ~ scale N(0, 1/n_in), b ~ 0.1 N(0, 1).

    "after": the last layer is linear; "before": the first layer is (the data x is not squashed).
    """
    L, layers = len(dims) - 1, []
    for l, (n_in, n_out) in enumerate(pairwise(dims), start=1):
        linear = l == (L if place == "after" else 1)
        W = scale * rng.standard_normal((n_out, n_in)) / math.sqrt(n_in)
        b = 0.1 * rng.standard_normal(n_out) if bias else None
        layers.append(Layer(W, b, "identity" if linear else activation, place))
    return MLP(layers)
