"""Zero-divergence inference learning."""

from typing import Any

import jax
from jaxtyping import PyTree

from ..core import is_param, named_params
from ..predictive_coding import EnergyModule, free_states, vodes
from ..utils import OptimTree
from . import _lazy
from ._gradient import gradient, grads_of
from ._lazy import Dependencies, lazy_safe
from ._loop import Record, loop
from ._options import ADAMW_0_001, SGD_0_05, StateOptim, WeightOptim, as_optim
from ._pc import PC, Trained

OPTIONS = """ZIL has steps of its own: forward initialisation, state learning rate 1, one step for each \
layer. {what} Leave it out, or use PC"""

NOT_ZERO = """ZIL: after forward initialisation the error of every free node must be zero, but that of \
{names} need not be (noise, dropout, an energy of its own, a node used twice?). Put the model in eval mode, \
or use PC"""

LEVELS = """ZIL needs a network in levels, in which each node feeds nodes of the next level only, so that \
every error arrives at once. `{below}` is {a} steps away from the output, yet feeds `{above}`, which is {b} \
steps away. Put nodes on the connection that skips levels, or use PC, EPC or Backprop"""

SHARED = """ZIL: `{name}` is used in layers {levels} steps away from the output, which learn at different \
times. Use separate params, or PC"""

TOO_SHORT = """ZIL: this network has {levels} layers, so inference takes at least {levels} steps; got T={T}"""


@lazy_safe
class ZIL(PC):
    """Zero-divergence inference learning (Z-IL): PC whose weights make exactly back-propagation's update.

        h := u (forward pass); L steps with state learning rate 1, in which at step t = 0 ... L-1
        only layer l = L - t learns, at that moment:
            theta_l <- opt_theta(theta_l, dF/dtheta_l)     and     h <- h - dF/dh,     from one gradient

    The error of layer l arrives at step L - l, before anything below has moved, and is
    back-propagation's. Which layer that is follows from the model itself (what its energies depend on),
    not from the order of its attributes. With `T` the rest of inference follows: Z-IL + PC.

    Args:
        model, metrics, and all other options: see `PC`.
        T: None for Z-IL alone, L steps. Else, after those, T - L ordinary steps on the states with
            `state_optim`, and one full weight step of PC.
        state_optim: for the steps after the first L. None for `optax.sgd(0.05)`.
        init, stop: have to be left out, "forward" and None.
        weight_optim: as for `PC`; applied to each param by itself, since layers learn at
            different times (so clipping by a global norm acts on each param's own).

    Raises:
        ValueError: an `init` other than forward, `stop`, or a solver. When first called: a network that is not
            in levels; params shared between levels; errors that are not zero at first; T < L.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> zil = pxa.ZIL(pxm.MLP([2, 8, 2]), weight_optim=optax.sgd(0.1))
        >>> sorted(zil.train_step(jnp.eye(2), jnp.eye(2)))
        ['energy']

    References:
        Song et al., "Can the brain do backpropagation? Exact implementation of backpropagation in
        predictive coding networks", 2020.
    """

    default_T = 0
    no_solver = "it has one step for each layer"
    descends = False

    def __init__(
        self,
        model: EnergyModule,
        T: int | None = None,
        state_optim: StateOptim | None = SGD_0_05,
        weight_optim: WeightOptim | None = ADAMW_0_001,
        **options: Any,
    ):
        if not isinstance(weight_optim, OptimTree):
            optim = as_optim(ADAMW_0_001 if weight_optim is None else weight_optim)
            weight_optim = OptimTree(optim, is_param)
        super().__init__(model, T, state_optim, weight_optim, **options)
        for what, wrong in (
            (f"init={self.init!r} does not fit.", self.init != "forward"),
            ("`stop` does not fit.", self.stop is not None),
        ):
            if wrong:
                raise ValueError(OPTIONS.format(what=what))
        # None: as many steps as there are levels
        self.T = T  # type: ignore[assignment]

    def train(self, x: PyTree, y: PyTree) -> Trained:
        """One training step: a level learns at each of the first L; with T, all weights after the last."""
        prediction, y = self.start(x, y)
        record = self._run(x, y, learn=True, energies=self.record)
        energy = self.mean_energy(x, y) if self.T is None else self.step_weights(x, y)
        return Trained(prediction, energy, record)

    def infer_states(
        self, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """The same steps on the states, without learning."""
        return self._run(x, y, learn=False, energies=energies, states=states)

    def _run(
        self, x: PyTree, y: PyTree, learn: bool, energies: bool, states: bool = False
    ) -> Record:
        levels = self._find_levels(_lazy.trace_wave(x, y, self.model, _lazy.observed()))
        if learn and self.T is not None and len(levels) > self.T:
            raise ValueError(TOO_SHORT.format(levels=len(levels), T=self.T))

        @lazy_safe
        def step(algorithm: Any, x: PyTree, y: PyTree, t: Any) -> tuple[jax.Array, Any]:
            # only ordinary steps are scanned, with a traced t
            if not isinstance(t, int) or t >= len(levels):
                return algorithm.step_states(x, y, t)
            return algorithm.step_level(x, y, levels[t] if learn else frozenset())

        steps = len(levels) if self.T is None else self.T
        self.start_states()
        return loop(
            self, step, x, y, T=steps, at_least=len(levels), energies=energies, states=states
        )

    def step_level(self, x: PyTree, y: PyTree, level: frozenset[int]) -> tuple[jax.Array, Any]:
        """h <- h - dF/dh, and the weights of one level (ids of params) learn, from one gradient."""
        states = free_states(self.model)
        weights = [p for p in self.weights() if id(p) in level]
        F, dF = gradient(self.inference_energy, x, y, self.model, [*states, *weights])
        slopes = grads_of(states, self.model, dF)
        for h, slope in zip(states, slopes, strict=True):
            h.set(h.get() - slope)
        if weights:
            self.apply_gradients(dF, x, y)
        return F, slopes

    def _find_levels(self, dependencies: Dependencies) -> tuple[frozenset[int], ...]:
        """For each step, the ids of the params whose first error arrives at it."""
        nodes, names = vodes(self.model), self.vode_names
        wrong = [
            names[k] if k is not None else "a module with an energy of its own"
            for k in (dependencies.terms[i] for i in sorted(dependencies.active))
            if k is None or not nodes[k].is_frozen
        ]
        if wrong:
            raise ValueError(NOT_ZERO.format(names=", ".join(f"`{n}`" for n in wrong)))
        active = dependencies.active_at(len(nodes))
        first = {i: t for t in reversed(range(len(active))) for i in active[t]}
        level = {k: t for i, t in first.items() if (k := dependencies.terms[i]) is not None}
        for above, a in level.items():
            for below in dependencies.inputs[above]:
                if below in level and level[below] != a + 1:
                    raise ValueError(
                        LEVELS.format(below=names[below], a=level[below], above=names[above], b=a)
                    )
        users: dict[int, set[int]] = {}
        for i, t in first.items():
            for param in dependencies.weights[i]:
                users.setdefault(param, set()).add(t)
        mask = self.weights_mask()
        for path, param in named_params(self.model):
            if len(users.get(id(param), ())) > 1 and mask.select(param):
                at = " and ".join(map(str, sorted(users[id(param)])))
                raise ValueError(SHARED.format(name=path, levels=at))
        count = 1 + max(first.values(), default=-1)
        return tuple(
            frozenset(p for p, levels in users.items() if levels == {t}) for t in range(count)
        )
