"""Z-IL (Song et al. 2020) and the hybrid Z-IL + PC.

Forward initialisation, state learning rate 1, T = L. At step t = 0…L-1 only layer l = L - t
learns, from the errors at the beginning of that step (states and weights move from one gradient,
so the state step sees the weights before learning):

    t = 0:  e_L = y - û_L                           layer L learns;  h_{L-1} ← û_{L-1} + J_Lᵀ e_L
    t = 1:  e_{L-1} = h_{L-1} - û_{L-1} = J_Lᵀ e_L    layer L-1 learns;  …

Each error reaches its layer before anything below has moved: e_l = -δ_l, back-propagation's.

Hybrid: those L steps, weights stepping at once (each layer with its own optimiser state); then T -
L ordinary steps with the state optimiser (fresh) on the weights already learned; then one full PC
weight step, with the same optimiser states.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from .energy import SQUARED
from .mlp import MLP, flatten
from .optim import SGD
from .pc import (
    Result,
    StateStepper,
    energy,
    hidden,
    infer,
    initial_states,
    state_gradient,
    weight_gradient,
)


def step_layer(net, l, pair, weight_optim, weight_state):
    """Steps layer l only; weight_state[l-1] is that layer's own."""
    layers = list(net.layers)
    params, new = weight_optim.step(MLP([net[l]]).params, flatten([pair]), weight_state[l - 1])
    layers[l - 1] = MLP([net[l]]).with_params(params)[1]
    return MLP(layers), [*weight_state[: l - 1], new, *weight_state[l:]]


def zil(net, x, y, *, weight_optim=None, output=SQUARED, T=None, optim=None):
    """Z-IL (T=None), or the hybrid (T >= L). Without weight_optim the weights stay put.

    `grads` are the Z-IL gradients; `extra["pc_grads"]` those of the hybrid's last, full step.
    """
    L, unit = net.L, SGD(1.0)
    h = initial_states(net, x, y)
    states, grads, stepper = [h], [None] * L, StateStepper(unit, h, hidden(net))
    weight_state = weight_optim and [weight_optim.init(MLP([layer]).params) for layer in net.layers]
    for t in range(L):
        l, h = L - t, states[-1]
        grads[l - 1] = weight_gradient(net, h, output)[l - 1]
        states.append(stepper(h, state_gradient(net, h, output)))
        if weight_optim:
            net, weight_state = step_layer(net, l, grads[l - 1], weight_optim, weight_state)
    extra = {"weight_state": weight_state}
    if T is not None:
        assert T >= L
        states += infer(net, states[-1], free=hidden(net), T=T - L, optim=optim, output=output)[1:]
        extra["pc_grads"] = weight_gradient(net, states[-1], output)
        for l in range(1, L + 1):
            net, weight_state = step_layer(
                net, l, extra["pc_grads"][l - 1], weight_optim, weight_state
            )
        extra["weight_state"] = weight_state
    return Result(states, np.stack([energy(net, h, output) for h in states]), grads, net, extra)
