"""Closed forms for deep linear networks, with unit skips and output precision λ.

M_l = a_l W_l (+ I with a skip), u_l = M_l h_{l-1} + b_l, P_l = M_L … M_l, so the network is P_1 x
+ c.

    F* = 1/(2B) Σ_i r_iᵀ S⁻¹ r_i,  r = y - u_L(x),  S = I/λ + Σ_{l=2..L} P_l P_lᵀ
    h* = H⁻¹ b:  H block tridiagonal over h_1…h_{L-1}
                 diagonal I + M_{l+1}ᵀ M_{l+1}  (λ on the last: I + λ M_Lᵀ M_L)
                 off-diagonal (l, l+1): -M_{l+1}ᵀ
                 with skips: 2I + a²WᵀW + a(W + Wᵀ) and -aWᵀ - I

`quadratic` builds the same F over *all* nodes, for any set of clamped ones: it is the joint
Gaussian exp(-F) of a linear generative model, from which the posterior and the marginals follow.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np


def products(net):
    """[None, P_1, …, P_L]."""
    P = [None] * (net.L + 1)
    P[net.L] = net[net.L].matrix()
    for l in range(net.L - 1, 0, -1):
        P[l] = P[l + 1] @ net[l].matrix()
    return P


def rescaling(net, precision=1.0):
    """S, (n_L, n_L)."""
    P = products(net)
    return np.eye(len(P[net.L])) / precision + sum(P[l] @ P[l].T for l in range(2, net.L + 1))


def equilibrium_energy(net, x, y, precision=1.0):
    """F*, per sample (batch,); its mean over the batch is the formula above."""
    r = y - net.forward(x)[-1]
    return 0.5 * (r * np.linalg.solve(rescaling(net, precision), r.T).T).sum(-1)


def hessian(net, precision=1.0):
    """H, over the stacked h_1…h_{L-1}."""
    L, sizes = net.L, [len(net[l].W) for l in range(1, net.L)]
    ends = np.cumsum([0, *sizes])
    H = np.eye(ends[-1])
    for l in range(1, L):
        M, lam = net[l + 1].matrix(), precision if l == L - 1 else 1.0
        here = slice(ends[l - 1], ends[l])
        H[here, here] += lam * M.T @ M
        if l < L - 1:
            above = slice(ends[l], ends[l + 1])
            H[here, above] = -M.T
            H[above, here] = -M
    return H


def bias(layer):
    return np.zeros(len(layer.W)) if layer.b is None else layer.b


def linear_term(net, x, y, precision=1.0):
    """b of H h* = b, (batch, Σ n), c_l the constant of u_l (c_1 = u_1(x)).

    b_l = c_l - M_{l+1}ᵀ c_{l+1}, and for the last b_{L-1} = c_{L-1} + λ M_Lᵀ (y - c_L).
    """
    L, terms = net.L, []
    for l in range(1, L):
        own = net[1](x) if l == 1 else np.tile(bias(net[l]), (len(x), 1))
        above = precision * (y - bias(net[L])) if l == L - 1 else -bias(net[l + 1])
        terms.append(own + above @ net[l + 1].matrix())
    return np.concatenate(terms, axis=-1)


def equilibrium_states(net, x, y, precision=1.0):
    """[x, h*_1, …, h*_{L-1}, y]."""
    h = np.linalg.solve(hessian(net, precision), linear_term(net, x, y, precision).T).T
    cuts = np.cumsum([len(net[l].W) for l in range(1, net.L)])[:-1]
    return [x, *np.split(h, cuts, axis=-1), y]


def condition_number(net, precision=1.0):
    return np.linalg.cond(hessian(net, precision))


def gradient_flow(net, x, y, h0, t, precision=1.0):
    """The exact ḣ = -∂F/∂h from h0 = [h_0…h_L] at time t: h(t) = h* + exp(-H t)(h(0) - h*)."""
    kappa, V = np.linalg.eigh(hessian(net, precision))
    star = equilibrium_states(net, x, y, precision)
    gap = np.concatenate([a - b for a, b in zip(h0[1:-1], star[1:-1], strict=True)], axis=-1)
    gap = (gap @ V * np.exp(-kappa * t)) @ V.T
    cuts = np.cumsum([a.shape[-1] for a in h0[1:-1]])[:-1]
    return [x, *(s + d for s, d in zip(star[1:-1], np.split(gap, cuts, axis=-1), strict=True)), y]


# The joint Gaussian of a linear generative model.


def slices(net):
    """{l: slice} of node l = 0…L in the stacked vector."""
    ends = np.cumsum([0, net[1].W.shape[1]] + [len(net[l].W) for l in range(1, net.L + 1)])
    return {l: slice(ends[l], ends[l + 1]) for l in range(net.L + 1)}


def quadratic(net, precision=1.0, prior=None):
    """(K, k) over all nodes: F = ½ hᵀ K h - kᵀ h + const, from F = Σ_l λ_l/2 ‖D_l h - c_l‖².

    D_l h = h_l - M_l h_{l-1}. prior = μ_0 adds ½‖h_0 - μ_0‖²; without, K is singular until h_0 is
    clamped.
    """
    at = slices(net)
    n = at[net.L].stop
    K, k = np.zeros((n, n)), np.zeros(n)
    for l in range(net.L + 1):
        D = np.zeros((at[l].stop - at[l].start, n))
        D[:, at[l]] = np.eye(len(D))
        if l == 0 and prior is None:
            continue
        if l > 0:
            D[:, at[l - 1]] = -net[l].matrix()
        c, lam = (prior if l == 0 else bias(net[l])), (precision if l == net.L else 1.0)
        K += lam * D.T @ D
        k += lam * D.T @ c
    return K, k


def condition(K, k, free, clamped):
    """(mean, K_free) of the indices `free` given clamped = {index: value}; cov = σ² inv(K_free)."""
    idx, values = np.array(list(clamped), dtype=int), np.array(list(clamped.values()), dtype=float)
    K_free = K[np.ix_(free, free)]
    return np.linalg.solve(K_free, k[free] - K[np.ix_(free, idx)] @ values), K_free


def posterior(net, *, clamped, precision=1.0, prior=None):
    """(mean, K_free) of the free nodes, stacked in order, given clamped = {l: (n_l,)}."""
    K, k = quadratic(net, precision, prior)
    at = slices(net)
    free = [i for l in range(net.L + 1) if l not in clamped for i in range(at[l].start, at[l].stop)]
    values = {
        i: v
        for l, h in clamped.items()
        for i, v in zip(range(at[l].start, at[l].stop), h, strict=True)
    }
    return condition(K, k, free, values)


def marginals(net, *, precision=1.0, prior=None, x=None, sigma2=1.0):
    """[(mean_l, cov_l)] for l = 0…L, by ancestral recursion: independent of `quadratic`.

    h_0 ~ N(prior, σ²I), or h_0 = x clamped. mean_l = u_l(mean), cov_l = M_l cov M_lᵀ + σ²/λ_l I.
    """
    mean = prior if x is None else x
    cov = (sigma2 if x is None else 0.0) * np.eye(len(mean))
    out = [(mean, cov)]
    for l in range(1, net.L + 1):
        M, lam = net[l].matrix(), precision if l == net.L else 1.0
        mean, cov = M @ mean + bias(net[l]), M @ cov @ M.T + sigma2 / lam * np.eye(len(M))
        out.append((mean, cov))
    return out
