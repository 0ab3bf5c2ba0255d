"""Zero-divergence inference learning."""

from typing import Any

import jax
import jax.numpy as jnp
import optax as ox

from ..core import is_param, named_params, static
from ..utils import Optim, OptimTree
from ._base import Algorithm
from ._energy_fn import gradient, grads_of, vodes_of
from ._inference import Plan, plan_loop
from ._wave import Dependencies, Initial, is_frozen, trace_wave

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


class ZIL(Algorithm):
    """Zero-divergence inference learning (Z-IL): PC whose weights make exactly back-propagation's update.

        h := u (forward pass); L steps with state learning rate 1, in which at step t = 0 ... L-1
        only layer l = L - t learns, at that moment:
            theta_l <- opt_theta(theta_l, dF/dtheta_l)     and     h <- h - dF/dh,     from one gradient

    The error of layer l arrives at step L - l, before anything below has moved, and is
    back-propagation's. Which layer that is follows from the model itself (what its energies depend on),
    not from the order of its attributes. With `T` the rest of inference follows: Z-IL + PC.

    Args:
        model, metrics, record, donate: see `Algorithm`.
        T: None for Z-IL alone, L steps. Else, after those, T - L ordinary steps on the states with
            `state_optim`, and one full weight step of PC.
        state_optim: for the steps after the first L.
        weight_optim: as for `Algorithm`; applied to each param by itself, since layers learn at
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

    def __init__(
        self,
        model: Any,
        T: int | None = None,
        state_optim: Any = None,
        weight_optim: Any = None,
        **options: Any,
    ):
        if not isinstance(weight_optim, OptimTree):
            if isinstance(weight_optim, Optim):
                weight_optim = weight_optim.optax
            optax = ox.adamw(1e-3) if weight_optim is None else weight_optim
            weight_optim = OptimTree(optax, is_param)
        super().__init__(model, 0 if T is None else T, state_optim, weight_optim, **options)
        for what, wrong in (
            (f"init={self.init!r} does not fit.", self.init != "forward"),
            ("`stop` does not fit.", self.stop is not None),
            ("A solver does not fit.", self._solver.get() is not None),
        ):
            if wrong:
                raise ValueError(OPTIONS.format(what=what))
        # None: as many steps as there are levels
        self.T = T  # type: ignore[assignment]
        # for each step, the ids of the params that learn; known once the model is traced
        self._levels = static(())

    def plan(self, x: Any, y: Any, initial: Initial | None) -> Plan:
        """Find the levels; L steps, or T."""
        dependencies = trace_wave(x, y, self.model, initial)
        levels = self._find_levels(dependencies)
        steps = len(levels) if self.T is None else self.T
        if self._learning:
            self._levels = static(levels)
            if steps < len(levels):
                raise ValueError(TOO_SHORT.format(levels=len(levels), T=steps))
        else:
            self._levels = static((frozenset(),) * len(levels))
        plan = plan_loop(dependencies, steps, self.unroll)
        own = min(len(levels), steps)
        return Plan(plan.reached, max(plan.unrolled, own), dependencies)

    def inference_step(
        self, x: Any, y: Any, t: Any, reached: frozenset[int]
    ) -> tuple[jax.Array, list[jax.Array]]:
        """In the first L steps h <- h - dF/dh, and one level learns; then an ordinary step."""
        levels = self._levels.get()
        # only ordinary steps are scanned, with a traced t
        if not isinstance(t, int) or t >= len(levels):
            return super().inference_step(x, y, t, reached)
        states = self.states(reached)
        weights = [p for p in self.weights() if id(p) in levels[t]]
        if not states and not weights:
            return jnp.zeros(()), []
        energy, grads = gradient(x, y, self.model, states + weights, self.inference_energy)
        slopes = grads_of(states, self.model, grads)
        for h, slope in zip(states, slopes, strict=True):
            h.set(h.get() - slope)
        if weights:
            self.step_weights(grads, x, y)
        return energy, slopes

    def learn(self, x: Any, y: Any, plan: Plan | None) -> jax.Array:
        """The full weight step, if T is given; the batch's mean energy after inference."""
        if self.T is not None:
            return super().learn(x, y, plan)
        return self.mean_energy(x, y)

    def _find_levels(self, dependencies: Dependencies) -> tuple[frozenset[int], ...]:
        """For each step, the ids of the params whose first error arrives at it."""
        vodes, names = vodes_of(self.model), self.vode_names
        wrong = [names[k] for k in sorted(dependencies.active) if not is_frozen(vodes[k].h)]
        if wrong:
            raise ValueError(NOT_ZERO.format(names=", ".join(f"`{n}`" for n in wrong)))
        active = dependencies.active_at(len(vodes))
        level = {k: t for t in reversed(range(len(active))) for k in active[t]}
        for above, a in level.items():
            for below in dependencies.inputs[above]:
                if below in level and level[below] != a + 1:
                    raise ValueError(
                        LEVELS.format(below=names[below], a=level[below], above=names[above], b=a)
                    )
        users: dict[int, set[int]] = {}
        for k, t in level.items():
            for param in dependencies.weights[k]:
                users.setdefault(param, set()).add(t)
        mask = self.weights_mask()
        for path, param in named_params(self.model):
            if len(users.get(id(param), ())) > 1 and mask.select(param):
                at = " and ".join(map(str, sorted(users[id(param)])))
                raise ValueError(SHARED.format(name=path, levels=at))
        count = 1 + max(level.values(), default=-1)
        return tuple(
            frozenset(p for p, levels in users.items() if levels == {t}) for t in range(count)
        )
