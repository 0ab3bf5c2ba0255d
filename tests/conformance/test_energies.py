"""What every energy function keeps. A third party adds its own to `ENERGIES`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from pcx.predictive_coding import conformance


def plain(rng, shape):
    return rng.normal(size=shape)


def positive(rng, shape):
    return rng.uniform(0.1, 3.0, size=shape)


def share(rng, shape):
    return rng.uniform(0.05, 0.95, size=shape)


def make(energy_fn):
    return lambda shape: pxc.Vode(shape, energy_fn)


# a function from event shape to vode, and what its states look like
ENERGIES = {
    "se": (make(pxc.se_energy), plain),
    "ce": (make(pxc.ce_energy), share),
    "zero": (make(pxc.zero_energy), plain),
    "bernoulli": (make(pxc.bernoulli_energy), share),
    "poisson": (make(pxc.poisson_energy), positive),
    "gaussian": (lambda shape: pxc.GaussianVode(shape, log_var=0.3), plain),
    "weighted": (make(pxc.Weighted(pxc.se_energy, 2.5)), plain),
}

SHAPES = [(), (4,), (2, 3)]


@pytest.fixture(params=ENERGIES)
def family(request):
    return ENERGIES[request.param]


def filled(family, shape, batch=()):
    build, states = family
    rng = np.random.default_rng(0)
    h = states(rng, (*batch, *(shape or (1,))))
    u = rng.normal(size=h.shape)
    return build(shape or (1,)), jnp.asarray(h), jnp.asarray(u)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_energy_has_the_shape_and_dtype_of_the_state(family, shape):
    vode, h, u = filled(family, shape)
    energy = vode.energy_fn(vode.set("h", h).set("u", u), None)
    assert energy.shape == h.shape
    assert energy.dtype == h.dtype


@pytest.mark.parametrize("shape", SHAPES)
def test_the_energy_of_a_vode_is_the_sum_over_its_event(family, shape):
    vode, h, u = filled(family, shape)
    unreduced = np.asarray(vode.energy_fn(vode.set("h", h).set("u", u), None))
    np.testing.assert_allclose(vode.energy(), unreduced.sum(), rtol=1e-5, atol=1e-6)


def test_a_batch_gives_one_energy_per_sample_directly_and_under_vmap(family):
    vode, h, u = filled(family, (3,), batch=(5,))
    one_by_one = [float(vode.set("h", a).set("u", b).energy()) for a, b in zip(h, u, strict=True)]
    np.testing.assert_allclose(
        vode.set("h", h).set("u", u).energy(), one_by_one, rtol=1e-5, atol=1e-6
    )
    mask = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
    mapped = pxf.vmap(mask)(lambda *, vode: vode.energy())(vode=vode)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["h", "u"])
def test_its_gradient_is_that_of_finite_differences(family, which):
    vode, h, u = filled(family, (4,))

    def energy_at(x, *, vode):
        h_, u_ = (x, u) if which == "h" else (h, x)
        return vode.set("h", h_).set("u", u_).energy()

    energy = pxf.pure(energy_at, vode=vode)

    at = np.asarray(h if which == "h" else u, np.float64)
    step = 1e-2
    # the energies are smooth: a central difference in float32 is good to 1e-3
    want = [
        (float(energy(jnp.asarray(at + d))) - float(energy(jnp.asarray(at - d)))) / (2 * step)
        for d in step * np.eye(4)
    ]
    np.testing.assert_allclose(jax.grad(energy)(jnp.asarray(at)), want, rtol=5e-3, atol=5e-3)


def test_it_is_the_same_under_jit(family):
    vode, h, u = filled(family, (4,))
    vode.set("h", h).set("u", u)
    eager = vode.energy()
    np.testing.assert_allclose(
        pxf.jit()(lambda *, vode: vode.energy())(vode=vode), eager, rtol=1e-5, atol=1e-6
    )


def test_without_state_it_names_the_vode(family):
    build, _ = family
    net = pxnn.Sequential(build((4,)))
    net[0].set("u", jnp.ones(4))
    with pytest.raises(ValueError, match=r"`net\.layers\[0\]` has no state h"):
        net[0].energy()


def test_it_uses_no_randomness(family):
    vode, h, u = filled(family, (4,))
    vode.set("h", h).set("u", u)
    assert float(vode.energy()) == float(vode.energy())


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_declares_of_itself_is_true(family, shape):
    _, h, u = filled(family, shape)
    conformance.check_traits(lambda: family[0](shape or (1,)), h, u)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "uint8", "uint32", "bool"])
@pytest.mark.parametrize("container", [np.asarray, jnp.asarray])
def test_a_state_of_whole_numbers_counts_as_the_same_floats(family, dtype, container):
    build, _ = family
    bits = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    u = jnp.linspace(-2.0, 3.0, 9).reshape(3, 3)

    def energy_and_gradient(h):
        energy = lambda u: jnp.asarray(build((3,)).set("h", h).set("u", u).energy())
        return energy(u), jax.grad(lambda u: energy(u).sum())(u)

    want = energy_and_gradient(jnp.asarray(bits, jnp.float32))
    got = energy_and_gradient(container(bits.astype(dtype)))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6)
