"""The contract of algorithms: compilation, randomness, extension, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from tests.algorithms.problems import Small, Traces, batch_of


def make(model=None, T=3, state_optim=None, weight_optim=None, **options):
    optim = optax.sgd(0.1, 0.5) if state_optim is None else state_optim
    return pxa.PC(Small() if model is None else model, T, optim, weight_optim, **options)


def params_of(model):
    return {k: np.asarray(p.get()) for k, p in px.core.named_params(model) if p.get() is not None}


class Undeclared(Small):
    """Vodes without a declared shape."""

    def __init__(self):
        super().__init__()
        self.vodes = [pxc.Vode(), pxc.Vode(), pxc.Vode()]
        self.vodes[-1].h.frozen = True


def traced(algorithm, traces):
    """How often the step was traced after each of three epochs with a last short batch."""
    x, y = batch_of(6)
    counts = []
    for epoch in range(3):
        algorithm.start_epoch(epoch)
        for batch in ((x, y), (x + 1, y), (x[:2], y[:2])):
            algorithm.train_step(*batch)
        counts.append(traces.count)
    return counts


@pytest.mark.parametrize("model", [Small, Undeclared])
@pytest.mark.parametrize("donate", [True, False])
def test_a_step_is_traced_once_for_all_epochs_and_once_more_for_a_short_batch(model, donate):
    traces = Traces()
    assert traced(make(model(), donate=donate, metrics={"n": traces}), traces) == [2, 2, 2]


def test_persistent_states_add_no_trace_after_the_first_epochs():
    traces = Traces()
    counts = traced(make(init="persistent", metrics={"n": traces}), traces)
    assert counts[1] == counts[2]


def test_looking_at_the_states_in_between_does_not_compile_again():
    traces = Traces()
    algorithm = make(metrics={"n": traces})
    x, y = batch_of(6)
    algorithm.train_step(x, y)
    algorithm.infer(x, y)
    algorithm.predict(x[:2])
    algorithm.train_step(x, y)
    assert traces.count == 1


def test_new_values_of_everything_that_is_data_do_not_compile_again():
    traces = Traces()
    model = Small()
    algorithm = make(model, metrics={"n": traces})
    x, y = batch_of(6)
    for k in range(3):
        model.layers[0].nn.weight.set(model.layers[0].nn.weight.get() * 1.5)
        px.RKG.seed(k)
        algorithm.train_step(np.asarray(x), y)
    assert traces.count == 1


def test_a_frozen_flag_set_later_is_respected():
    model = Small()
    algorithm = make(model, weight_optim=optax.sgd(0.1))
    x, y = batch_of(6)
    algorithm.train_step(x, y)
    model.vodes[1].h.frozen = True
    _, record = algorithm.infer(x, y, trajectory=True)
    np.testing.assert_array_equal(record.states[1][0], record.states[1][-1])
    # nothing reaches the node below it
    np.testing.assert_array_equal(record.states[0][0], record.states[0][-1])
    model.vodes[1].h.frozen = False
    _, record = algorithm.infer(x, y, trajectory=True)
    assert np.any(record.states[1][0] != record.states[1][-1])


class Drop(Small):
    def __init__(self):
        super().__init__((3, 16, 16, 2))
        self.drop = pxnn.Dropout(0.5)

    def __call__(self, x, y=None):
        return super().__call__(self.drop(x), y)


def test_the_seed_decides_all_randomness():
    x, y = batch_of(6)
    runs = []
    for seed in (0, 0, 1):
        px.RKG.seed(0)
        model = Drop().train()
        algorithm = make(model, init="normal")
        px.RKG.seed(seed)
        algorithm.train_step(x, y)
        algorithm.train_step(x, y)
        runs.append(params_of(model))
    assert all(np.array_equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert any(not np.array_equal(runs[0][k], runs[2][k]) for k in runs[0])


def test_optimisers_may_be_given_ready_made():
    x, y = batch_of(6)
    results = []
    for wrap in (lambda o, m: o, lambda o, m: pxu.Optim(o), pxu.Optim, each_layer):
        px.RKG.seed(0)
        model = Small()
        optim = optax.adam(0.01)
        optim = (
            wrap(optim, pxu.M(pxnn.LayerParam)(model)) if wrap is pxu.Optim else wrap(optim, model)
        )
        algorithm = make(model, weight_optim=optim)
        algorithm.train_step(x, y)
        algorithm.train_step(x, y)
        results.append(params_of(model))
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_allclose(other[name], value, atol=1e-6, err_msg=name)


def each_layer(optim, model):
    return pxu.OptimTree(optim, lambda node: isinstance(node, pxnn.Linear))


def test_an_algorithm_of_ones_own_overrides_one_method():
    class Signed(pxa.Algorithm):
        """Learning by the sign of the gradient."""

        def weight_gradients(self, x, y):
            energy, grads = super().weight_gradients(x, y)
            return energy, jax.tree_util.tree_map(jnp.sign, grads)

    model = Small()
    before = params_of(model)
    x, y = batch_of(6)
    # gradients are summed over the batch and divided by its size in `step_weights`
    Signed(model, 4, optax.sgd(0.1), optax.sgd(6.0)).train_step(x, y)
    for name, value in params_of(model).items():
        np.testing.assert_allclose(np.abs(value - before[name]), 1.0, atol=1e-5)


def test_a_mask_of_ones_own_selects_what_learns_also_outside_of_layers():
    class Gain(px.Param):
        __slots__ = ()

    class Scaled(Small):
        def __init__(self):
            super().__init__()
            self.gain = Gain(jnp.array(1.5))

        def __call__(self, x, y=None):
            return super().__call__(self.gain * x, y)

    class OnlyGain(pxa.Algorithm):
        def weights_mask(self):
            return pxu.M(Gain)

    model = Scaled()
    before = params_of(model)
    OnlyGain(model, 4, optax.sgd(0.1), optax.sgd(0.1)).train_step(*batch_of(6))
    after = params_of(model)
    assert [k for k in before if np.any(before[k] != after[k])] == ["gain"]


def test_a_model_without_free_states_or_without_weights_to_learn_runs():
    x, y = batch_of(6)
    assert float(make(Small((3, 2))).train_step(x, y)["energy"]) > 0
    model = Small()
    for layer in model.layers:
        layer.nn.weight.frozen = layer.nn.bias.frozen = True
    before = params_of(model)
    with pytest.warns(UserWarning, match="PC: no weight learns"):
        make(model).train_step(x, y)
    assert all(np.array_equal(v, before[k]) for k, v in params_of(model).items())


def test_vode_names_and_repr():
    algorithm = make()
    assert algorithm.vode_names == ("vodes[0]", "vodes[1]", "vodes[2]")
    assert repr(algorithm) == "PC(Small, T=3)"


def test_inputs_of_any_structure():
    class TwoInputs(Small):
        def __call__(self, x, y=None):
            return super().__call__(x["a"] + x["b"], y)

    x, y = batch_of(6)
    algorithm = make(TwoInputs())
    out = algorithm.train_step({"a": x, "b": x}, y)
    assert np.isfinite(out["energy"])
    assert algorithm.predict({"a": x, "b": x}).shape == (6, 2)


def test_predictions_by_inference_without_the_target():
    class Reader(pxc.EnergyModule):
        """The data is clamped at the bottom; the prediction is the inferred latent state."""

        def __init__(self):
            self.down = pxnn.Linear(2, 3)
            self.latent, self.data = pxc.Vode((2,)), pxc.Vode((3,))
            self.data.h.frozen = True

        def __call__(self, x, y=None):
            del y
            h = self.latent(jnp.zeros(2))
            self.data(self.down(h))
            self.data.set("h", x)
            return self.latent.get("h")

    model = Reader()
    x, _ = batch_of(4)
    algorithm = pxa.PC(model, 2, optax.sgd(0.2), T_predict=200)
    W, b = np.asarray(model.down.nn.weight), np.asarray(model.down.nn.bias)
    best = np.linalg.solve(np.eye(2) + W.T @ W, W.T @ (np.asarray(x) - b).T).T
    np.testing.assert_allclose(algorithm.predict(x), best, atol=1e-5)


# --- messages ------------------------------------------------------------------------------------------


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("error", "message", "build"),
    [
        (TypeError, r"PC needs an EnergyModule whose `__call__\(x, y=None\)`.*got Linear",
         lambda: pxa.PC(pxnn.Linear(2, 2))),
        (ValueError, "PC: EnergyModule has no vodes, so no energy to descend",
         lambda: pxa.PC(pxc.EnergyModule())),
        (ValueError, "T is the number of inference steps, an int >= 0; got -1", lambda: make(T=-1)),
        (ValueError, "an int >= 0; got 2.5", lambda: make(T=2.5)),
        (ValueError, "T_predict is the number of steps before a prediction.*got -1",
         lambda: make(T_predict=-1)),
        (ValueError, 'init must be "forward", "zero", "normal", .* or "persistent"; got \'ones\'',
         lambda: make(init="ones")),
        (TypeError, "optax transformation", lambda: make(state_optim=3)),
        (TypeError, "optax transformation", lambda: make(weight_optim="adam")),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_explained(error, message, build):
    with pytest.raises(error, match=message):
        build()


def test_data_of_the_wrong_shape_is_explained():
    x, y = batch_of(6)
    algorithm = make()
    with pytest.raises(
        ValueError, match=r"vodes\[2\].*declared as Vode\(\(2,\)\).*h is set to f32\[3\]"
    ):
        algorithm.train_step(x, x)
    with pytest.raises(ValueError, match=r"x has shape \(6, 3\) and y \(3, 2\)"):
        algorithm.train_step(x, y[:3])
    # and nothing is broken by it
    assert np.isfinite(algorithm.train_step(x, y)["energy"])


def test_a_whole_step_may_be_part_of_a_compiled_function_of_ones_own():
    x, y = batch_of(6)
    px.RKG.seed(0)
    algorithm = make()
    px.RKG.seed(0)
    other = make()

    @pxf.jit()
    def two_steps(x, y, *, algorithm):
        algorithm.train_step(x, y)
        return algorithm.train_step(x, y)

    inside = two_steps(x, y, algorithm=algorithm)
    other.train_step(x, y)
    np.testing.assert_allclose(inside["energy"], other.train_step(x, y)["energy"], atol=1e-6)
    for k, v in params_of(other.model).items():
        np.testing.assert_allclose(params_of(algorithm.model)[k], v, atol=1e-6)


def test_a_layer_added_after_the_algorithm_was_made_is_refused_until_the_optimiser_knows_it():
    x, y = batch_of(4)
    algorithm = make()
    algorithm.train_step(x, y)
    model = algorithm.model
    model.extra = pxnn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"PC: `extra\.nn\.weight` was added.*weight_optim\.init"):
        algorithm.train_step(x, y)
    algorithm.weight_optim.init(algorithm.weights_mask()(model))
    assert algorithm.train_step(x, y)["energy"] > 0


@pytest.mark.parametrize(("optim", "remembers"), [(optax.sgd(0.1), False), (optax.adam(0.1), True)])
def test_a_replaced_layer_of_another_shape_trains_or_is_refused(optim, remembers):
    x, y = batch_of(4)
    algorithm = make(weight_optim=optim)
    algorithm.train_step(x, y)
    old = algorithm.model.layers[0].nn.weight.shape
    algorithm.model.layers[0] = pxnn.Linear(old[1], 7)
    algorithm.model.layers[1] = pxnn.Linear(7, algorithm.model.layers[1].nn.weight.shape[0])
    algorithm.model.vodes[0] = pxc.Vode((7,))
    before = np.asarray(algorithm.model.layers[0].nn.weight.get())
    if remembers:
        with pytest.raises(ValueError, match=r"`layers\[0\]\.nn\.weight` has shape \(7, .*init"):
            algorithm.train_step(x, y)
        algorithm.weight_optim.init(algorithm.weights_mask()(algorithm.model))
    algorithm.train_step(x, y)
    assert np.abs(np.asarray(algorithm.model.layers[0].nn.weight.get()) - before).max() > 0
