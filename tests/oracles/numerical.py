"""Central finite differences and random problems, for the proofs of the oracles."""

import numpy as np

from .mlp import MLP, Layer, make_mlp


def gradient(f, x, step=1e-6):
    """∂f/∂x of a scalar f, by central differences; error ~ 1e-9 where f is of order 1."""
    g, flat = np.zeros_like(x), x.reshape(-1)
    for i in range(x.size):
        e = np.zeros_like(flat)
        e[i] = step
        up, down = ((flat + s * e).reshape(x.shape) for s in (1, -1))
        g.reshape(-1)[i] = (f(up) - f(down)) / (2 * step)
    return g


def replaced(items, i, value):
    return [value if j == i else item for j, item in enumerate(items)]


def param_gradients(f, net):
    """∂f(net)/∂params, flat."""
    return [
        gradient(lambda p, i=i: f(net.with_params(replaced(net.params, i, p))), p)
        for i, p in enumerate(net.params)
    ]


def net_of(kind, rng, activation="tanh"):
    """3-4-4-2-ish networks of every kind of layer."""
    if kind in ("before", "after"):
        return make_mlp(rng, [3, 5, 4, 2], activation, kind)
    if kind == "skip":
        layers = [
            Layer(rng.standard_normal((4, 3)), 0.1 * rng.standard_normal(4), a=0.6),
            Layer(
                rng.standard_normal((4, 4)),
                0.1 * rng.standard_normal(4),
                activation,
                "before",
                0.3,
                True,
            ),
            Layer(
                rng.standard_normal((4, 4)),
                0.1 * rng.standard_normal(4),
                activation,
                "after",
                0.4,
                True,
            ),
            Layer(rng.standard_normal((2, 4)), None, activation, "before", 0.5),
        ]
        return MLP(layers)
    bias = {"linear": True, "linear_no_bias": False}[kind]
    return make_mlp(rng, [3, 5, 4, 2], "identity", "after", bias=bias)


def linear_skip(rng):
    a = [0.6, 0.3, 0.4, 0.5]
    shapes = [(4, 3), (4, 4), (4, 4), (2, 4)]
    return MLP(
        Layer(rng.standard_normal(s), 0.1 * rng.standard_normal(s[0]), a=a[i], skip=i in (1, 2))
        for i, s in enumerate(shapes)
    )


def data(rng, net, batch=3, one_hot=False):
    x = rng.standard_normal((batch, net[1].W.shape[1]))
    n = len(net[net.L].W)
    y = np.eye(n)[np.arange(batch) % n] if one_hot else rng.standard_normal((batch, n))
    return x, y


def random_states(rng, net, x, y):
    return [x] + [rng.standard_normal(u.shape) for u in net.forward(x)[1:-1]] + [y]


def assert_close(actual, expected, atol, rtol=0.0):
    """Element by element over lists; None matches None."""
    actual, expected = list(actual), list(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            np.testing.assert_allclose(a, b, atol=atol, rtol=rtol)
