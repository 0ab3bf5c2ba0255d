"""Predictive coding."""

from ._base import Algorithm


class PC(Algorithm):
    """Predictive coding: T steps on the states, then one on the weights.

        h := u (forward pass);   T times: h <- opt_h(h, dF/dh);   once: theta <- opt_theta(theta, dF/dtheta)

    With `ce_energy` on the output vode this is PC-CE, with `se_energy` PC-SE; any other energy works too.

    Args:
        model, T, state_optim, weight_optim, and all options: see `Algorithm`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model = pxm.MLP([2, 16, 2])
        >>> pc = pxa.PC(model, T=4, state_optim=optax.sgd(0.1), weight_optim=optax.adam(1e-2))
        >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> metrics = pc.train_step(x, jax.nn.one_hot(jnp.array([0, 1]), 2))
        >>> pc.predict(x).shape
        (2, 2)

    References:
        Rao & Ballard, 1999; Whittington & Bogacz, 2017; Pinchetti et al., "Benchmarking predictive coding
        networks - made simple", eqs 1-3.
    """
