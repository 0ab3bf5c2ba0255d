"""Node energies E(h, u), one scalar per sample, with their derivatives.

    SE:  E = λ/2 ‖h - u‖²              ∂E/∂u = -λ (h - u)          ∂E/∂h = λ (h - u)
    CE:  E = -Σ_i h_i log softmax(u)_i  ∂E/∂u = (Σ h) softmax(u) - h  ∂E/∂h = -log softmax(u)

λ is the node's precision (1/variance); the normaliser -½ log λ is constant and left out.
"""

from dataclasses import dataclass

import numpy as np


def log_softmax(u):
    u = u - u.max(-1, keepdims=True)
    return u - np.log(np.exp(u).sum(-1, keepdims=True))


@dataclass(frozen=True)
class SE:
    precision: float = 1.0

    def value(self, h, u):
        return 0.5 * self.precision * ((h - u) ** 2).sum(-1)

    def du(self, h, u):
        return -self.precision * (h - u)

    def dh(self, h, u):
        return self.precision * (h - u)

    def hvp(self, h, u, v):
        """(∂²E/∂u²) v."""
        return self.precision * v


SQUARED = SE()


@dataclass(frozen=True)
class CE:
    def value(self, h, u):
        return -(h * log_softmax(u)).sum(-1)

    def du(self, h, u):
        return h.sum(-1, keepdims=True) * np.exp(log_softmax(u)) - h

    def dh(self, h, u):
        return -log_softmax(u)

    def hvp(self, h, u, v):
        p = np.exp(log_softmax(u))
        return h.sum(-1, keepdims=True) * (p * v - p * (p * v).sum(-1, keepdims=True))
