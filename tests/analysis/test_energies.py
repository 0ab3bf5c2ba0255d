"""Energies per layer, detection scores and figures."""

import sys

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.predictive_coding as pxc
from tests.algorithms.networks import Network, float64
from tests.oracles import pc
from tests.oracles.energy import CE, log_softmax
from tests.oracles.numerical import data, net_of
from tests.oracles.optim import SGD


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def problem(rng, T=4):
    net = net_of("after", rng)
    x, y = data(rng, net, batch=5, one_hot=True)
    return net, x, y, pxa.PC(Network(net, pxc.ce_energy), T, optax.sgd(0.1))


def test_energies_of_layers_are_those_of_the_oracle(rng):
    net, x, y, algorithm = problem(rng)
    run = pc.pc(net, x, y, T=4, optim=SGD(0.1), output=CE())
    expected = np.stack([pc.node_energies(net, h, CE())[1:].mean(1) for h in run.states])
    energies = pxan.layer_energies(algorithm, x, y)
    assert list(energies) == ["vodes[0]", "vodes[1]", "vodes[2]"]
    np.testing.assert_allclose(np.stack(list(energies.values()), -1), expected, atol=1e-12)
    _, record = algorithm.infer(x, y)
    shares = pxan.energy_shares(record)
    np.testing.assert_allclose(shares, expected / expected.sum(-1, keepdims=True), atol=1e-12)
    ratios = pxan.energy_ratios(record)
    np.testing.assert_allclose(ratios[2:], expected[2:, :-1] / expected[2:, 1:], atol=1e-12)
    # at first only the output has energy
    assert np.isnan(ratios[0, 0])
    assert ratios[0, 1] == 0


def test_no_energy_has_no_shares():
    np.testing.assert_array_equal(pxan.energy_shares(np.zeros((2, 3))), np.zeros((2, 3)))


def test_a_record_without_energies_is_refused():
    with pytest.raises(ValueError, match=r"no energies; ask for them: `algorithm.infer"):
        pxan.energy_shares(pxa.Record(3))


def test_the_energy_score_clamps_the_most_probable_label(rng):
    net, x, _, algorithm = problem(rng)
    logits = net.forward(x)[-1]
    y = np.eye(logits.shape[-1])[logits.argmax(-1)]
    expected = pc.pc(net, x, y, T=4, optim=SGD(0.1), output=CE()).energies[-1]
    np.testing.assert_allclose(pxan.energy_score(algorithm, x), -expected)
    # without inference it is the log-probability of the predicted label
    np.testing.assert_allclose(pxan.energy_score(algorithm, x, T=0), log_softmax(logits).max(-1))
    np.testing.assert_allclose(
        pxan.softmax_score(algorithm, x), np.exp(log_softmax(logits)).max(-1)
    )


@pytest.mark.parametrize("ties", [True, False])
def test_the_area_under_the_curve_counts_pairs(ties, rng):
    a, b = rng.standard_normal(40) + 0.5, rng.standard_normal(30)
    if ties:
        a, b = np.round(a), np.round(b)
    expected = np.mean(a[:, None] > b) + 0.5 * np.mean(a[:, None] == b)
    np.testing.assert_allclose(pxan.roc_auc(a, b), expected)
    np.testing.assert_allclose(pxan.roc_auc(b, a), 1 - expected)
    false, true = pxan.roc_curve(a, b)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)
    np.testing.assert_allclose(area, expected)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_perfect_separation_and_bad_scores():
    assert pxan.roc_auc([2.0, 3.0], [0.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="both kinds of samples are needed; got 0 inside, 1"):
        pxan.roc_auc([], [1.0])
    with pytest.raises(ValueError, match="scores must be finite"):
        pxan.roc_auc([np.nan], [1.0])


def test_figures_show_what_they_are_given(rng):
    _, x, y, algorithm = problem(rng)
    energies = pxan.layer_energies(algorithm, x, y)
    (axes,) = pxan.plot_energies(energies, title="PC").axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert set(lines) == {*energies, "total"}
    np.testing.assert_array_equal(lines["vodes[2]"], energies["vodes[2]"])
    np.testing.assert_allclose(lines["total"], sum(energies.values()))
    with pytest.raises(ValueError, match="one name for each of the 3 vodes; got 1"):
        pxan.plot_energies(algorithm.infer(x, y)[1], names=["one"])

    figure = pxan.plot_scores({"energy": (np.arange(9.0), np.arange(4.0)), "b": ([1.0], [2.0])})
    assert [a.get_xlabel() for a in figure.axes] == [
        "energy score",
        "b score",
        "false positive rate",
    ]
    chance = figure.axes[-1].lines[-1]
    assert (list(chance.get_xdata()), list(chance.get_ydata())) == ([0, 1], [0, 1])
    labels = [line.get_label() for line in figure.axes[-1].lines]
    assert labels[:2] == ["energy (AUC 0.778)", "b (AUC 0.000)"]
    with pytest.raises(ValueError, match="no scores given"):
        pxan.plot_scores({})


def test_without_matplotlib_figures_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r'install the extra .* `pip install "pcx-networks\[examples\]"`'
    ):
        pxan.plot_energies(jnp.ones((3, 2)))
