"""Error-parameterised predictive coding (Goemaere et al. 2025).

    h_l = u_l + ε_l, u_l = f_l(h_{l-1}), h_0 = x;  the output has no ε E(ε) = ½ Σ_{l<L} ‖ε_l‖² +
    E_out(y, u_L) ∂E/∂ε_l = ε_l + δ_l,   δ_L = ∂E_out/∂u_L,  δ_l = J_{l+1}(h_l)ᵀ δ_{l+1}
    (reverse mode, per sample)

ε starts at 0. After T steps the weight gradients are **local**: those of PC at these h with h_L =
y, h detached. After one step of SGD with lr η: ε_l = -η δ_l, and the weight gradients of the
*hidden* layers are η × back-propagation's to first order in η; the *output* layer's, whose error
is no free variable, is 1 × back-propagation's to leading order.

`scaled` takes, per sample, α = damping · gᵀg / (gᵀg + (J d)ᵀ H (J d)), d = -g = -∇_ε E, J the
Jacobian of u_L in ε, H the output energy's Hessian: damping = 1 is the exact line search of the
Gauss-Newton model (of E itself on a linear net).
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from .backprop import deltas
from .energy import SQUARED
from .pc import Result, hidden, weight_gradient


def unroll(net, x, eps):
    """h_0…h_{L-1}, u_L for the errors eps = {l: (batch, n_l)}, l = 1…L-1."""
    h = [x]
    for l in range(1, net.L + 1):
        u = net[l](h[-1])
        h.append(u + eps[l] if l < net.L else u)
    return h


def energy(net, x, y, eps, output=SQUARED):
    """(batch,)."""
    return sum(0.5 * (eps[l] ** 2).sum(-1) for l in hidden(net)) + output.value(
        y, unroll(net, x, eps)[-1]
    )


def error_gradient(net, x, y, eps, output=SQUARED):
    """{l: ∂E/∂ε_l}."""
    h = unroll(net, x, eps)
    d = deltas(net, h, output.du(y, h[-1]))
    return {l: eps[l] + d[l] for l in hidden(net)}


def jvp(net, h, direction):
    """J d: the change of u_L along direction = {l: d_l}; t_l = J_l t_{l-1} + d_l."""
    t = np.zeros_like(h[0])
    for l in range(1, net.L + 1):
        t = net[l].jvp(h[l - 1], t) + (direction[l] if l < net.L else 0.0)
    return t


def scaled_step(net, x, y, eps, g, output=SQUARED, damping=1.0):
    """α of each sample, (batch, 1)."""
    h = unroll(net, x, eps)
    Jd = jvp(net, h, {l: -g[l] for l in g})
    gg = sum((g[l] ** 2).sum(-1) for l in g)
    return (damping * gg / (gg + (Jd * output.hvp(y, h[-1], Jd)).sum(-1)))[:, None]


def epc(net, x, y, *, T, optim=None, scaled=None, output=SQUARED):
    """T steps on ε with an optimiser, or (scaled = damping) the per-sample step.

    The states returned have h_L = y, as those of PC, so both compare directly; the energies are
    E(ε) = F(h). `extra["eps"]`: the trajectory of the errors.
    """
    u = net.forward(x)
    eps = {l: np.zeros_like(u[l]) for l in hidden(net)}
    trajectory, state = [eps], optim and optim.init(list(eps.values()))
    for _ in range(T):
        g = error_gradient(net, x, y, eps, output)
        if scaled is not None:
            alpha = scaled_step(net, x, y, eps, g, output, scaled)
            eps = {l: eps[l] - alpha * g[l] for l in eps}
        else:
            new, state = optim.step(list(eps.values()), list(g.values()), state)
            eps = dict(zip(eps, new, strict=True))
        trajectory.append(eps)
    states = [[*unroll(net, x, e)[:-1], y] for e in trajectory]
    energies = np.stack([energy(net, x, y, e, output) for e in trajectory])
    return Result(
        states, energies, weight_gradient(net, states[-1], output), net, {"eps": trajectory}
    )
