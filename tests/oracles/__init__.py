"""Reference implementations in plain NumPy (float64, hand-derived gradients), used as test oracles.

No jax, no automatic differentiation, no import of pcx: an agreement with these modules is
evidence. They follow the notation of `docs`: layers l = 1…L, h[0] = x, states h[l] of shape
(batch, n_l), predictions u[l] = f_l(h[l-1]), errors e[l] = h[l] - u[l]. **State gradients are per
sample; weight gradients are averaged over the batch.** `test_oracles.py` proves the oracles
themselves (finite differences, limits, closed forms).
"""
