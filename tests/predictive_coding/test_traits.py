"""What energy functions say of themselves, against the distributions that they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx.predictive_coding as pxc
from pcx.predictive_coding import conformance

U = np.array([-1.3, 0.4, 0.9])


def energies(energy_fn, hs, make=lambda fn: pxc.Vode((3,), fn)):
    """-log p(h | u) of each h, up to a constant."""
    vode = make(energy_fn).set("h", jnp.asarray(hs)).set("u", jnp.broadcast_to(U, hs.shape))
    return np.asarray(vode.energy_fn(vode, None), np.float64)


def mean_on(grid, energy_fn, log_measure=0.0, **options):
    """The mean of each unit under exp(-E), summed over a grid of its values."""
    hs = np.broadcast_to(np.asarray(grid, float)[:, None], (len(grid), 3))
    weight = np.exp(-energies(energy_fn, hs, **options) + np.reshape(log_measure, (-1, 1)))
    return (weight * hs).sum(0) / weight.sum(0)


def test_the_mean_of_a_gaussian_is_its_prediction():
    grid = np.linspace(-12, 12, 4001)
    narrow = lambda _: pxc.GaussianVode((3,), log_var=-1.0)
    for energy_fn, options in (
        (pxc.se_energy, {}),
        (pxc.Weighted(pxc.se_energy, 3.0), {}),
        (pxc.gaussian_energy, {"make": narrow}),
    ):
        want = mean_on(grid, energy_fn, **options)
        np.testing.assert_allclose(pxc.traits(energy_fn).mean(U), want, atol=1e-4)


def test_the_mean_of_a_bernoulli_node_is_the_probability_of_one():
    want = mean_on([0, 1], pxc.bernoulli_energy)
    np.testing.assert_allclose(pxc.traits(pxc.bernoulli_energy).mean(U), want, rtol=1e-5)


def test_the_mean_of_a_poisson_node_is_its_rate():
    counts = np.arange(40)
    log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))
    want = mean_on(counts, pxc.poisson_energy, -log_factorial)
    np.testing.assert_allclose(pxc.traits(pxc.poisson_energy).mean(U), want, rtol=1e-5)


def test_the_mean_of_a_categorical_node_is_its_distribution():
    weight = np.exp(-energies(pxc.ce_energy, np.eye(3)).sum(-1))
    want = (weight[:, None] * np.eye(3)).sum(0) / weight.sum()
    np.testing.assert_allclose(pxc.traits(pxc.ce_energy).mean(U), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("energy_fn", "stationary"),
    [
        (pxc.se_energy, True),
        (pxc.zero_energy, True),
        (pxc.ce_energy, False),
        (pxc.bernoulli_energy, False),
        (pxc.poisson_energy, False),
        (pxc.Weighted(pxc.se_energy, 2.0), True),
    ],
)
def test_stationary_is_whether_the_gradients_vanish_where_h_is_u(energy_fn, stationary):
    def energy(h, u):
        return pxc.Vode((3,), energy_fn).set("h", h).set("u", u).energy()

    u = jnp.array([0.2, 0.3, 0.5])
    by_h, by_u = jax.grad(energy, (0, 1))(u, u)
    zero = bool((by_h == 0).all() and (by_u == 0).all())
    assert pxc.traits(energy_fn).stationary is zero is stationary


def test_a_node_without_energy_has_the_traits_of_a_constant():
    assert pxc.traits(None) == pxc.Traits(stationary=True)


def scaled(vode, rkg, scale=1.0):
    return scale * pxc.se_energy(vode)


def test_nothing_is_assumed_of_a_function_that_declares_nothing():
    assert pxc.traits(scaled) == pxc.traits(lambda vode, rkg: 0.0) == pxc.Traits()


def test_a_partial_has_the_traits_of_its_function():
    declared = pxc.energy_function(mean=jnp.tanh, stationary=True)(lambda vode, rkg, k=1: 0.0)
    one = functools.partial(declared, k=2)
    assert pxc.traits(one) == pxc.traits(functools.partial(one, k=3)) == pxc.traits(declared)
    own = pxc.energy_function(mean=jnp.exp)(functools.partial(declared, k=4))
    assert pxc.traits(own).mean is jnp.exp


def test_a_wrapper_has_no_traits_but_those_declared_for_it():
    @functools.wraps(pxc.se_energy)
    def with_prior(vode, rkg=None):
        return pxc.se_energy(vode) + jnp.abs(vode.get("h"))

    assert pxc.traits(with_prior) == pxc.Traits()
    assert (
        pxc.traits(pxc.energy_function(stationary=False, mean=jnp.sin)(with_prior)).mean is jnp.sin
    )
    assert pxc.traits(pxc.se_energy).stationary


def test_the_mean_of_a_vode_is_that_of_its_energy_function():
    u = jnp.array([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        pxc.mean(pxc.Vode((3,), functools.partial(pxc.ce_energy)), u),
        jax.nn.softmax(u, axis=-1),
    )
    np.testing.assert_array_equal(pxc.mean(pxc.GaussianVode(3), u), u)


@pytest.mark.parametrize(
    ("energy_fn", "name"),
    [(scaled, "scaled"), (functools.partial(scaled, scale=2.0), "scaled"), (None, "None")],
)
def test_an_unknown_mean_names_the_vode_the_function_and_what_to_write(energy_fn, name):
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.out = pxc.Vode((3,), energy_fn)

    net = Net()
    match = rf"`net\.out`: the mean of a node with the energy function `{name}` .*energy_function\(mean=f\)"
    with pytest.raises(ValueError, match=match):
        pxc.mean(net.out, jnp.ones(3))


@pytest.mark.parametrize(
    ("declaration", "energy", "says"),
    [
        ({"stationary": True}, lambda h, u: jnp.abs(h - u + 1), "stationary=True"),
        ({"precision": 2.0}, lambda h, u: 0.5 * (h - u) ** 2, "precision"),
        ({"mean": jnp.tanh}, lambda h, u: jnp.exp(u) - h * u, "mean"),
    ],
)
def test_a_false_declaration_is_found(declaration, energy, says):
    @pxc.energy_function(**declaration)
    def liar(vode, rkg):
        return energy(*pxc.state_and_prediction(vode))

    with pytest.raises(AssertionError, match=f"`liar` declares a? ?{says}"):
        conformance.check_traits(lambda: pxc.Vode((3,), liar), [0.1, 0.2, 0.3], U)


def test_a_param_of_the_vode_counts_for_stationarity():
    with pytest.raises(AssertionError, match=r"gradient in `log_var` is not zero"):
        conformance.check_traits(lambda: _Lying((3,)), U, U)


class _Lying(pxc.GaussianVode):
    def __init__(self, shape):
        super().__init__(shape)
        self.energy_fn = pxc.energy_function(stationary=True)(lambda v, r: pxc.gaussian_energy(v))


def test_equal_weights_make_equal_energy_functions():
    assert pxc.Weighted(pxc.se_energy, 2.0) == pxc.Weighted(pxc.se_energy, 2.0)
    assert pxc.Weighted(pxc.se_energy, 2.0) != pxc.Weighted(pxc.se_energy, 3.0)
    with pytest.raises(ValueError, match=r"weight must be positive; got -1"):
        pxc.Weighted(pxc.se_energy, -1)
    assert pxc.traits(pxc.Weighted(pxc.gaussian_energy, 2.0)).precision(
        pxc.GaussianVode(1)
    ) == pytest.approx(2.0)
    assert pxc.traits(pxc.Weighted(scaled, 2.0)) == pxc.Traits()
