"""What every kind of vode keeps. A third party adds its own to `VODES`."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

WIDTH = 3
STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))


class Leaky(pxc.Vode):
    """A custom vode: its own param, and an energy of its own beside the prediction error."""

    def __init__(self, shape):
        super().__init__(shape)
        self.leak = pxnn.LayerParam(jnp.full(self.shape, 0.1))

    def energy(self):
        return super().energy() + 0.5 * jnp.sum(self.leak * self.get("h") ** 2, axis=-1)


class Special(pxc.VodeParam):
    pass


VODES = {
    "declared": lambda: pxc.Vode((WIDTH,)),
    "undeclared": lambda: pxc.Vode(),
    "cross entropy": lambda: pxc.Vode((WIDTH,), pxc.ce_energy),
    "own param type": lambda: pxc.Vode((WIDTH,), param_type=Special),
    "rules": lambda: pxc.Vode(
        (WIDTH,),
        ruleset={pxc.STATUS.INIT: ("h, u <- u:half",), "forward": ("h -> u",)},
        tforms={"half": lambda vode, key, value, rkg: 0.5 * value},
    ),
    "gaussian": lambda: pxc.GaussianVode((WIDTH,), log_var=0.5),
    "subclass": lambda: Leaky((WIDTH,)),
}


@pytest.fixture(params=VODES)
def make(request):
    return VODES[request.param]


def initialised(vode, u):
    with pxu.step(vode, pxc.STATUS.INIT):
        vode(u)
    return vode


def test_it_holds_no_state_before_the_first_call_and_one_after_initialisation(make):
    vode = make()
    assert vode.h.get() is None
    assert vode.cache.get() is None
    assert initialised(vode, jnp.ones(WIDTH)).h.shape == (WIDTH,)


def test_a_batch_is_its_samples_one_by_one(make):
    xs = jax.random.normal(jax.random.PRNGKey(0), (4, WIDTH))
    batched = make()

    @pxf.vmap(STATES, in_axes=(0, 0))
    def both(x, h, *, vode):
        initialised(vode, x)
        vode.set("h", h)
        return vode.energy()

    energies = both(xs, jnp.abs(xs) + 1, vode=batched)
    assert batched.h.shape == (4, WIDTH)
    for x, energy in zip(xs, energies, strict=True):
        one = initialised(make(), x).set("h", jnp.abs(x) + 1)
        np.testing.assert_allclose(one.energy(), energy, rtol=1e-5)


def test_its_energy_is_differentiable_in_state_and_prediction(make):
    vode = initialised(make(), jnp.ones(WIDTH))

    def at(h, u, *, vode):
        return vode.set("h", h).set("u", u).energy()

    energy = pxf.pure(at, vode=vode)
    h, u = jnp.array([0.2, 0.5, 0.3]), jnp.array([1.0, -1.0, 0.5])
    by_h, by_u = jax.grad(energy, argnums=(0, 1))(h, u)
    for k in range(WIDTH):
        d = jnp.zeros(WIDTH).at[k].set(1e-2)
        want_h = (energy(h + d, u) - energy(h - d, u)) / 2e-2
        want_u = (energy(h, u + d) - energy(h, u - d)) / 2e-2
        np.testing.assert_allclose((by_h[k], by_u[k]), (want_h, want_u), rtol=5e-3, atol=5e-3)


def test_jit_changes_nothing_and_traces_once_the_state_is_there(make):
    x, traces = jnp.arange(1.0, 1.0 + WIDTH), 0

    def phase(x, *, vode):
        nonlocal traces
        traces += 1
        with pxu.step(vode, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            vode(x)
            vode.set("h", 2 * vode.get("h"))
            return vode.energy()

    eager, jitted = make(), make()
    want = phase(x, vode=eager)
    traces = 0
    run = pxf.jit()(phase)
    np.testing.assert_allclose(run(x, vode=jitted), want, rtol=1e-6)  # from an empty state
    traces = 0
    for _ in range(3):
        np.testing.assert_allclose(run(x, vode=jitted), want, rtol=1e-6)
    assert traces == 1
    np.testing.assert_allclose(jitted.h, eager.h)
    assert jitted.cache.get() is None


def test_descending_the_energy_on_the_state_lowers_it(make):
    vode = initialised(make(), jnp.array([0.3, -0.2, 0.9])).set("h", jnp.full(WIDTH, 0.5))
    optim = pxu.Optim(optax.sgd(0.05), pxu.M(pxc.VodeParam)(vode))
    before = float(vode.energy())
    _, grads = pxf.value_and_grad(pxu.M(pxc.VodeParam))(lambda *, vode: vode.energy())(vode=vode)
    optim.step(vode, grads["vode"])
    assert float(vode.energy()) < before


def test_a_frozen_state_does_not_move(make):
    vode = initialised(make(), jnp.ones(WIDTH)).set("h", jnp.full(WIDTH, 0.5))
    vode.h.frozen = True
    free = pxu.M_hasnot(pxc.VodeParam, frozen=True)
    assert px.tree_extract(vode, free) == ()
    with pytest.raises(ValueError, match="nothing to differentiate"):
        pxf.value_and_grad(free)(lambda *, vode: vode.energy())(vode=vode)


def test_clearing_and_copying_it_leave_nothing_behind(make):
    vode = initialised(make(), jnp.ones(WIDTH))
    other = copy.deepcopy(vode)
    vode.clear_params(pxc.VodeParam | pxc.VodeParam.Cache)
    assert vode.h.get() is None
    assert vode.get("u") is None
    assert other.h.shape == (WIDTH,)


def test_it_counts_once_in_a_model_that_reaches_it_twice(make):
    class Net(pxc.EnergyModule):
        def __init__(self, *vodes):
            self.vodes = list(vodes)

    vode = initialised(make(), jnp.ones(WIDTH)).set("h", jnp.full(WIDTH, 0.5))
    np.testing.assert_allclose(Net(vode, vode).energy(), vode.energy())
    np.testing.assert_allclose(
        pxf.jit()(lambda *, net: net.energy())(net=Net(vode, vode)), vode.energy(), rtol=1e-6
    )
