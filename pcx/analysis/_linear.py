"""Deep linear networks: everything that predictive coding converges to, in closed form."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ..algorithms._energies import CACHE
from ..functional import pure
from ..predictive_coding import STATUS, vodes
from ..utils import step

CHAIN = """LinearNetwork.from_model: the prediction of vode {node} depends on the state of vode \
{other}. The closed forms are for chains, where each vode is predicted from the one before it."""

NOT_LINEAR = """LinearNetwork.from_model: the prediction of vode {node} is not a linear function of \
the state below it. Build the model with the identity as its activation."""


class LinearNetwork(NamedTuple):
    """A chain of linear predictions, `u_l = M_l h_{l-1} + c_l` for l = 1 ... L, with h_0 = x.

    Its energy with the target clamped, h_L = y, and an output of precision p is

        F = sum_{l<L} 1/2 |h_l - u_l|^2 + p/2 |y - u_L|^2

    With P_l = M_L ... M_l, the equilibrium of inference has the energy of a rescaled squared error:

        F* = 1/2 r' S^-1 r,   r = y - u_L(x),   S = I/p + sum_{l=2..L} P_l P_l'

    and the states h* = H^-1 b, where H, the Hessian of F, is block tridiagonal: I + M_{l+1}' M_{l+1}
    on the diagonal (p M_L' M_L in the last), -M_{l+1}' beside it.

    Make one with `from_weights` or `from_model`. Arrays are (outputs, inputs) and (batch, features).

    Attributes:
        matrices: M_1 ... M_L.
        offsets: c_1 ... c_L.
        precision: p.

    Example:
        >>> import jax.numpy as jnp, pcx.analysis as pxan, pcx.models as pxm
        >>> model = pxm.MLP([3, 8, 8, 2], act=lambda h: h)
        >>> net = pxan.LinearNetwork.from_model(model, jnp.zeros(3))
        >>> x, y = jnp.ones((5, 3)), jnp.ones((5, 2))
        >>> net.equilibrium_energy(x, y).shape, [h.shape for h in net.equilibrium_states(x, y)]
        ((5,), [(5, 8), (5, 8)])

    References:
        Innocenti et al., "Only strict saddles in the energy landscape of predictive coding
        networks?", 2024, eq. 5; "JPC", 2024, eq. 4; "μPC", 2025.
    """

    matrices: tuple[jax.Array, ...]
    offsets: tuple[jax.Array, ...]
    precision: float = 1.0

    @classmethod
    def from_weights(
        cls,
        weights: Sequence[Any],
        biases: Sequence[Any] | None = None,
        scales: Sequence[float] | None = None,
        skips: Sequence[bool] | None = None,
        precision: float = 1.0,
    ) -> "LinearNetwork":
        """From the parts of each layer: `u_l = a_l W_l h_{l-1} + b_l`, plus h_{l-1} with a skip.

        Args:
            weights: W_1 ... W_L, (outputs, inputs).
            biases: b_1 ... b_L (not scaled), None where there is none.
            scales: a_1 ... a_L.
            skips: which layers have a unit skip connection.
            precision: of the output.
        """
        n = len(weights)
        for name, given in (("biases", biases), ("scales", scales), ("skips", skips)):
            if given is not None and len(given) != n:
                raise ValueError(f"{name}: one for each of the {n} layers, got {len(given)}")
        matrices, offsets = [], []
        for k, weight in enumerate(map(jnp.asarray, weights)):
            bias = None if biases is None else biases[k]
            matrix = weight if scales is None else scales[k] * weight
            if skips is not None and skips[k]:
                matrix = matrix + jnp.eye(len(weight), dtype=weight.dtype)
            matrices.append(matrix)
            offsets.append(
                jnp.zeros(len(weight), weight.dtype) if bias is None else jnp.asarray(bias)
            )
        return cls(tuple(matrices), tuple(offsets), precision)

    @classmethod
    def from_model(cls, model: Any, x: Any, precision: float = 1.0) -> "LinearNetwork":
        """Read off a model: its vodes must form a chain, and its layers be linear.

        Args:
            model: an `EnergyModule`; scales, skips and biases are found by differentiation.
            x: an input of one sample, for its shape.
            precision: of the output vode's energy.

        Raises:
            ValueError: the model is no chain, or not linear.
        """
        predict, start = _predictions(model, jnp.asarray(x))
        zeros = [jnp.zeros(h.size, h.dtype) for h in start]
        probes = [jnp.linspace(-1.0, 2.0, h.size, dtype=h.dtype) for h in start]
        offsets, jacobians, probed = predict(zeros), jax.jacobian(predict)(zeros), predict(probes)
        for k, (row, c, u) in enumerate(zip(jacobians, offsets, probed, strict=True)):
            for j, block in enumerate(row):
                if j != k and bool(jnp.any(block != 0)):
                    raise ValueError(CHAIN.format(node=k, other=j - 1))
            linear = c + row[k] @ probes[k]
            if not jnp.allclose(linear, u, atol=1e-4 * float(1 + jnp.max(jnp.abs(u)))):
                raise ValueError(NOT_LINEAR.format(node=k))
        matrices = tuple(row[k] for k, row in enumerate(jacobians))
        return cls(matrices, tuple(offsets), precision)

    def predict(self, x: Any) -> Float[jax.Array, "*batch outputs"]:
        """u_L of a forward pass, (batch, outputs)."""
        h = jnp.asarray(x)
        for matrix, offset in zip(self.matrices, self.offsets, strict=True):
            h = h @ matrix.T + offset
        return h

    def products(self) -> list[Float[jax.Array, "outputs _"]]:
        """P_1 ... P_L, with P_l = M_L ... M_l; P_1 is the whole network."""
        out = [self.matrices[-1]]
        for matrix in reversed(self.matrices[:-1]):
            out.append(out[-1] @ matrix)
        return out[::-1]

    def rescaling(self) -> Float[jax.Array, "outputs outputs"]:
        """S, (outputs, outputs)."""
        last = self.matrices[-1]
        s = jnp.eye(len(last), dtype=last.dtype) / self.precision
        for product in self.products()[1:]:
            s = s + product @ product.T
        return s

    def equilibrium_energy(self, x: Any, y: Any) -> Float[jax.Array, "*batch"]:
        """F* of each sample, (batch,)."""
        r = jnp.asarray(y) - self.predict(x)
        return 0.5 * jnp.sum(r * jnp.linalg.solve(self.rescaling(), r.T).T, axis=-1)

    def hessian(self) -> Float[jax.Array, "n n"]:
        """H, over all states h_1 ... h_{L-1} in a row."""
        sizes = [len(m) for m in self.matrices[:-1]]
        rows = []
        for k, size in enumerate(sizes):
            above = self.matrices[k + 1]
            p = self.precision if k == len(sizes) - 1 else 1.0
            row = [jnp.zeros((size, n), above.dtype) for n in sizes]
            row[k] = jnp.eye(size, dtype=above.dtype) + p * above.T @ above
            if k + 1 < len(sizes):
                row[k + 1] = -above.T
            if k > 0:
                row[k - 1] = -self.matrices[k]
            rows.append(row)
        return jnp.block(rows)

    def equilibrium_states(self, x: Any, y: Any) -> list[Float[jax.Array, "batch _"]]:
        """h*_1 ... h*_{L-1}, (batch, n_l) each."""
        x, y = jnp.asarray(x), jnp.asarray(y)
        terms, last = [], len(self.matrices) - 2
        for k in range(last + 1):
            own = self.offsets[k] + (x @ self.matrices[0].T if k == 0 else 0.0)
            target = self.precision * (y - self.offsets[-1]) if k == last else -self.offsets[k + 1]
            term = own + target @ self.matrices[k + 1]
            terms.append(jnp.broadcast_to(term, (len(x), term.shape[-1])))
        cuts = [sum(t.shape[-1] for t in terms[: k + 1]) for k in range(last)]
        h = jnp.linalg.solve(self.hessian(), jnp.concatenate(terms, axis=-1).T).T
        return jnp.split(h, cuts, axis=-1)

    def condition_number(self) -> Float[jax.Array, ""]:
        """Largest over smallest eigenvalue of H: about how many steps inference needs."""
        values = jnp.linalg.eigvalsh(self.hessian())
        return values[-1] / values[0]


def _predictions(model: Any, x: jax.Array) -> tuple[Any, list[jax.Array]]:
    """All predictions of one sample as a function of [x, h_1, ..., h_{L-1}], all flat."""

    def states(x: Any, *, model: Any) -> Any:
        with step(model, STATUS.INIT, clear_params=(CACHE, CACHE)):
            model(x)
        return [vode.h.get() for vode in vodes(model)]

    shapes = [x, *pure(states, model=model)(x)]

    def predictions(flat: Any, *, model: Any) -> Any:
        values = [v.reshape(s.shape) for v, s in zip(flat, shapes[:-1], strict=True)]
        nodes = vodes(model)
        with step(model, clear_params=(CACHE, CACHE)):
            # the last state reaches no prediction, but must be there to be called
            for vode, value in zip(nodes, [*values[1:], shapes[-1]], strict=True):
                vode.h.set(value)
            model(values[0])
            return [jnp.ravel(vode.get("u")) for vode in nodes]

    return pure(predictions, model=model), shapes[:-1]
