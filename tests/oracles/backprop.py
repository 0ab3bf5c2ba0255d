"""Back-propagation by hand: the loss is the output energy at the forward pass, batch mean.

δ_L = ∂E_out/∂u_L,  δ_l = J_{l+1}(û_l)ᵀ δ_{l+1}  (per sample);   ∂/∂θ_l = (1/B) Σ (∂u_l/∂θ_l)ᵀ δ_l
"""
# ruff: noqa: E741 - l is the layer index of the equations

from .energy import SQUARED
from .pc import local_weight_gradient


def deltas(net, v, d_L):
    """[None, δ_1, …, δ_L] through the stack evaluated at the states v, from δ_L = d_L."""
    d = [None] * net.L + [d_L]
    for l in range(net.L - 1, 0, -1):
        d[l] = net[l + 1].vjp(v[l], d[l + 1])
    return d


def backprop(net, x, y, output=SQUARED):
    """(mean loss, [(dW_l, db_l)], [None, δ_1, …, δ_L])."""
    u = net.forward(x)
    d = deltas(net, u, output.du(y, u[-1]))
    return output.value(y, u[-1]).mean(), local_weight_gradient(net, u, d), d
