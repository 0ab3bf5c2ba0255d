"""MCPC: Langevin dynamics against the oracle's formulas, samples against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
from tests.algorithms.networks import weights
from tests.algorithms.problems import (
    OPTIMISERS,
    SQUARED,
    Decoder,
    assert_inferred,
    float64,
    learned,
    model_of,
    problem,
)
from tests.oracles import langevin, linear, pc
from tests.oracles.energy import SE
from tests.oracles.mlp import MLP, Layer, flatten
from tests.oracles.numerical import assert_close


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


GAMMA, M = 0.1, 0.7
FORMS = {
    "first_order": {},
    "second_order": {"momentum": M, "form": "second_order"},
    "explicit": {"momentum": M, "form": "explicit"},
    "heavy_ball": {"momentum": M},
}


def noise_of(params, steps, sigma2, seed):
    """The noise xi that a seed stands for, from first-order dynamics without a gradient."""
    optim = pxa.langevin(GAMMA, sigma2, seed=seed)
    zeros, state, out = jax.tree_util.tree_map(jnp.zeros_like, params), optim.init(params), []
    for _ in range(steps):
        updates, state = optim.update(zeros, state)
        out.append(jax.tree_util.tree_map(lambda u: np.asarray(u) / np.sqrt(2 * GAMMA), updates))
    return out


@pytest.mark.parametrize("kind", FORMS)
def test_trajectories_are_the_oracles_for_the_same_noise(kind):
    net, x, y = problem("skip")
    optim = pxa.langevin(GAMMA, 0.3, seed=5, **FORMS[kind])
    h = net.forward(x)
    params = {f"vodes[{k}].h": jnp.asarray(h[k + 1]) for k in range(net.L - 1)}
    xi = noise_of(params, 4, 0.3, 5)
    noise = [{k + 1: step[f"vodes[{k}].h"] for k in range(net.L - 1)} for step in xi]
    form = "second_order" if kind == "explicit" else kind
    expected = langevin.mcpc(
        net,
        [*h[:-1], y],
        noise=noise,
        gamma=GAMMA,
        free=pc.hidden(net),
        m=M,
        kind=form,
        order="explicit" if kind == "explicit" else "semi_implicit",
    )
    algorithm = pxa.MCPC(model_of(net), 4, optim, optax.sgd(1.0))
    assert_inferred(algorithm, x, y, expected, atol=1e-10)
    grads, _ = learned(algorithm, x, y)
    assert_close(grads, flatten(pc.weight_gradient(net, expected[-1])), atol=1e-10)


def test_without_noise_it_is_pc():
    net, x, y = problem()
    cold = pxa.MCPC(model_of(net), 5, pxa.langevin(0.1, 0.0), optax.sgd(1.0))
    expected = pc.pc(net, x, y, T=5, optim=OPTIMISERS["sgd"][1])
    assert_inferred(cold, x, y, expected.states)
    assert_close(learned(cold, x, y)[0], flatten(expected.grads), atol=1e-12)
    assert cold.lazy
    # momentum as a heavy ball is PC's SGD with momentum
    ball = pxa.langevin(0.1, 0.0, momentum=0.5)
    heavy = pxa.MCPC(model_of(net), 5, ball, optax.sgd(1.0))
    expected = pc.pc(net, x, y, T=5, optim=OPTIMISERS["momentum"][1])
    assert_close(learned(heavy, x, y)[0], flatten(expected.grads), atol=1e-12)


def test_noise_is_new_for_each_batch_and_the_seed_reproduces_it():
    net, x, y = problem()
    runs = []
    for seed in (0, 0, 1):
        algorithm = pxa.MCPC(model_of(net), 3)
        px.RKG.seed(seed)
        first = algorithm.infer(x, y, trajectory=True)[1].states[0]
        second = algorithm.infer(x, y, trajectory=True)[1].states[0]
        assert not np.array_equal(first, second)
        algorithm.train_step(x, y)
        runs.append([np.asarray(first), np.asarray(second), *weights(algorithm.model)])
    assert_close(runs[0], runs[1], atol=0)
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_the_output_variance_divides_the_energy_of_the_data():
    net, x, y = problem("before")
    output = SE(precision=4.0)
    expected = pc.pc(net, x, y, T=5, optim=OPTIMISERS["sgd"][1], output=output)
    algorithm = pxa.MCPC(
        model_of(net), 5, pxa.langevin(0.1, 0.0), optax.sgd(1.0), output_variance=0.25
    )
    assert_inferred(algorithm, x, y, expected.states)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    np.testing.assert_allclose(metrics["energy"], expected.energies[-1].mean(), atol=1e-12)
    algorithm.model = model_of(net)
    np.testing.assert_allclose(algorithm.energy(x, y), expected.energies[-1], atol=1e-12)


# Linear-Gaussian networks: every chain is a vector autoregression, so its stationary mean and covariance
# are known exactly, discretisation included. The bounds are 5 standard errors of the estimate; the
# chains are many, independent, and thinned to near independence.

CHAINS, KEPT, THIN, BURN = 400, 40, 15, 150


def linear_net():
    rng = np.random.default_rng(3)
    shapes = [(2, 2), (2, 2), (2, 2)]
    return MLP(Layer(0.7 * rng.standard_normal(s), 0.3 * rng.standard_normal(s[0])) for s in shapes)


def check(samples, mean, covariance, size):
    """Samples (n, d) against a mean and a covariance, at 5 standard errors of `size` draws."""
    se = np.sqrt(np.diag(covariance) / size)
    np.testing.assert_array_less(np.abs(samples.mean(0) - mean) / se, 5)
    d = np.diag(covariance)
    error = np.cov(samples.T) - covariance
    # variance of a sample covariance of Gaussians
    se = np.sqrt((np.outer(d, d) + covariance**2) / size)
    np.testing.assert_array_less(np.abs(error) / se, 5)


def stationary(kind, K, sigma2):
    if kind == "first_order":
        return langevin.stationary_covariance(*langevin.transition_first_order(K, GAMMA, sigma2))
    transition = {
        "second_order": langevin.transition_second_order,
        "heavy_ball": langevin.transition_heavy_ball,
    }[kind]
    joint = langevin.stationary_covariance(*transition(K, GAMMA, M, sigma2))
    return joint[: len(K), : len(K)]


@pytest.mark.parametrize(
    ("kind", "sigma2"), [("first_order", 1.0), ("second_order", 0.5), ("heavy_ball", 1.0)]
)
def test_posterior_samples_have_the_mean_and_covariance_of_the_posterior(kind, sigma2):
    net = linear_net()
    x, y = np.array([0.5, -1.0]), np.array([1.0, 0.3])
    mean, K = linear.posterior(net, clamped={0: x, net.L: y}, precision=4.0)
    thin = THIN * (6 if kind == "second_order" else 1)
    algorithm = pxa.MCPC(
        model_of(net),
        1,
        pxa.langevin(GAMMA, sigma2, seed=0, **FORMS[kind]),
        output_variance=0.25,
    )
    out = algorithm.sample(
        np.tile(x, (CHAINS, 1)), np.tile(y, (CHAINS, 1)), samples=KEPT, burn_in=10 * thin, thin=thin
    )
    assert [s.shape for s in out] == [(KEPT, CHAINS, 2)] * 3
    np.testing.assert_array_equal(out[-1], np.broadcast_to(y, out[-1].shape))
    samples = np.concatenate(out[:-1], -1).reshape(KEPT * CHAINS, -1)
    check(samples, mean, stationary(kind, K, sigma2), KEPT * CHAINS / 2)


def test_generation_given_the_input_has_the_moments_of_the_model():
    net = linear_net()
    x = np.array([0.5, -1.0])
    mean, K = linear.posterior(net, clamped={0: x}, precision=4.0)
    algorithm = pxa.MCPC(model_of(net), 1, pxa.langevin(GAMMA, seed=0), output_variance=0.25)
    out = algorithm.generate(np.tile(x, (CHAINS, 1)), samples=KEPT, burn_in=BURN, thin=THIN)
    samples = np.concatenate(out, -1).reshape(KEPT * CHAINS, -1)
    check(samples, mean, stationary("first_order", K, 1.0), KEPT * CHAINS / 4)
    # and as gamma goes to zero these are the marginals of ancestral sampling
    exact = linear.marginals(net, x=x, precision=4.0)[-1]
    np.testing.assert_allclose(mean[-2:], exact[0], atol=1e-12)
    assert algorithm.model.vodes[-1].h.frozen


def test_unconditional_generation_with_every_node_free():
    net = linear_net()
    mean, K = linear.posterior(net, clamped={}, prior=np.zeros(2))
    algorithm = pxa.MCPC(Decoder(net), 1, pxa.langevin(GAMMA, seed=0))
    out = algorithm.generate(n=CHAINS, samples=KEPT, burn_in=2 * BURN, thin=2 * THIN)
    assert algorithm.vode_names[0] == "latent"
    samples = np.concatenate(out, -1).reshape(KEPT * CHAINS, -1)
    check(samples, mean, stationary("first_order", K, 1.0), KEPT * CHAINS / 4)


def test_one_chain_is_enough():
    algorithm = pxa.MCPC(Decoder(linear_net()), 1, pxa.langevin(GAMMA, seed=0))
    assert {s.shape[:2] for s in algorithm.generate(n=1, samples=3)} == {(3, 1)}


def test_sampling_leaves_no_trace():
    net, x, y = problem()
    algorithm = pxa.MCPC(model_of(net), 2)
    before = weights(algorithm.model)
    algorithm.sample(x, y, samples=2, burn_in=0)
    algorithm.generate(x, samples=2, burn_in=0)
    assert_close(weights(algorithm.model), before, atol=0)
    assert all(v.h.get() is None for v in algorithm.model.vodes)
    assert np.isfinite(algorithm.train_step(x[:1], y[:1])["energy"])


@pytest.mark.wrong_types
def test_mistakes_are_explained():
    net, x, y = problem()
    for wrong in ({"gamma": 0.0}, {"gamma": 0.1, "sigma2": -1.0}, {"gamma": 0.1, "momentum": 1.0}):
        with pytest.raises(ValueError, match="gamma > 0, sigma2 >= 0 and momentum in"):
            pxa.langevin(**wrong)
    with pytest.raises(ValueError, match=r"form must be .second_order.*got .third."):
        pxa.langevin(0.1, form="third")
    with pytest.raises(ValueError, match="output_variance must be positive; got 0"):
        pxa.MCPC(model_of(net), output_variance=0)
    algorithm = pxa.MCPC(model_of(net, SQUARED))
    with pytest.raises(ValueError, match=r"mcpc.generate\(n=64\)`; got n=None"):
        algorithm.generate()
    with pytest.raises(ValueError, match=r"samples and thin must be at least 1.*thin=0"):
        algorithm.sample(x, y, thin=0)
