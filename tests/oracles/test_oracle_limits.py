"""The limits that tie the algorithms to each other and to back-propagation (docs: algorithms)."""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np
import pytest

from . import bidirectional, epc, hierarchy, hybrid, linear, nudging, ode, pc, pcalm, zil
from .backprop import backprop
from .energy import CE, SE
from .mlp import MLP, Layer, flatten
from .numerical import assert_close, data, net_of
from .optim import SGD, Adam, AdamW
from .torch2pc import ce_mean, mse_mean, pc_infer, sum_of_squares

KINDS = ["before", "after", "skip"]


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def scaled(pairs, c):
    return [c * g for g in flatten(pairs)]


def problem(rng, kind, output=None):
    net = net_of(kind, rng, "tanh")
    return net, *data(rng, net, one_hot=isinstance(output, CE))


# PC, IPC


@pytest.mark.parametrize("kind", KINDS)
def test_with_no_inference_only_the_output_layer_learns_and_as_backpropagation(kind, rng):
    net, x, y = problem(rng, kind)
    grads, (_, bp, _) = pc.pc(net, x, y, T=0, optim=SGD(0.1)).grads, backprop(net, x, y)
    assert_close(grads[-1], bp[-1], atol=1e-14)
    assert all(np.all(g == 0) for g in flatten(grads[:-1]))


@pytest.mark.parametrize("optim", [SGD(0.1, 0.5), Adam(0.05)])
def test_the_wave_after_t_steps_only_the_top_t_states_have_moved(optim, rng):
    net = MLP(Layer(rng.standard_normal((3, 3)) / 2, None, "tanh") for _ in range(7))
    x, y = data(rng, net)
    result = pc.pc(net, x, y, T=6, optim=optim)
    for t in range(7):
        for l in pc.hidden(net):
            moved = not np.array_equal(result.states[t][l], result.states[0][l])
            assert moved == (l >= net.L - t)


def test_state_updates_do_not_depend_on_the_batch(rng):
    net, x, y = problem(rng, "after")
    whole, alone = (pc.pc(net, x[:n], y[:n], T=5, optim=Adam(0.1)).h for n in (3, 1))
    assert_close([h[:1] for h in whole], alone, atol=1e-14)


def test_energy_decreases_for_small_steps_also_with_free_input_and_masked_output(rng):
    net, x, y = problem(rng, "before")
    h, mask = [x, *net.forward(x)[1:-1], y], np.array([1.0, 0.0])
    states = pc.infer(
        net, h, free={0: 1.0, 1: 1.0, 2: 1.0, 3: mask}, T=50, optim=SGD(0.02), prior=np.zeros(3)
    )
    energies = [pc.energy(net, s, prior=np.zeros(3)) for s in states]
    assert np.all(np.diff(energies, axis=0) < 0)
    np.testing.assert_array_equal(states[-1][3][:, 1], y[:, 1])
    assert np.all(states[-1][3][:, 0] != y[:, 0])


@pytest.mark.parametrize("output", [SE(), CE()])
def test_ipc_that_never_learns_during_inference_is_pc(output, rng):
    net, x, y = problem(rng, "after", output)
    kwargs = {"T": 6, "optim": SGD(0.1, 0.5), "output": output}
    w = AdamW(1e-2)
    ipc, plain = pc.ipc(net, x, y, weight_optim=w, T0=None, **kwargs), pc.pc(net, x, y, **kwargs)
    assert_close(ipc.h, plain.h, atol=0)
    assert_close(
        ipc.net.params, w.step(net.params, flatten(plain.grads), w.init(net.params))[0], atol=0
    )


def test_ipc_schedule():
    steps = {
        (0, 0): [0, 1, 2, 3, 4, 5],
        (0, 1): [0, 1, 2, 3, 4, 5],
        (1, 2): [1, 3, 5],
        (4, 3): [4],
        (6, 1): [],
    }
    for (T0, Ti), expected in steps.items():
        assert [t for t in range(6) if pc.learns(t, T0, Ti)] == expected


def test_ipc_late_learning_equals_pc_up_to_there(rng):
    net, x, y = problem(rng, "after")
    late = pc.ipc(net, x, y, T=5, T0=4, optim=SGD(0.1), weight_optim=SGD(0.5))
    plain = pc.pc(net, x, y, T=5, optim=SGD(0.1))
    assert_close(
        late.h, plain.h, atol=0
    )  # the weight step at t = 4 uses the states of t = 4, as does the state step
    expected = flatten(pc.weight_gradient(net, plain.states[4]))
    assert_close(
        late.net.params,
        [p - 0.5 * g for p, g in zip(net.params, expected, strict=True)],
        atol=1e-15,
    )


# Nudging


def test_nudging_with_beta_one_is_pc(rng):
    net, x, y = problem(rng, "after")
    nudged = nudging.nudged(net, x, y, beta=1.0, T=6, optim=SGD(0.1, 0.5))
    plain = pc.pc(net, x, y, T=6, optim=SGD(0.1, 0.5))
    assert_close(nudged.h, plain.h, atol=1e-14)
    assert_close(flatten(nudged.grads), flatten(plain.grads), atol=1e-14)


def test_a_tiny_nudge_gives_gradients_that_do_not_depend_on_its_sign(rng):
    net, x, y = problem(rng, "after")
    plus, minus = (
        nudging.nudged(net, x, y, beta=b, T=6, optim=SGD(0.1)).grads for b in (1e-6, -1e-6)
    )
    assert_close(flatten(plus), flatten(minus), atol=1e-5)
    assert_close(
        flatten(nudging.centred(net, x, y, beta=1e-6, T=6, optim=SGD(0.1))),
        flatten(plus),
        atol=1e-5,
    )


def test_a_tiny_nudge_in_zil_setting_is_backpropagation(rng):
    """State lr 1, T = L, β → 0: by then every error is back-propagation's up to O(β)."""
    net, x, y = problem(rng, "after")
    states = nudging.nudged(net, x, y, beta=1e-6, T=net.L - 1, optim=SGD(1.0)).grads
    assert_close(states[0], backprop(net, x, y)[1][0], atol=1e-5)


def test_negative_nudging_signs_and_schedule(rng):
    net, x, y = problem(rng, "after")
    by_beta, by_sign = (
        nudging.nudged(net, x, y, beta=-0.5, T=3, optim=SGD(0.1), scale=s).grads
        for s in ("beta", "sign")
    )
    assert_close(scaled(by_beta, 0.5), flatten(by_sign), atol=1e-14)
    bp = backprop(net, x, y)[1]
    assert (by_beta[-1][0] * bp[-1][0]).sum() > 0  # pushed away from y, yet descending the loss
    assert [round(nudging.beta_at(e, -0.9, 0.06), 9) for e in range(4)] == [-0.9, -0.96, -1.0, -1.0]


# Z-IL


@pytest.mark.parametrize("output", [SE(), CE()])
@pytest.mark.parametrize("kind", KINDS)
def test_zil_is_backpropagation_with_or_without_immediate_weight_steps(kind, output, rng):
    net, x, y = problem(rng, kind, output)
    _, bp, _ = backprop(net, x, y, output)
    assert_close(flatten(zil.zil(net, x, y, output=output).grads), flatten(bp), atol=1e-13)
    learned = zil.zil(net, x, y, output=output, weight_optim=Adam(0.1))
    assert_close(flatten(learned.grads), flatten(bp), atol=1e-13)
    adam = Adam(0.1)
    assert_close(
        learned.net.params, adam.step(net.params, flatten(bp), adam.init(net.params))[0], atol=1e-13
    )


def test_zil_state_learning_rate_must_be_one(rng):
    net, x, y = problem(rng, "after")
    h, bp = pc.pc(net, x, y, T=1, optim=SGD(0.9)).h, backprop(net, x, y)[1]
    assert_close(pc.weight_gradient(net, h)[-2], [0.9 * g for g in bp[-2]], atol=1e-14)


def test_the_hybrids_first_part_is_zil_and_its_last_step_is_pcs(rng):
    net, x, y = problem(rng, "after")
    w = SGD(0.1)
    first = zil.zil(net, x, y, weight_optim=w)
    both = zil.zil(net, x, y, weight_optim=w, T=8, optim=SGD(0.05))
    assert_close(flatten(both.grads), flatten(first.grads), atol=0)
    rest = pc.pc(first.net, x, y, T=8 - net.L, optim=SGD(0.05), init=first.h)
    assert_close(both.h, rest.h, atol=1e-14)
    expected = [p - 0.1 * g for p, g in zip(first.net.params, flatten(rest.grads), strict=True)]
    assert_close(both.net.params, expected, atol=1e-14)


# EPC


@pytest.mark.parametrize("output", [SE(), CE()])
@pytest.mark.parametrize("kind", KINDS)
def test_converged_epc_is_converged_pc(kind, output, rng):
    """Same energy in other coordinates: same stationary points, on nonlinear networks too."""
    net, x, y = problem(rng, kind, output)
    e = epc.epc(net, x, y, T=500, optim=SGD(0.05, 0.8), output=output)
    p = pc.pc(net, x, y, T=1000, optim=SGD(0.05, 0.8), output=output)
    assert_close(e.h, p.h, atol=1e-8)
    assert_close(flatten(e.grads), flatten(p.grads), atol=1e-8)
    np.testing.assert_allclose(e.energies[-1], pc.energy(net, e.h, output), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_epc_step_is_eta_times_backpropagation_for_hidden_layers_and_once_for_the_output(
    kind, rng
):
    net, x, y = problem(rng, kind)
    _, bp, delta = backprop(net, x, y)
    worst = []
    for eta in (1e-3, 1e-4):
        result = epc.epc(net, x, y, T=1, optim=SGD(eta))
        eps = result.extra["eps"][-1]
        assert_close(eps.values(), [-eta * delta[l] for l in eps], atol=1e-14)
        difference = [
            a / eta - b for a, b in zip(flatten(result.grads[:-1]), flatten(bp[:-1]), strict=True)
        ]
        assert_close(flatten(result.grads[-1:]), flatten(bp[-1:]), atol=50 * eta)
        worst.append(max(np.abs(d).max() for d in difference))
    assert worst[0] < 0.05
    assert worst[0] / worst[1] == pytest.approx(10, rel=0.05)  # the remainder is first order in η


def test_epc_learning_rate_bound_on_a_linear_net(rng):
    """A fixed lr converges iff it is below 2/‖I + JᵀJ‖."""
    net, x, y = problem(rng, "linear")
    J = np.hstack(linear.products(net)[2:])
    bound = 2 / np.linalg.norm(np.eye(J.shape[1]) + J.T @ J, 2)
    star = linear.equilibrium_energy(net, x, y)
    below, above = (
        epc.epc(net, x, y, T=400, optim=SGD(c * bound)).energies[-1] for c in (0.97, 1.03)
    )
    np.testing.assert_allclose(below, star, rtol=1e-6)
    assert np.all(above > 1e3 * star)


@pytest.mark.parametrize("output", [SE(), SE(4.0), CE()])
def test_scaled_epc_step_is_the_line_minimum_of_the_gauss_newton_model(output, rng):
    net, x, y = problem(rng, "linear" if isinstance(output, SE) else "before", output)
    eps = {l: np.zeros_like(net.forward(x)[l]) for l in pc.hidden(net)}
    g = epc.error_gradient(net, x, y, eps, output)
    alpha = epc.scaled_step(net, x, y, eps, g, output)
    if isinstance(output, SE):  # linear and quadratic: the exact minimum along -g
        at = [
            epc.energy(net, x, y, {l: eps[l] - (alpha + s) * g[l] for l in g}, output)
            for s in (-1e-3, 0, 1e-3)
        ]
        np.testing.assert_allclose(at[0], at[2], rtol=1e-9)
        assert np.all(at[1] < at[0])
    assert np.all((alpha > 0) & (alpha <= 1))
    energies = epc.epc(net, x, y, T=30, scaled=0.5, output=output).energies
    assert np.all(np.diff(energies, axis=0) < 1e-12)


# PCALM, bidirectional, hybrid


def test_pcalm_without_multipliers_is_pc(rng):
    net, x, y = problem(rng, "skip")
    a = pcalm.pcalm(net, x, y, T=7, optim=SGD(0.1, 0.5), alpha=0.0)
    b = pc.pc(net, x, y, T=7, optim=SGD(0.1, 0.5))
    assert_close(a.h, b.h, atol=1e-14)
    assert_close(flatten(a.grads), flatten(b.grads), atol=1e-14)
    np.testing.assert_allclose(a.energies, b.energies, atol=1e-13)


@pytest.mark.parametrize("alpha_rho", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("output", [SE(), CE()])
@pytest.mark.parametrize("kind", ["linear", "after", "skip"])
def test_settled_pcalm_is_backpropagation(kind, output, alpha_rho, rng):
    """Where it settles, e = 0 and λ_l = -δ_l; not for linear networks only."""
    net, x, y = problem(rng, kind, output)
    alpha, rho = alpha_rho
    result = pcalm.pcalm(net, x, y, T=4000, optim=SGD(0.1), alpha=alpha, rho=rho, output=output)
    _, bp, delta = backprop(net, x, y, output)
    assert_close(flatten(result.grads), flatten(bp), atol=1e-9)
    assert_close(result.h[1:-1], net.forward(x)[1:-1], atol=1e-9)
    lam = result.extra["multipliers"][-1]
    assert_close(lam.values(), [-delta[l] for l in lam], atol=1e-9)


def test_pcalm_learning_rate_bound_on_a_linear_net(rng):
    net, x, y = problem(rng, "linear")
    H, M = linear.hessian(net), net[net.L].matrix()
    DtD = H.copy()
    DtD[-M.shape[1] :, -M.shape[1] :] -= M.T @ M
    bound = 4 / np.linalg.norm(2 * H + DtD, 2)
    assert 0.6 < bound / (2 / np.linalg.norm(H, 2)) < 0.8
    bp = flatten(backprop(net, x, y)[1])
    below, above = (
        flatten(pcalm.pcalm(net, x, y, T=1200, optim=SGD(c * bound)).grads) for c in (0.97, 1.03)
    )
    assert_close(below, bp, atol=1e-8)
    assert max(np.abs(g).max() for g in above) > 1e6


def test_pcalm_effective_error_is_the_next_multiplier_when_alpha_is_rho(rng):
    net, x, y = problem(rng, "after")
    result = pcalm.pcalm(net, x, y, T=3, optim=SGD(0.25))
    before, after = result.extra["multipliers"][-2:]
    e = pcalm.effective_errors(net, result.h, before, 1.0)
    assert_close([e[l] for l in after], after.values(), atol=1e-15)


def backward(rng, net):
    return [Layer(rng.standard_normal(layer.W.T.shape), None, "tanh") for layer in net.layers]


def test_bidirectional_without_the_backward_model_is_pc(rng):
    net, x, y = problem(rng, "after")
    back = backward(rng, net)
    a = bidirectional.bidirectional(net, back, x, y, T=6, optim=SGD(0.1, 0.5), alpha_b=0.0)
    b = pc.pc(net, x, y, T=6, optim=SGD(0.1, 0.5))
    assert_close(a.h, b.h, atol=1e-14)
    assert_close(flatten(a.grads), flatten(b.grads), atol=1e-14)
    assert all(np.all(g == 0) for g in flatten(a.extra["back_grads"]))
    both = bidirectional.bidirectional(net, back, x, y, T=6, optim=SGD(0.02), alpha_b=0.5)
    assert np.all(np.diff(both.energies, axis=0) < 0)


def test_hybrid_limits(rng):
    net, x, y = problem(rng, "after")
    q = backward(rng, net)
    only = hybrid.hybrid(net, q, y, x, T=0, optim=SGD(0.1))
    assert_close(only.h, [x, *hybrid.amortise(q, y)[1:]], atol=0)  # T = 0: the amortiser's answer
    np.testing.assert_allclose(
        only.extra["q_loss"], 0.5 * ((x - only.extra["amortised"][0]) ** 2).sum(-1)
    )
    refined = hybrid.hybrid(net, q, y, x, T=800, optim=SGD(0.05, 0.8))
    cold = pc.pc(net, x, y, T=800, optim=SGD(0.05, 0.8))
    assert_close(refined.h, cold.h, atol=1e-8)  # T → ∞: inference alone, whatever the guess
    started_there = hybrid.amortise(q, y)
    started_there = pc.pc(net, x, y, T=5, optim=SGD(0.1), init=[x, *started_there[1:]])
    assert_close(hybrid.hybrid(net, q, y, x, T=5, optim=SGD(0.1)).h, started_there.h, atol=0)


# Torch2PC


@pytest.mark.parametrize("loss", [mse_mean, sum_of_squares, ce_mean])
@pytest.mark.parametrize("kind", KINDS)
def test_torch2pc_exact_and_full_fixed_prediction_are_backpropagation(kind, loss, rng):
    net, x, y = problem(rng, kind, CE())
    exact = pc_infer(net, loss, x, y, "exact")
    fixed = pc_infer(net, loss, x, y, "fixed_pred", eta=1.0, n=net.L)
    assert_close(fixed.epsilon, exact.epsilon, atol=1e-14)
    assert_close(flatten(fixed.grads), flatten(exact.grads), atol=1e-13)
    assert_close(
        exact.v[1:],
        [a - e for a, e in zip(exact.v_hat[1:], exact.epsilon[1:], strict=True)],
        atol=0,
    )
    output, c = (
        (CE(), 1.0)
        if loss is ce_mean
        else (SE(), {mse_mean: 2 / y.shape[1], sum_of_squares: len(x)}[loss])
    )
    assert_close(flatten(exact.grads), scaled(backprop(net, x, y, output)[1], c), atol=1e-13)


def test_torch2pc_fixed_prediction_needs_all_l_sweeps_unless_errors_are_refreshed(rng):
    net, x, y = problem(rng, "after")
    bp = pc_infer(net, sum_of_squares, x, y, "exact").grads
    short = pc_infer(net, sum_of_squares, x, y, "fixed_pred", eta=1.0, n=net.L - 1)
    assert np.all(short.grads[0][0] == 0)
    fresh = pc_infer(net, sum_of_squares, x, y, "fixed_pred", eta=1.0, n=net.L - 1, refresh=True)
    assert_close(flatten(fresh.grads), flatten(bp), atol=1e-13)
    slow = pc_infer(net, sum_of_squares, x, y, "fixed_pred", eta=0.1, n=600)
    assert_close(flatten(slow.grads), flatten(bp), atol=1e-12)


def test_torch2pc_strict_is_pc_step_by_step(rng):
    net, x, y = problem(rng, "after")
    strict = pc_infer(net, sum_of_squares, x, y, "strict", eta=0.1, n=7, refresh=True)
    plain = pc.pc(net, x, y, T=7, optim=SGD(0.1))
    assert_close(strict.v[:-1], plain.h[:-1], atol=1e-14)
    assert_close(flatten(strict.grads), scaled(plain.grads, len(x)), atol=1e-13)


def test_torch2pc_strict_reaches_the_pc_fixed_point_from_any_v_init(rng):
    net, x, y = problem(rng, "after")
    v_init = [rng.standard_normal(u.shape) for u in net.forward(x)[1:-1]]
    plain = pc.pc(net, x, y, T=800, optim=SGD(0.05, 0.8))
    for v in (None, v_init):
        strict = pc_infer(net, sum_of_squares, x, y, "strict", eta=0.2, n=1500, v_init=v)
        assert_close(strict.v[:-1], plain.h[:-1], atol=1e-8)
        assert_close(flatten(strict.grads), scaled(plain.grads, len(x)), atol=1e-8)


# ODE, hierarchy


def test_euler_is_sgd_step_by_step(rng):
    net, x, y = problem(rng, "skip")
    h = pc.initial_states(net, x, y)
    plain = pc.pc(net, x, y, T=9, optim=SGD(0.1))
    for a, b in zip(
        ode.integrate(net, h, dt=0.1, steps=9, method="euler"), plain.states, strict=True
    ):
        assert_close(a, b, atol=1e-14)


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_hierarchy_is_a_generative_pc_network(place, rng):
    """Without a label: the chain x_L → x_0 with a free input and the output clamped to the data."""
    W, b = (
        [rng.standard_normal(s) for s in [(4, 3), (3, 2)]],
        [rng.standard_normal(n) for n in (4, 3)],
    )
    h = hierarchy.Hierarchy(W, b, rng.standard_normal((2, 2)), np.zeros(2), "tanh", place)
    net = MLP([Layer(W[1], b[1], "tanh", place), Layer(W[0], b[0], "tanh", place)])
    start = hierarchy.initial_states(h, rng.standard_normal((5, 4)), "normal", rng)
    a = hierarchy.infer(h, start, T=10, lr=0.1)
    c = pc.infer(net, start[::-1], free=[0, 1], T=10, optim=SGD(0.1))
    assert_close(a[-1], c[-1][::-1], atol=1e-13)
    pairs, _ = hierarchy.weight_gradient(h, a[-1])
    assert_close(flatten(pairs[::-1]), flatten(pc.weight_gradient(net, c[-1])), atol=1e-13)


def test_forward_initialised_hierarchy_has_all_its_error_at_the_data(rng):
    h = hierarchy.Hierarchy(
        [rng.standard_normal((4, 3)), rng.standard_normal((3, 2))],
        [np.ones(4), np.ones(3)],
        np.eye(2),
        np.zeros(2),
    )
    x = hierarchy.initial_states(h, rng.standard_normal((5, 4)), "forward")
    e = hierarchy.errors(h, x)
    assert np.all(e[1] == 0)
    assert np.all(e[2] == 0)
    assert np.all(e[0] != 0)
