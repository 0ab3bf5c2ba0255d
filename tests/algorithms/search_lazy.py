"""Random search: lazy inference changes no number, whatever is combined.

    python -m tests.algorithms.search_lazy --cases 2000 --seed 0

Draws models (chains, skips, branches, shared layers, feedback, dropout, decoders, convolutions, energies of
many kinds, penalties) x algorithms x optimisers (masked, chained, scheduled, accumulated, noisy) x
overridden methods x solvers, and compares each with `lazy=True` and `lazy=False`. Where both lower to the
same program there can be no difference. Otherwise both run from the same seed, in float64, and states, weights
and the optimisers' states are compared. Prints every difference, and how often something was skipped at all.
A short search is part of the test suite.
"""

import argparse
import contextlib
import dataclasses
import os
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from benchmarks import machine
from pcx.algorithms import _lazy

# in float64: programs may round differently, and no more than that; Adam divides the rounding of a
# gradient that is exactly zero (1e-17) by its eps (1e-8)
TOLERANCE = 1e-9
WIDTH = 3


# --- models ----------------------------------------------------------------------------------------------


def tilted(vode, rkg):
    return pxc.se_energy(vode) + 0.1 * vode.get("h")


@pxc.energy_function(mean=lambda u: u, stationary=True)
def log_cosh(vode, rkg):
    h, u = pxc.state_and_prediction(vode)
    return jnp.log(jnp.cosh(h - u))


HIDDEN_ENERGIES = {"se": pxc.se_energy, "log cosh": log_cosh, "tilted": tilted, "none": None}
OUTPUT_ENERGIES = {"se": pxc.se_energy, "ce": pxc.ce_energy, "bernoulli": pxc.bernoulli_energy}
KINDS = (
    "chain",
    "skip",
    "long skip",
    "shared layer",
    "branch",
    "feedback",
    "used twice",
    "dropout",
)
KINDS += ("counter", "status", "convolution")


class Net(pxc.EnergyModule):
    """A network of a random kind."""

    def __init__(self, kind, depth, hidden, output, frozen, gaussian, extra):
        self.kind, self.depth, self.extra = kind, depth, extra
        self.layers = [pxnn.Linear(WIDTH, WIDTH) for _ in range(depth + 1)]
        if kind == "shared layer":
            self.layers[depth // 2] = self.layers[0]
        if kind == "convolution":
            self.conv = pxnn.Conv1d(1, 1, 3, padding=1)
        self.drop = pxnn.Dropout(0.5)
        self.count = pxnn.StateParam(jnp.zeros(()))
        make = pxc.GaussianVode if gaussian else lambda n: pxc.Vode((n,), HIDDEN_ENERGIES[hidden])
        self.vodes = [make(WIDTH) for _ in range(depth)] + [
            pxc.Vode((WIDTH,), OUTPUT_ENERGIES[output])
        ]
        self.vodes[-1].h.frozen = True
        if frozen is not None:
            self.vodes[frozen % depth].h.frozen = True

    def __call__(self, x, y=None):
        kind, layers, vodes = self.kind, self.layers, self.vodes
        if kind == "dropout":
            x = self.drop(x)
        if kind == "counter":
            self.count.set(self.count.get() + 1)
            x = x + 0.1 * self.count.get()
        if kind == "status" and self.status == pxc.STATUS.INIT:
            x = x + 1
        if kind == "feedback" and vodes[-1].get("h") is not None:
            x = x + vodes[self.depth - 1].get("h")
        if kind == "convolution":
            x = self.conv(x[None])[0]
        h = first = x
        for k in range(self.depth):
            u = layers[k](jnp.tanh(h))
            if kind == "skip":
                u = u + h
            if kind == "long skip" and k == self.depth - 1:
                u = u + first
            if kind == "branch" and k == 1:
                u = u * jnp.tanh(x)
            if kind == "used twice" and k == 1:
                vodes[k](u * 0.5)
            h = vodes[k](u)
            first = h if k == 0 else first
        u = layers[-1](jnp.tanh(h))
        vodes[-1](u)
        if y is not None:
            vodes[-1].set("h", y)
        return u

    def energy(self):
        total = super().energy()
        if self.extra:
            total = total + 0.05 * jnp.sum(self.vodes[0].get("h") ** 2)
        return total


class Plain(Net):
    energy = pxc.EnergyModule.energy


# --- optimisers -------------------------------------------------------------------------------------------


def matrices(params):
    return {k: a.ndim > 1 for k, a in params.items()}


def first_only(params):
    return {k: i == 0 for i, k in enumerate(sorted(params))}


def by_name(params):
    return {k: "a" if i % 2 else "b" for i, k in enumerate(sorted(params))}


LATE = optax.join_schedules([optax.constant_schedule(0.0), optax.constant_schedule(0.05)], [3])
OPTIMISERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.05, 0.9),
    "nesterov": lambda: optax.sgd(0.05, 0.9, nesterov=True),
    "adam": lambda: optax.adam(0.02),
    "adamw": lambda: optax.adamw(0.02, weight_decay=0.1),
    "rmsprop": lambda: optax.rmsprop(0.02),
    "adagrad": lambda: optax.adagrad(0.05),
    "lion": lambda: optax.lion(0.01, weight_decay=0.0),
    "decay of matrices": lambda: optax.adamw(0.02, weight_decay=0.3, mask=matrices),
    "decay of the first": lambda: optax.chain(
        optax.add_decayed_weights(0.3, first_only), optax.sgd(0.1)
    ),
    "two by name": lambda: optax.multi_transform(
        {"a": optax.adamw(0.05, weight_decay=0.3), "b": optax.sgd(0.1)}, by_name
    ),
    "frozen by name": lambda: optax.multi_transform(
        {"a": optax.set_to_zero(), "b": optax.sgd(0.1, 0.5)}, by_name
    ),
    "late": lambda: optax.sgd(LATE),
    "late adam": lambda: optax.adam(LATE),
    "cosine": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 6)),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, 0.5)),
    "accumulated sgd": lambda: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "accumulated adam": lambda: optax.MultiSteps(optax.adam(0.02), 3).gradient_transformation(),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "noise": lambda: optax.chain(optax.sgd(0.1), optax.add_noise(0.1, 0.5, 0)),
    "langevin": lambda: pxa.langevin(0.02, seed=0),
    "cold langevin": lambda: pxa.langevin(0.05, sigma2=0.0, momentum=0.5),
}


# these divide by the size of the gradient, or take its sign
NORMALISED = {"adam", "adamw", "rmsprop", "adagrad", "lion", "late adam", "accumulated adam"}
NORMALISED |= {"decay of matrices", "two by name"}


# --- overridden methods -----------------------------------------------------------------------------------


def _states(model):
    return [v.h.get() for v in model.vodes[:-1]]


def decayed_activity(cls):
    class Override(cls):
        def sample_energies(self, x, y, *, model):
            F = super().sample_energies(x, y, model=model)
            return F + 0.1 * sum(jnp.sum(h * h, axis=-1) for h in _states(model))

    return Override


def weight_penalty(cls):
    class Override(cls):
        def learning_energy(self, x, y, *, model):
            F = super().learning_energy(x, y, model=model)
            return F + sum(jnp.sum(layer.nn.weight.get() ** 2) for layer in model.layers)

    return Override


def scaled_energy(cls):
    class Override(cls):
        def inference_energy(self, x, y, *, model):
            return 0.5 * super().inference_energy(x, y, model=model)

    return Override


def shrinking_states(cls):
    class Override(cls):
        def step_states(self, x, y, t):
            out = super().step_states(x, y, t)
            for h in pxc.free_states(self.model):
                h *= 0.9
            return out

    return Override


def other_start(cls):
    class Override(cls):
        def initialise(self, x, y):
            prediction = super().initialise(x, y)
            self.model.vodes[0].h += 0.1
            return prediction

    return Override


def smoothed(cls):
    class Override(cls):
        def target(self, y, prediction):
            return super().target(0.9 * y + 0.1 / WIDTH, prediction)

    return Override


def signed(cls):
    class Override(cls):
        def weight_gradients(self, x, y):
            F, grads = super().weight_gradients(x, y)
            return F, jax.tree_util.tree_map(lambda g: jnp.sign(g) + 0.01, grads)

    return Override


OVERRIDES = {
    "nothing": lambda cls: cls,
    "sample_energies": decayed_activity,
    "learning_energy": weight_penalty,
    "inference_energy": scaled_energy,
    "step_states": shrinking_states,
    "initialise": other_start,
    "target": smoothed,
    "weight_gradients": signed,
}


class Halving:
    """A solver: gradient descent at a rate that halves."""

    def solve(self, algorithm, x, y, *, energies=False, states=False):
        seen = [algorithm.watch(x, y, energies, states)]
        for t in range(algorithm.T):
            free = pxc.free_states(algorithm.model)
            _, grads = pxa.gradient(algorithm.inference_energy, x, y, algorithm.model, free)
            for h, g in zip(free, px.tree_extract(grads), strict=True):
                h -= 0.2 / 2**t * g
            seen.append(algorithm.watch(x, y, energies, states))
        return pxa.Record(algorithm.T, *jax.tree_util.tree_map(lambda *a: jnp.stack(a), *seen))


ALGORITHMS = {
    "PC": (pxa.PC, {}),
    "IPC": (pxa.IPC, {}),
    "IPC late": (pxa.IPC, {"T0": 1, "Ti": 2}),
    "NudgedPC": (pxa.NudgedPC, {"beta": 0.5}),
    "NudgedPC average": (pxa.NudgedPC, {"beta": 0.5, "mode": "centred", "alternate": "average"}),
    "MCPC": (pxa.MCPC, {"output_variance": 0.5}),
    "PCALM": (pxa.PCALM, {}),
    "EPC": (pxa.EPC, {}),
    "EquilibriumProp": (pxa.EquilibriumProp, {"beta": 0.1}),
}


# --- the search --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One combination."""

    algorithm: str
    override: str
    kind: str
    depth: int
    T: int
    hidden: str
    output: str
    frozen: int | None
    gaussian: bool
    extra: bool
    state_optim: str
    weight_optim: str
    solver: bool
    init: str
    unroll: bool


def draw(rng):
    """A random combination; half of them are ones in which something can be skipped."""
    pick = lambda names: list(names)[rng.integers(len(names))]
    quiet = rng.random() < 0.5
    algorithm = pick(ALGORITHMS)
    return Case(
        algorithm=algorithm,
        override="nothing" if quiet else pick(OVERRIDES),
        kind=pick(KINDS),
        depth=int(rng.integers(2, 4)),
        T=int(rng.integers(1, 5)),
        hidden=pick(("se", "log cosh")) if quiet else pick(HIDDEN_ENERGIES),
        output=pick(OUTPUT_ENERGIES),
        frozen=int(rng.integers(3)) if rng.random() < 0.15 else None,
        gaussian=not quiet and rng.random() < 0.2,
        extra=not quiet and rng.random() < 0.15,
        state_optim=pick(OPTIMISERS),
        weight_optim=pick(OPTIMISERS),
        solver=algorithm in ("PC", "NudgedPC") and rng.random() < 0.1,
        init="forward" if quiet or rng.random() < 0.6 else pick(("zero", "normal", "persistent")),
        unroll=bool(rng.random() < 0.5),
    )


def refused(case):
    """Whether the library refuses the combination, which has a test of its own."""
    _, options = ALGORITHMS[case.algorithm]
    average = options.get("alternate") == "average"
    rests = case.algorithm == "EquilibriumProp"  # starts with the forward pass, and at rest
    return (
        (case.solver and case.override == "step_states")
        or (average and case.init == "persistent")
        or (rests and case.init != "forward")
        or (case.algorithm == "EPC" and case.kind == "feedback")
    )


def problem(case, lazy, seed):
    """The algorithm of a combination, and a batch."""
    px.RKG.seed(seed)
    shape = (
        case.kind,
        case.depth,
        case.hidden,
        case.output,
        case.frozen,
        case.gaussian,
        case.extra,
    )
    model = (Net if case.extra else Plain)(*shape).train()
    base, options = ALGORITHMS[case.algorithm]
    states = Halving() if case.solver else OPTIMISERS[case.state_optim]()
    algorithm = OVERRIDES[case.override](base)(
        model,
        case.T,
        states,
        OPTIMISERS[case.weight_optim](),
        init=case.init,
        lazy=lazy,
        unroll=case.unroll,
        donate=False,
        **options,
    )
    object.__setattr__(algorithm, "_unseen", False)  # without the look at the first batch
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(2, WIDTH)))
    y = jnp.asarray(np.eye(WIDTH)[rng.integers(WIDTH, size=2)])
    return algorithm, x, y


def programs(algorithm, x, y):
    """What XLA is given for a training step and for inference, as text; or why the model is refused."""
    lower = lambda method, *args: method.jitted.lower(*args, algorithm=algorithm).as_text()
    cls = type(algorithm)
    try:
        return lower(cls.train_step, x, y), lower(cls.infer, x, y, None, False, True)
    except ValueError as error:
        if "must rest where the forward pass puts them" not in str(error):
            raise
        return str(error)


def run(algorithm, x, y, seed):
    """Weights and optimiser states after two batches, and the states then."""
    px.RKG.seed(seed)
    for _ in range(2):
        algorithm.train_step(x, y)
    _, record = algorithm.infer(x, y, energies=False, trajectory=True)
    out = dict(enumerate(record.states or ()))
    out |= {
        path: p.get() for path, p in px.core.named_params(algorithm.model) if p.get() is not None
    }
    for path, leaf in jax.tree_util.tree_flatten_with_path(algorithm.weight_optim.state.get())[0]:
        out[jax.tree_util.keystr(path)] = leaf
    return {str(k): v for k, v in out.items()}


@contextlib.contextmanager
def plans():
    """The plans of inference loops that are made inside."""
    made, original = [], _lazy.plan

    def plan(*arguments):
        made.append(original(*arguments))
        return made[-1]

    _lazy.plan = plan
    try:
        yield made
    finally:
        _lazy.plan = original


def _numbers(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf, np.float64)


def is_rounding(case, seed):
    """Whether a combination that differs has the same gradients, and only its optimisers tell them apart.

    Where h = u the full program may find 1e-17 for a gradient that is 0, if it rounds u differently in two places.
    An optimiser that divides by the size of the gradient makes a step of that. With one that does not, the
    same model, algorithm and overrides give equal numbers, if what is left out is zero.
    """
    names = {"state_optim": case.state_optim, "weight_optim": case.weight_optim}
    tame = {key: "momentum" for key, name in names.items() if name in NORMALISED}
    if not tame:
        return False
    worst, _, skipped = difference(dataclasses.replace(case, **tame), seed)
    return skipped and worst <= TOLERANCE


def difference(case, seed):
    """`(worst relative difference, where, whether anything was skipped)` of one combination."""
    if refused(case):
        return 0.0, "", False
    with plans() as made:
        (ours, *batch), (plain, *_) = problem(case, True, seed), problem(case, False, seed)
        same = programs(ours, *batch) == programs(plain, *batch)
        # persistent states give the second batch another program
        if same and case.init != "persistent":
            return 0.0, "", False
        lazy, full = run(ours, *batch, seed), run(plain, *batch, seed)
    skipped = any(p.live[0] is not None and p.live[0] != p.live[-1] for p in made)
    worst, where = 0.0, ""
    for name, value in full.items():
        for a, b in zip(
            jax.tree_util.tree_leaves(lazy[name]), jax.tree_util.tree_leaves(value), strict=True
        ):
            a, b = _numbers(a), _numbers(b)
            if not np.all(np.isfinite(b)):
                continue  # diverged: what is left out is zero only while everything is finite
            far = float(np.max(np.abs(a - b), initial=0.0)) / max(
                1.0, float(np.max(np.abs(b), initial=0.0))
            )
            if not far <= worst:
                worst, where = far, name
    return worst, where, skipped


def search(cases, seed, report=print):
    """Run a search; the combinations that differ, those that round differently, and how many skipped something."""
    rng = np.random.default_rng(seed)
    differing, rounded, skipped, start = [], [], 0, time.time()
    for number in range(cases):
        case, own = draw(rng), int(rng.integers(2**31))
        try:
            worst, where, skips = difference(case, own)
        except Exception as error:  # a combination that fails is a find as well
            worst, where, skips = np.inf, f"{type(error).__name__}: {error}", False
        skipped += skips
        if np.isfinite(worst) and worst > TOLERANCE and is_rounding(case, own):
            rounded.append((case, worst, where))
        elif not worst <= TOLERANCE:
            differing.append((case, worst, where))
            report(f"DIFFERENT by {worst:.2g} at {where}: {case}")
        if number % 20 == 19:
            jax.clear_caches()
        if number % 100 == 99:
            report(f"{number + 1} combinations, {skipped} skipped something, {len(differing)} differ, "
                   f"{time.time() - start:.0f} s", )  # fmt: skip
    return differing, rounded, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/search")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    differing, rounded, skipped = search(
        arguments.cases,
        arguments.seed,
        lambda text: print(text, flush=True),  # noqa: T201
    )
    print(  # noqa: T201
        f"{arguments.cases} combinations, seed {arguments.seed}: {skipped} skipped something, "
        f"{len(differing)} differ, {len(rounded)} round differently"
    )
    if arguments.record:
        record = {"machine": machine.describe(), "cases": arguments.cases, "seed": arguments.seed}
        record |= {"skipped": skipped, "differing": [str(found) for found in differing]}
        record |= {"rounded": [str(found) for found in rounded]}
        record |= {"xla_flags": os.environ.get("XLA_FLAGS", "")}
        print(machine.write_record(record, "search"))  # noqa: T201
    raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
