"""All algorithms × all kinds of models pass the conformance suite, and mistakes do not."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from pcx.algorithms import conformance

BATCH = 3
STATES, WEIGHTS = optax.sgd(0.05), optax.sgd(0.05)
NOISE = pxa.langevin(0.05)


class MLP(pxc.EnergyModule):
    def __init__(self, energy_fn=pxc.se_energy, inputs=3, outputs=2):
        self.layers = [pxnn.Linear(inputs, 4), pxnn.Linear(4, 4), pxnn.Linear(4, outputs)]
        self.vodes = [pxc.Vode((4,)), pxc.Vode((4,)), pxc.Vode((outputs,), energy_fn)]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            u = layer(jnp.tanh(x))
            x = vode(u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


class Skip(MLP):
    """A residual connection around the second layer."""

    def __call__(self, x, y=None):
        a = self.vodes[0](self.layers[0](x))
        b = self.vodes[1](a + self.layers[1](jnp.tanh(a)))
        u = self.layers[2](jnp.tanh(b))
        self.vodes[2](u)
        if y is not None:
            self.vodes[2].set("h", y)
        return u


class Conv(pxc.EnergyModule):
    def __init__(self, energy_fn=pxc.se_energy):
        self.conv, self.head = pxnn.Conv2d(1, 2, 3), pxnn.Linear(8, 2)
        self.vodes = [pxc.Vode((2, 4, 4)), pxc.Vode((2,), energy_fn)]
        self.vodes[-1].h.frozen = True
        self.pool = pxnn.AvgPool2d(2, 2)

    def __call__(self, x, y=None):
        h = self.vodes[0](jax.nn.gelu(self.conv(x)))
        u = self.head(jnp.ravel(self.pool(h)))
        self.vodes[1](u)
        if y is not None:
            self.vodes[1].set("h", y)
        return u


MODELS = {"mlp": MLP, "skip": Skip, "conv": Conv}
ENERGIES = {"se": pxc.se_energy, "ce": pxc.ce_energy}


def data(model):
    shape = (BATCH, 1, 6, 6) if model == "conv" else (BATCH, 3)
    return jax.random.normal(jax.random.PRNGKey(1), shape), jnp.eye(2)[jnp.array([0, 1, 1])]


class Case(NamedTuple):
    make: object
    # what `check_algorithm` is told
    flags: dict = {}  # noqa: RUF012
    models: tuple = ("mlp", "skip", "conv")


def of(cls, T=3, states=STATES, **options):
    return lambda model: cls(model, T, states, WEIGHTS, **options)


def bidirectional(model):
    backward = [pxnn.Linear(4, 3), pxnn.Linear(4, 4), pxnn.Linear(2, 4)]
    return pxa.BidirectionalPC(model, 3, STATES, WEIGHTS, backward=backward)


NOISY = {"descends": False, "per_sample": False}
ALGORITHMS = {
    "PC": Case(of(pxa.PC)),
    "PC scanned, from zero": Case(of(pxa.PC, 6, init="zero", unroll=False)),
    "IPC": Case(of(pxa.IPC)),
    "IPC scheduled": Case(of(pxa.IPC, 6, T0=1, Ti=2)),
    "NudgedPC": Case(of(pxa.NudgedPC, beta=0.5, mode="negative", beta_increase=0.1)),
    "NudgedPC centred": Case(of(pxa.NudgedPC, beta=0.5, mode="centred", alternate="average")),
    "MCPC": Case(of(pxa.MCPC, 3, NOISE, output_variance=0.5), NOISY),
    "ZIL": Case(of(pxa.ZIL, None), {"descends": False}),
    "ZIL + PC": Case(of(pxa.ZIL, 6), {"descends": False}),
    "PCALM": Case(of(pxa.PCALM, 4), {"descends": False}),
    "EPC": Case(of(pxa.EPC)),
    "EquilibriumProp": Case(of(pxa.EquilibriumProp, 2, None)),
    "EquilibriumProp random": Case(
        of(pxa.EquilibriumProp, mode="random"), {"per_sample": False}, ("mlp",)
    ),
    "BidirectionalPC": Case(bidirectional, models=("mlp", "skip")),
    "Backprop": Case(of(pxa.Backprop), {"infers": False}),
}


def hybrid(model):
    amortiser = [pxnn.Linear(4, 2), pxnn.Linear(4, 4), pxnn.Linear(3, 4)]
    return pxa.HybridPC(model, 3, STATES, WEIGHTS, amortiser=amortiser)


@pytest.mark.parametrize("cls", [MLP, Skip])
def test_hybrid_pc_passes_every_check_on_a_generator(cls):
    # its model goes from labels to data
    generator = functools.partial(cls, inputs=2, outputs=3)
    conformance.check_algorithm(hybrid, generator, *data("mlp"))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_passes_every_check(name):
    case = ALGORITHMS[name]
    conformance.check_algorithm(case.make, MLP, *data("mlp"), **case.flags)


@pytest.mark.parametrize(
    "solver", [pxa.RedBlack(damping=0.5), pxa.Anderson(), pxa.GaussNewton(linear="cg")]
)
def test_solvers_pass_the_checks_of_inference(solver):
    make = of(pxa.PC, 2, solver)
    conformance.check_inference(make, Skip, *data("mlp"))
    conformance.check_frozen_nodes(make, Skip, *data("mlp"))


COMBINATIONS = [
    (name, model, energy)
    for name, case in ALGORITHMS.items()
    for model, energy in (
        ("mlp", "ce"),
        ("skip", "se"),
        ("skip", "ce"),
        ("conv", "se"),
        ("conv", "ce"),
    )
    if model in case.models
]


@pytest.mark.parametrize(("name", "model", "energy"), COMBINATIONS)
def test_every_algorithm_learns_on_every_kind_of_model(name, model, energy):
    case = ALGORITHMS[name]
    conformance.check_step(case.make, lambda: MODELS[model](ENERGIES[energy]), *data(model))


# --- the suite finds mistakes -------------------------------------------------------------------------


class ForgetsToLearn(pxa.PC):
    def step_weights(self, x, y):
        energy, _ = self.weight_gradients(x, y)
        return energy


class MovesFrozen(pxa.PC):
    def start_states(self):
        for vode in self.model.vodes[:-1]:
            vode.h.frozen = False
        super().start_states()


class LearnsAlways(pxa.PC):
    def infer_states(self, x, y, **watch):
        record = super().infer_states(x, y, **watch)
        self.step_weights(x, y)
        return record


class Uphill(pxa.PC):
    def inference_energy(self, x, y, *, model):
        return -super().inference_energy(x, y, model=model)


class Restless(pxa.PC):
    def start_epoch(self, epoch):
        self.strength = float(epoch)


class MixesTheBatch(pxa.PC):
    def inference_energy(self, x, y, *, model):
        return super().inference_energy(x, y, model=model) / len(x)


@pxa.lazy_safe
class SafeOnlyInName(pxa.PC):
    def sample_energies(self, x, y, *, model):
        h = model.vodes[0].h.get()
        return super().sample_energies(x, y, model=model) + jnp.sum(h * h, axis=-1)


class LeavesStates(pxa.PC):
    def _clear(self):
        self.state_optim.clear()


@pytest.mark.parametrize(
    ("cls", "check", "message"),
    [
        (ForgetsToLearn, conformance.check_step, "these weights have not moved"),
        (MovesFrozen, conformance.check_frozen_nodes, "a frozen node moved"),
        (LearnsAlways, conformance.check_inference, "infer, which must not learn, changed layers"),
        (SafeOnlyInName, conformance.check_lazy, r"state of vodes\[0\] is another with lazy=True"),
        (Uphill, conformance.check_inference, "inference took the energy from"),
        (Restless, conformance.check_traces, "traced again"),
        (MixesTheBatch, conformance.check_batch_sizes, "alone and .* in a batch"),
        (LeavesStates, conformance.check_step, "left a state behind in vodes"),
    ],
)
def test_a_mistake_is_found(cls, check, message):
    with pytest.raises(AssertionError, match=message):
        check(of(cls), MLP, *data("mlp"))
