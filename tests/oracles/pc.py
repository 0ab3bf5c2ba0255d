"""Predictive coding (PC-SE, PC-CE) and incremental PC.

    F = Σ_{l=1}^{L-1} ½‖h_l - u_l‖² + E_out(h_L, u_L)   [+ ½‖h_0 - μ_0‖² when a prior is given]
    ∂F/∂h_l = e_l - J_{l+1}(h_l)ᵀ e_{l+1}                per sample
    ∂F/∂W_l = -(1/B) Σ_samples (∂u_l/∂W_l)ᵀ e_l          averaged over the batch

with e_L replaced by -∂E_out/∂u_L. All free states move simultaneously, from one gradient.

`free` says which nodes move: an iterable of indices, or {index: mask} where mask (broadcast
against h) is 1 on the free entries: a half clamped sensory node.
"""
# ruff: noqa: E741 - l is the layer index of the equations

from dataclasses import dataclass, field

import numpy as np

from .energy import SQUARED
from .mlp import flatten


@dataclass
class Result:
    """states[t][l] after t steps (t = 0 is the initialisation); energies[t] of shape (batch,)."""

    states: list
    energies: np.ndarray
    grads: list = None  # [(dW_1, db_1), …, (dW_L, db_L)], averaged over the batch
    net: object = None  # the net after learning, where the algorithm learns
    extra: dict = field(default_factory=dict)

    @property
    def h(self):
        return self.states[-1]


def node_energies(net, h, output=SQUARED, prior=None):
    """(L+1, batch): E_0 (zero without a prior), E_1, …, E_L."""
    u = net.predictions(h)
    E0 = np.zeros(len(h[-1])) if prior is None else SQUARED.value(h[0], prior)
    hidden = [SQUARED.value(h[l], u[l]) for l in range(1, net.L)]
    return np.stack([E0, *hidden, output.value(h[net.L], u[net.L])])


def energy(net, h, output=SQUARED, prior=None):
    """F per sample, (batch,)."""
    return node_energies(net, h, output, prior).sum(0)


def prediction_gradient(net, h, output=SQUARED):
    """[None, d_1, …, d_L], d_l = ∂E_l/∂u_l: -e_l, and ∂E_out/∂u_L at the output."""
    u = net.predictions(h)
    return (
        [None] + [SQUARED.du(h[l], u[l]) for l in range(1, net.L)] + [output.du(h[net.L], u[net.L])]
    )


def state_gradient(net, h, output=SQUARED, prior=None):
    """[∂F/∂h_0, …, ∂F/∂h_L], ∂F/∂h_l = ∂E_l/∂h_l + J_{l+1}(h_l)ᵀ ∂E_{l+1}/∂u_{l+1}."""
    u, d, L = net.predictions(h), prediction_gradient(net, h, output), net.L
    own = [np.zeros_like(h[0]) if prior is None else h[0] - prior]
    own += [h[l] - u[l] for l in range(1, L)] + [output.dh(h[L], u[L])]
    return [own[l] + net[l + 1].vjp(h[l], d[l + 1]) for l in range(L)] + [own[L]]


def local_weight_gradient(net, h, d):
    """[(dW_l, db_l)], (1/B) Σ (∂u_l/∂θ_l)ᵀ d_l with h_{l-1} detached, for any signal d_l on u_l."""
    B = len(d[-1])
    pairs = [net[l].weight_vjp(h[l - 1], d[l]) for l in range(1, net.L + 1)]
    return [(dW / B, None if db is None else db / B) for dW, db in pairs]


def weight_gradient(net, h, output=SQUARED):
    """Averaged over the batch."""
    return local_weight_gradient(net, h, prediction_gradient(net, h, output))


def initial_states(net, x, y=None, init="forward"):
    """h_0…h_L: "forward" (h_l := u_l), "zeros", or a given list; then h_L := y unless y is None."""
    h = net.forward(x) if isinstance(init, str) else list(init)
    if isinstance(init, str) and init == "zeros":
        h = [x] + [np.zeros_like(a) for a in h[1:]]
    return h if y is None else [*h[:-1], y]


class StateStepper:
    """Steps the free entries of h with an optimiser and remembers its state."""

    def __init__(self, optim, h, free):
        self.optim, self.free = optim, free if isinstance(free, dict) else dict.fromkeys(free, 1.0)
        self.state = optim.init([h[l] for l in self.free])

    def __call__(self, h, g):
        grads = [mask * g[l] for l, mask in self.free.items()]
        new, self.state = self.optim.step([h[l] for l in self.free], grads, self.state)
        h = list(h)
        for l, value in zip(self.free, new, strict=True):
            h[l] = value
        return h


def infer(net, h, *, free, T, optim, output=SQUARED, prior=None):
    """T steps h ← opt(h, ∇_h F) from the given states; returns the trajectory, T+1 lists."""
    stepper, states = StateStepper(optim, h, free), [h]
    for _ in range(T):
        states.append(stepper(states[-1], state_gradient(net, states[-1], output, prior)))
    return states


def hidden(net):
    return range(1, net.L)


def pc(net, x, y, *, T, optim, output=SQUARED, init="forward", free=None, prior=None):
    """Inference with h_L = y, then the weight gradient at the last states."""
    h = initial_states(net, x, y, init)
    states = infer(
        net,
        h,
        free=hidden(net) if free is None else free,
        T=T,
        optim=optim,
        output=output,
        prior=prior,
    )
    energies = np.stack([energy(net, h, output, prior) for h in states])
    return Result(states, energies, weight_gradient(net, states[-1], output), net)


def learns(t, T0, Ti):
    """Do the weights step at 0-based step t? At T0, T0 + Ti, T0 + 2 Ti, …; Ti = 0 is every step."""
    return T0 is not None and t >= T0 and (t - T0) % max(Ti, 1) == 0


def ipc(
    net,
    x,
    y,
    *,
    T,
    optim,
    weight_optim,
    T0=0,
    Ti=0,
    weight_state=None,
    output=SQUARED,
    init="forward",
):
    """Incremental PC: at a learning step both h and θ move from gradients at the same (h, θ).

    T0=None never learns during inference, and is PC: then (only then) one weight step follows
    inference. `grads` are those of the last weight step; `extra["weight_state"]` is the weight
    optimiser's state.
    """
    h = initial_states(net, x, y, init)
    stepper, states, nets, grads = StateStepper(optim, h, hidden(net)), [h], [net], None
    weight_state = weight_optim.init(net.params) if weight_state is None else weight_state
    for t in range(T):
        net, h = nets[-1], states[-1]
        states.append(stepper(h, state_gradient(net, h, output)))
        if learns(t, T0, Ti):
            grads = weight_gradient(net, h, output)
            params, weight_state = weight_optim.step(net.params, flatten(grads), weight_state)
            net = net.with_params(params)
        nets.append(net)
    if T0 is None:
        grads = weight_gradient(net, states[-1], output)
        params, weight_state = weight_optim.step(net.params, flatten(grads), weight_state)
        net = net.with_params(params)
    energies = np.stack([energy(n, h, output) for n, h in zip(nets, states, strict=True)])
    return Result(states, energies, grads, net, {"weight_state": weight_state})
