"""Energy functions against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu


def vode(h, u, energy_fn=pxc.se_energy, **kwargs):
    return pxc.Vode(energy_fn=energy_fn, **kwargs).set("h", jnp.asarray(h)).set("u", jnp.asarray(u))


def test_squared_error_is_half_the_squared_distance_unreduced():
    v = vode([[1.0, 2.0], [3.0, -4.0]], np.zeros((2, 2)))
    np.testing.assert_allclose(pxc.se_energy(v, px.RKG), [[0.5, 2.0], [4.5, 8.0]])
    assert float(v.energy()) == 15.0


def test_squared_error_is_the_gaussian_negative_log_likelihood_up_to_its_constant():
    h, u = np.array([0.3, -1.2]), np.array([0.1, 0.4])
    log_density = np.sum(-0.5 * (h - u) ** 2 - 0.5 * np.log(2 * np.pi))
    energy = float(vode(h, u).energy())
    np.testing.assert_allclose(energy, -log_density - 0.5 * 2 * np.log(2 * np.pi), rtol=1e-5)


def test_cross_entropy_of_a_one_hot_state_is_minus_its_log_probability():
    logits = np.array([2.0, -1.0, 0.5])
    probabilities = np.exp(logits) / np.exp(logits).sum()
    for k in range(3):
        v = vode(np.eye(3)[k], logits, pxc.ce_energy)
        got = np.asarray(pxc.ce_energy(v))
        want = np.zeros(3)
        want[k] = -np.log(probabilities[k])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_cross_entropy_of_huge_logits_is_finite_and_exact():
    v = vode([1.0, 0.0], [-1000.0, 1000.0], pxc.ce_energy)
    np.testing.assert_allclose(v.energy(), 2000.0)


def test_cross_entropy_normalises_over_the_last_axis_only():
    rng = np.random.default_rng(0)
    h, u = rng.random((4, 3)), rng.normal(size=(4, 3))
    rows = [float(vode(a, b, pxc.ce_energy).energy()) for a, b in zip(h, u, strict=True)]
    np.testing.assert_allclose(vode(h, u, pxc.ce_energy).energy(), sum(rows), rtol=1e-5)


def test_zero_energy_is_zero_of_h_s_shape_and_needs_no_prediction():
    v = pxc.Vode(pxc.zero_energy).set("h", jnp.ones((2, 3)))
    np.testing.assert_array_equal(pxc.zero_energy(v), np.zeros((2, 3)))
    assert float(v.energy()) == 0.0


def test_bernoulli_energy_is_the_binary_cross_entropy():
    h, u = np.array([0.0, 1.0, 0.3]), np.array([0.7, -2.0, 1.5])
    p = 1 / (1 + np.exp(-u))
    want = -h * np.log(p) - (1 - h) * np.log(1 - p)
    np.testing.assert_allclose(pxc.bernoulli_energy(vode(h, u)), want, rtol=1e-5)
    np.testing.assert_allclose(pxc.bernoulli_energy(vode([0.0], [500.0])), [500.0])


def test_poisson_energy_is_the_count_likelihood_without_its_factorial():
    h, u = np.array([0.0, 1.0, 4.0]), np.array([0.7, -2.0, 1.5])
    log_factorial = np.array([0.0, 0.0, np.log(24.0)])
    rate = np.exp(u)
    log_mass = h * np.log(rate) - rate - log_factorial
    np.testing.assert_allclose(pxc.poisson_energy(vode(h, u)), -log_mass - log_factorial, rtol=1e-5)


def test_poisson_energy_is_least_where_the_rate_is_the_count():
    grad = jax.grad(lambda u: vode([3.0], u, pxc.poisson_energy).energy())(
        jnp.log(jnp.array([3.0]))
    )
    np.testing.assert_allclose(grad, 0.0, atol=1e-5)


def test_a_gaussian_vode_weighs_errors_by_its_precision():
    s = np.log(np.array([4.0, 0.25]))
    v = pxc.GaussianVode((2,), log_var=s).set("h", jnp.array([2.0, 1.0])).set("u", jnp.zeros(2))
    want = 4.0 / (2 * 4.0) + 1.0 / (2 * 0.25) + 0.5 * s.sum()
    np.testing.assert_allclose(v.energy(), want, rtol=1e-6)


def test_a_gaussian_vode_with_unit_variance_is_a_plain_vode():
    h, u = jnp.array([2.0, 1.0]), jnp.array([0.5, 0.1])
    plain = pxc.Vode((2,)).set("h", h).set("u", u)
    np.testing.assert_allclose(
        pxc.GaussianVode(2).set("h", h).set("u", u).energy(), plain.energy(), rtol=1e-6
    )


def test_the_learned_variance_settles_at_the_mean_squared_error():
    errors = np.array([[1.0, 3.0], [2.0, 1.0], [0.5, 2.0]])
    node = pxc.GaussianVode(2)
    vm = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))

    @pxf.vmap(vm, in_axes=(0,), out_axes=None, axis_name="batch")
    def energy(e, *, node):
        node.set("h", e).set("u", jnp.zeros(2))
        return jax.lax.pmean(node.energy(), "batch")

    grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(energy)
    _, at_zero = grads(jnp.asarray(errors), node=node)
    mse = (errors**2).mean(0)
    np.testing.assert_allclose(at_zero["node"].log_var, 0.5 - 0.5 * mse, rtol=1e-5)
    node.log_var.set(jnp.log(jnp.asarray(mse)))
    _, at_optimum = grads(jnp.asarray(errors), node=node)
    np.testing.assert_allclose(at_optimum["node"].log_var, 0.0, atol=1e-6)


def test_the_energy_of_a_vode_is_a_scalar_for_one_sample_and_one_per_sample_for_a_batch():
    h = np.arange(12.0).reshape(2, 3, 2)
    declared = vode(h, 0 * h, shape=(3, 2))
    np.testing.assert_allclose(declared.energy(), 0.5 * (h**2).sum((1, 2)))
    np.testing.assert_allclose(vode(h[0], 0 * h[0], shape=(3, 2)).energy(), 0.5 * (h[0] ** 2).sum())
    scalars = vode(np.array([1.0, 2.0]), np.zeros(2), shape=())
    np.testing.assert_allclose(scalars.energy(), [0.5, 2.0])


def test_an_undeclared_vode_takes_the_shape_of_its_first_state_as_event_shape():
    v = pxc.Vode()
    assert v.shape is None
    with pxu.step(v, pxc.STATUS.INIT):
        v(jnp.zeros((3, 2)))
    assert v.shape == (3, 2)
    v.set("h", jnp.ones((5, 3, 2))).set("u", jnp.zeros((5, 3, 2)))
    np.testing.assert_allclose(v.energy(), np.full(5, 3.0))


@pytest.mark.parametrize("jitted", [False, True])
def test_under_vmap_the_event_shape_is_that_of_one_sample(jitted):
    v = pxc.Vode()

    def forward(x, *, v):
        vm = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
        with pxu.step(v, pxc.STATUS.INIT):
            pxf.vmap(vm, in_axes=(0,))(lambda x, *, v: v(x))(x, v=v)

    (pxf.jit()(forward) if jitted else forward)(jnp.zeros((4, 3)), v=v)
    assert v.h.shape == (4, 3)
    assert v.shape == (3,)
    assert v.set("h", jnp.ones((4, 3))).energy().shape == (4,)


def test_learning_the_event_shape_does_not_compile_again():
    traces = 0

    @pxf.jit()
    def forward(x, *, v):
        nonlocal traces
        traces += 1
        return v(x)

    v = pxc.Vode().set("h", jnp.zeros(3))
    for _ in range(3):
        forward(jnp.zeros(3), v=v)
        v.cache.set(None)
    assert traces == 1


def test_energy_before_a_forward_pass_names_the_vode_and_what_to_do():
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.vodes = [pxc.Vode(), pxc.Vode((3,))]

    net = Net()
    with pytest.raises(ValueError, match=r"`net\.vodes\[0\]` has no prediction u.*pxu\.step"):
        net.energy()
    net.vodes[0].set("h", jnp.ones(2)).set("u", jnp.ones(2))
    net.vodes[1].set("u", jnp.ones(3))
    with pytest.raises(ValueError, match=r"(?s)`net\.vodes\[1\]` has no state h"):
        net.energy()


def test_energy_of_a_state_and_a_prediction_of_different_shapes_names_vode_and_shapes():
    net = pxnn.Sequential(vode(np.zeros(3), np.zeros(4)))
    with pytest.raises(ValueError, match=r"state h is f32\[3\] and the prediction u is f32\[4\]"):
        net[0].energy()


def test_different_shapes_that_would_broadcast_are_refused_too():
    with pytest.raises(ValueError, match=r"f32\[3\].*f32\[1,3\]"):
        vode(np.zeros(3), np.zeros((1, 3))).energy()


def test_a_custom_energy_is_called_with_the_vode_and_a_generator():
    seen = []

    def absolute(vode, rkg):
        seen.append((vode, rkg))
        return abs(vode.get("h") - vode.get("u"))

    v = vode([1.0, -2.0], [0.0, 0.0], absolute)
    assert float(v.energy()) == 3.0
    assert seen[0][0] is v
    assert isinstance(seen[0][1], px.RandomKeyGenerator)


def test_a_custom_energy_that_is_reduced_is_refused():
    def total(vode, rkg):
        return jnp.sum((vode.get("h") - vode.get("u")) ** 2)

    with pytest.raises(
        ValueError, match=r"the energy function `total` must return an array of h's"
    ):
        vode([1.0, -2.0], [0.0, 0.0], total).energy()


def test_a_custom_energy_before_a_forward_pass_gives_the_same_teaching_error():
    v = pxc.Vode(lambda vode, rkg: abs(vode.get("h") - vode.get("u")))
    with pytest.raises(ValueError, match="has no prediction u"):
        v.energy()


def test_an_error_inside_a_custom_energy_is_not_hidden():
    def broken(vode, rkg):
        raise TypeError("my own mistake")

    with pytest.raises(TypeError, match="my own mistake"):
        vode([1.0], [1.0], broken).energy()


def test_a_vode_without_energy_function_has_energy_zero():
    v = pxc.Vode(energy_fn=None).set("h", jnp.ones(3))
    assert v.energy() == 0.0
    assert pxc.Vode(None).energy() == 0.0


def test_the_energy_function_can_be_replaced():
    v = vode([3.0], [1.0])
    v.energy_fn = pxc.zero_energy
    assert float(v.energy()) == 0.0


@pytest.mark.wrong_types
def test_the_energy_function_cannot_be_replaced_by_a_number():
    v = vode([3.0], [1.0])
    with pytest.raises(TypeError, match="energy_fn must be a function"):
        v.energy_fn = 3
    assert v.energy_fn is pxc.se_energy


@pytest.mark.parametrize("fn", [lambda vode: vode.get("h"), lambda vode, rkg, scale: vode.get("h")])
def test_an_energy_function_with_other_arguments_is_refused_at_once(fn):
    with pytest.raises(TypeError, match=r"function \(vode, rkg\) -> array.*got `<lambda>\(vode"):
        pxc.Vode((2,), fn)


def test_an_energy_function_may_have_more_arguments_with_defaults():
    vode = pxc.Vode((1,), lambda vode, rkg, scale=3.0: scale * vode.get("h"))
    assert float(vode.set("h", jnp.ones(1)).energy()) == 3.0


def test_integer_labels_are_told_to_be_one_hot():
    with pytest.raises(ValueError, match=r"h is set to i32\[\].*pcx\.data\.one_hot"):
        pxc.Vode((2,), pxc.ce_energy).set("h", jnp.asarray(1))
