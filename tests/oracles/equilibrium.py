"""Equilibria of chains by Newton's method, and equilibrium propagation (Scellier & Bengio 2017).

    F_β(h) = Σ_{l=1}^{L} ½‖e_l‖² + β C(h_L, y)         beta given: h_1 … h_L are free
    F(h)   = Σ_{l=1}^{L-1} ½‖e_l‖² + C(u_L, y)          beta None: h_L = y, predictive coding

The Hessian in the states of a chain is block tridiagonal; with d_l = ∂E_l/∂u_l and J_l = ∂u_l/∂h_{l-1},

    (l, l)    I + J_{l+1}ᵀ J_{l+1} + Σ_i d_{l+1,i} ∇²f_{l+1,i}     (β C'' in place of the rest in l = L;
    (l, l+1)  -J_{l+1}ᵀ                                             C'' between the J's of a clamped output)

so that a Newton step is one pass of block elimination each way (Thomas). It is exact on linear nets.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from .energy import SQUARED
from .mlp import ACTIVATIONS
from .pc import local_weight_gradient

_SECOND = {"identity": np.zeros_like, "tanh": lambda a: -2 * np.tanh(a) * (1 - np.tanh(a) ** 2)}


def jacobian(layer, h):
    """(n_out, n_in) at one state h, (1, n_in)."""
    n = len(layer.W)
    return layer.vjp(np.repeat(h, n, 0), np.eye(n))


def second(layer, h, d):
    """Σ_i d_i ∇²u_i at one state, (n_in, n_in)."""
    second = _SECOND[layer.activation]
    if layer.place == "before":
        return np.diag((layer.a * d @ layer.W * second(h))[0])
    return layer.a**2 * layer.W.T @ np.diag((d * second(layer.affine(h)))[0]) @ layer.W


def errors(net, h):
    """[None, e_1, …, e_L]."""
    return [None] + [a - b for a, b in zip(h[1:], net.predictions(h)[1:], strict=True)]


def energy(net, h, y, beta=None, output=SQUARED):
    """F_β (beta given) or F, (batch,)."""
    e, L = errors(net, h), net.L
    last = (
        output.value(y, net[L](h[L - 1]))
        if beta is None
        else 0.5 * (e[L] ** 2).sum(-1) + beta * output.value(y, h[L])
    )
    return sum(0.5 * (e[l] ** 2).sum(-1) for l in range(1, L)) + last


def gradient(net, h, y, beta=None, output=SQUARED):
    """[None, g_1, …] of the free states, and the signals [None, d_1, …, d_L] on the predictions."""
    e, L = errors(net, h), net.L
    d = [None] + [-e[l] for l in range(1, L + 1)]
    if beta is None:
        d[L] = output.du(y, net[L](h[L - 1]))
    g = [None] + [e[l] + net[l + 1].vjp(h[l], d[l + 1]) for l in range(1, L)]
    if beta is not None:
        g.append(e[L] + beta * output.du(y, h[L]))
    return g, d


def blocks(net, h, y, beta=None, output=SQUARED):
    """Diagonal blocks and those above them, of the Hessian for one sample."""
    L = net.L
    _, d = gradient(net, h, y, beta, output)
    J = [None, None] + [jacobian(net[l], h[l - 1]) for l in range(2, L + 1)]
    diagonal, above = [], []
    curved = lambda u: np.stack([output.hvp(y, u, v[None])[0] for v in np.eye(u.shape[-1])])
    for l in range(1, L):
        clamped = beta is None and l == L - 1
        middle = curved(net[L](h[L - 1])) if clamped else np.eye(len(J[l + 1]))
        extra = second(net[l + 1], h[l], d[l + 1])
        diagonal.append(np.eye(J[l + 1].shape[1]) + J[l + 1].T @ middle @ J[l + 1] + extra)
        if not clamped:
            above.append(-J[l + 1].T)
    if beta is not None:
        diagonal.append(np.eye(h[L].shape[-1]) + beta * curved(h[L]))
    return diagonal, above


def thomas(diagonal, above, right):
    """Solve a symmetric block tridiagonal system by block elimination."""
    D, r = [diagonal[0]], [right[0]]
    for k in range(1, len(diagonal)):
        factor = np.linalg.solve(D[-1].T, above[k - 1]).T
        D.append(diagonal[k] - factor @ above[k - 1])
        r.append(right[k] - factor @ r[-1])
    out = [np.linalg.solve(D[-1], r[-1])]
    for k in range(len(D) - 2, -1, -1):
        out.insert(0, np.linalg.solve(D[k], r[k] - above[k] @ out[0]))
    return out


def newton(net, x, y, beta=None, output=SQUARED, steps=50, tolerance=1e-13):
    """The stationary point that Newton's method reaches from the forward pass, [x, h_1, …, h_L]."""
    samples = []
    for i in range(len(x)):
        h, one = net.forward(x[i : i + 1]), y[i : i + 1]
        if beta is None:
            h[-1] = one
        for _ in range(steps):
            g = [a[0] for a in gradient(net, h, one, beta, output)[0][1:]]
            if max(np.abs(a).max() for a in g) < tolerance:
                break
            moves = thomas(*blocks(net, h, one, beta, output), g)
            for l, move in enumerate(moves, start=1):
                h[l] = h[l] - move
        samples.append(h)
    return [np.concatenate(parts) for parts in zip(*samples, strict=True)]


def ep_gradient(net, h, y, beta, output=SQUARED):
    """∂F_β/∂θ / β at the states h, averaged over the batch: -(∂u_l/∂θ_l)ᵀ e_l / β."""
    _, d = gradient(net, h, y, beta, output)
    return local_weight_gradient(net, h, [None] + [a / beta for a in d[1:]])


def sweeps(net, x, y, T, beta=None, output=SQUARED, project=None, damping=0.0):
    """States after each of T sweeps: all even layers at once, then all odd ones, each with full steps."""
    h, L = net.forward(x), net.L
    if beta is None:
        h[L] = y
    top = L - 1 if beta is None else L
    trajectory = [list(h)]
    for _ in range(T):
        for parity in (0, 1):
            g, _ = gradient(net, h, y, beta, output)
            new = {}
            for l in range(1, top + 1):
                if l % 2 != parity:
                    continue
                value = h[l] - g[l]
                if project is not None and net[l].activation == "relu":
                    f, _ = ACTIVATIONS["relu"]
                    a = net[l].affine(h[l - 1])
                    value = f(value if project == "pgd" else a + value - f(a))
                new[l] = damping * h[l] + (1 - damping) * value
            for l, value in new.items():
                h[l] = value
        trajectory.append(list(h))
    return trajectory
