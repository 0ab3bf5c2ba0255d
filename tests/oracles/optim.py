"""Optimisers on flat lists of arrays.

`state = o.init(params)`; then `params, state = o.step(params, grads, state)`.

SGD    m ← g + μ m;  θ ← θ - η m                     (optax.sgd: the trace is not damped by 1 - μ)
       Nesterov:  θ ← θ - η (g + μ m)
Adam   m ← β₁m + (1-β₁) g;  v ← β₂v + (1-β₂) g²;  θ ← θ - η m̂ / (√v̂ + ε)
       m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ), t = 1, 2…
AdamW  θ ← θ - η (m̂ / (√v̂ + ε) + wd θ)               (decay of θ before the step)
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SGD:
    lr: float
    momentum: float = 0.0
    nesterov: bool = False

    def init(self, params):
        return [np.zeros_like(p) for p in params]

    def step(self, params, grads, state):
        trace = [g + self.momentum * m for g, m in zip(grads, state, strict=True)]
        updates = (
            [g + self.momentum * m for g, m in zip(grads, trace, strict=True)]
            if self.nesterov
            else trace
        )
        return [p - self.lr * u for p, u in zip(params, updates, strict=True)], trace


@dataclass(frozen=True)
class AdamW:
    lr: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-4

    def init(self, params):
        zeros = [np.zeros_like(p) for p in params]
        return 0, zeros, zeros

    def step(self, params, grads, state):
        t, m, v = state
        t = t + 1
        m = [self.b1 * m_ + (1 - self.b1) * g for m_, g in zip(m, grads, strict=True)]
        v = [self.b2 * v_ + (1 - self.b2) * g**2 for v_, g in zip(v, grads, strict=True)]
        new = []
        for p, m_, v_ in zip(params, m, v, strict=True):
            m_hat, v_hat = m_ / (1 - self.b1**t), v_ / (1 - self.b2**t)
            new.append(p - self.lr * (m_hat / (np.sqrt(v_hat) + self.eps) + self.weight_decay * p))
        return new, (t, m, v)


def Adam(lr, b1=0.9, b2=0.999, eps=1e-8):
    return AdamW(lr, b1, b2, eps, weight_decay=0.0)
