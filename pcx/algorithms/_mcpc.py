"""Monte Carlo predictive coding: inference by sampling."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree, Shaped

from ..functional import scan
from ..predictive_coding import EnergyModule, vodes
from ._compiled import compiled
from ._energies import batched, forward
from ._langevin import langevin
from ._lazy import lazy_safe
from ._options import StateOptim
from ._pc import PC

NO_SIZE = """MCPC.generate: without x, say how many samples to draw side by side, as in \
`mcpc.generate(n=64)`; got n={n!r}"""


@lazy_safe
class MCPC(PC):
    """Monte Carlo predictive coding: inference samples the states instead of minimising over them.

        h := u (forward pass);   T times: h <- h - gamma dF/dh + sqrt(2 gamma) xi,  xi ~ N(0, sigma2);
        once: theta <- opt_theta(theta, dF/dtheta), at the last sample

    The states' stationary density is exp(-F / sigma2), the posterior of the model given the data that is
    clamped; with every node free, the model itself. sigma2 = 0 is PC.

    Args:
        model, T, weight_optim, and all options: see `PC`.
        state_optim: the dynamics: `pxa.langevin(...)`, with or without momentum, by default
            `pxa.langevin(0.01)`; or any other noisy optax transformation.
        output_variance: variance of the clamped nodes (the data) in the model, where all others
            have 1: their energies are divided by it.

    Raises:
        ValueError: output_variance <= 0.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> mcpc = pxa.MCPC(pxm.MLP([2, 8, 3]), T=20, state_optim=pxa.langevin(0.01, momentum=0.9))
        >>> _ = mcpc.train_step(jnp.eye(2), jnp.ones((2, 3)))
        >>> hidden, output = mcpc.generate(jnp.eye(2), samples=5, burn_in=10)
        >>> output.shape
        (5, 2, 3)

    References:
        Oliviers, Bogacz & Meulemans, "Learning probability distributions of sensory inputs with Monte
        Carlo predictive coding", 2024; Pinchetti et al., "Benchmarking predictive coding networks", eqs
        4-6.
    """

    no_solver = "its states are samples, and a solver draws no noise"
    descends = False

    def __init__(
        self,
        model: EnergyModule,
        T: int | None = None,
        state_optim: StateOptim | None = None,
        *args: Any,
        output_variance: float = 1.0,
        **options: Any,
    ):
        if not output_variance > 0:
            raise ValueError(f"MCPC: output_variance must be positive; got {output_variance!r}")
        optim = langevin(0.01) if state_optim is None else state_optim
        super().__init__(model, T, optim, *args, **options)
        self.output_variance = float(output_variance)

    def sample(
        self, x: PyTree, y: PyTree = None, *, samples: int = 100, burn_in: int = 100, thin: int = 1
    ) -> tuple[Shaped[jax.Array, "samples batch ..."], ...]:
        """Samples of the states given the data, from one chain for each sample of the batch.

        Args:
            x, y: a batch, clamped where the model clamps it.
            samples: how many to keep.
            burn_in: steps before the first one counts.
            thin: keep every `thin`-th.

        Returns:
            For each vode (see `vode_names`), its samples, (samples, batch, *event).
        """
        self._check_counts(samples, burn_in, thin)
        return self._sample(x, y, samples, burn_in, thin)

    def generate(
        self,
        x: PyTree = None,
        *,
        n: int | None = None,
        samples: int = 1,
        burn_in: int = 100,
        thin: int = 1,
    ) -> tuple[Shaped[jax.Array, "samples batch ..."], ...]:
        """Samples of the model itself: every node is free, the output too.

        Args:
            x: inputs to condition on, (batch, *event); None for a model without input.
            n: without x, the number of chains (the batch).
            samples, burn_in, thin: as for `sample`.

        Returns:
            For each vode, its samples, (samples, batch, *event).

        Raises:
            ValueError: neither x nor n; counts out of range.
        """
        self._check_counts(samples, burn_in, thin)
        if x is None and (n is None or n < 1):
            raise ValueError(NO_SIZE.format(n=n))
        return self._generate(x, n or 0, samples, burn_in, thin)

    def sample_energies(self, x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
        """The energy of each sample, with the variance of the output."""
        if self.output_variance == 1.0:
            return super().sample_energies(x, y, model=model)
        factor = 1 / self.output_variance - 1

        @batched
        def energies(x: PyTree, y: PyTree, *, model: Any) -> Any:
            model(x, y)
            return model.energy() + factor * sum(v.energy() for v in vodes(model) if _is_output(v))

        return energies(x, y, model=model)

    @compiled(static=("samples", "burn_in", "thin"))
    def _sample(
        self, x: PyTree, y: PyTree, samples: int, burn_in: int, thin: int
    ) -> tuple[Any, ...]:
        with self._aside():
            self.initialise(x, y)
            return self._chain(x, y, samples, burn_in, thin)

    @compiled(static=("n", "samples", "burn_in", "thin"))
    def _generate(
        self, x: PyTree, n: int, samples: int, burn_in: int, thin: int
    ) -> tuple[Any, ...]:
        with self._aside():
            if x is None:
                first = vodes(self.model)[0]
                # tells the number of chains; the forward pass replaces it
                first.h.set(jnp.zeros((n, *(first.shape or ()))))
                forward(x, None, self.model)
            else:
                self.initialise(x, None)
            for vode in vodes(self.model):
                if vode.is_frozen and vode.energy_fn is not None:
                    # on this call's copy of the model
                    vode.h.frozen = False
                    vode.h.generated = True
            return self._chain(x, None, samples, burn_in, thin)

    def _chain(
        self, x: PyTree, y: PyTree, samples: int, burn_in: int, thin: int
    ) -> tuple[Any, ...]:
        """Samples of the states, from the present ones on."""
        self.start_states()

        def one_step(t: Any, *, algorithm: Any) -> Any:
            algorithm.step_states(x, y, t)
            return (), None

        def one_sample(start: Any, *, algorithm: Any) -> Any:
            scan(one_step, start + jnp.arange(thin))(algorithm=algorithm)
            return (), tuple(v.h.get() for v in vodes(algorithm.model))

        scan(one_step, jnp.arange(burn_in))(algorithm=self)
        _, out = scan(one_sample, burn_in + thin * jnp.arange(samples))(algorithm=self)
        return out

    @staticmethod
    def _check_counts(samples: int, burn_in: int, thin: int) -> None:
        if samples < 1 or burn_in < 0 or thin < 1:
            raise ValueError(
                "MCPC: samples and thin must be at least 1 and burn_in at least 0; got "
                f"samples={samples!r}, burn_in={burn_in!r}, thin={thin!r}"
            )


def _is_output(vode: Any) -> bool:
    """Whether a vode holds data: clamped, or set free to be generated."""
    return vode.is_frozen or getattr(vode.h, "generated", False)
