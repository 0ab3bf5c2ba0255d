"""What the trainer says, and leaves behind, when training diverges."""

import jax
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt
from tests.training.helpers import LeastSquares, regression


def told():
    """The first batch warns as well."""
    return pytest.warns(UserWarning, match="PC: the energy of the first batch is nan")


def fit(algorithm, epochs=3, **options):
    trainer = pxt.Trainer(algorithm, progress=False, **options)
    trainer.fit(pxt.batches(*regression(24), 8), epochs)


@pytest.mark.parametrize("log_every", [1, 2, 100])
def test_the_first_bad_batch_is_named(log_every):
    with pytest.raises(pxt.Diverged, match=r"epoch 2, batch 3 \(step 6\)") as raised:
        fit(LeastSquares(explode_at=5), log_every=log_every)
    assert (raised.value.epoch, raised.value.batch) == (2, 3)


def test_the_state_before_the_bad_batch_is_restored():
    px.RKG.seed(0)
    broken = LeastSquares(explode_at=5, noise=0.1)
    with pytest.raises(pxt.Diverged, match="are as they were before this batch"):
        fit(broken)
    key = np.array(px.RKG.key.get())
    px.RKG.seed(0)
    healthy = LeastSquares(noise=0.1)
    batches = list(pxt.batches(*regression(24), 8))
    for x, y in [*batches, *batches[:2]]:
        healthy.train_step(x, y)
    np.testing.assert_array_equal(broken.model.weight.get(), healthy.model.weight.get())
    np.testing.assert_array_equal(key, px.RKG.key.get())
    assert int(broken.steps.get()) == 5
    assert broken.record is False


def test_the_vode_and_the_inference_step_are_named():
    with pytest.raises(pxt.Diverged) as raised:
        fit(LeastSquares(explode_at=1))
    # the stand-in's second vode holds the energy at every step, its first one from step 1 on
    assert raised.value.vode == "second"
    assert raised.value.inference_step == 0
    assert raised.value.energies.shape == (3, 2)
    assert "Inference had done nothing yet" in str(raised.value)
    # so another rate of the states would not help
    assert "smaller learning rate for the states" not in str(raised.value)
    assert "smaller learning rate for the weights" in str(raised.value)


def test_without_diagnosis_the_params_are_looked_at():
    algorithm = LeastSquares(explode_at=1)
    with pytest.raises(pxt.Diverged, match=r"no longer finite: `model\.weight`") as raised:
        fit(algorithm, diagnose=False)
    assert "The model has taken the step" in str(raised.value)
    assert raised.value.vode is None


def test_bad_data_are_counted():
    x, y = regression(24)
    x[9, 1] = np.nan
    trainer = pxt.Trainer(LeastSquares(), progress=False)
    with pytest.raises(pxt.Diverged, match="x of this batch holds 1 values that are not finite"):
        trainer.fit(pxt.batches(x, y, 8), 1)


def test_growth_beyond_all_measure_is_divergence_too():
    algorithm = LeastSquares(optim=optax.sgd(50.0))
    with pytest.raises(pxt.Diverged) as raised:
        fit(algorithm, epochs=50)
    assert np.all(np.isfinite(raised.value.energies))
    assert np.all(np.isfinite(algorithm.model.weight.get()))


def test_a_state_learning_rate_that_is_too_large_is_recognised():
    px.RKG.seed(0)
    model = pxm.MLP([3, 8, 8, 2], act=jax.nn.relu)
    algorithm = pxa.PC(model, T=60, state_optim=optax.sgd(30.0))
    first = r"`vodes\[\d\]` diverged first, at inference"
    with told(), pytest.raises(pxt.Diverged, match=first) as raised:
        fit(algorithm)
    assert raised.value.inference_step > 0
    advice = str(raised.value).split("What to try")[1]
    assert advice.index("learning rate for the states") < advice.index("for the weights")
    # before the batch the model was healthy
    assert np.isfinite(float(algorithm.eval_step(*regression())["energy"]))


def test_back_propagation_has_no_inference_to_blame():
    px.RKG.seed(0)
    model = pxm.MLP([3, 8, 2], act=jax.nn.relu)
    algorithm = pxa.Backprop(model, weight_optim=optax.sgd(1e4))
    with pytest.raises(pxt.Diverged, match="learning rate for the weights"):
        fit(algorithm)


def test_an_inference_that_stops_early_is_reported_without_its_vode():
    px.RKG.seed(0)
    model = pxm.MLP([3, 8, 8, 2], act=jax.nn.relu)
    stop = pxa.Stop(energy_rtol=1e-9)
    algorithm = pxa.PC(model, T=60, state_optim=optax.sgd(30.0), stop=stop)
    with told(), pytest.raises(pxt.Diverged, match="Which vode it was is not known"):
        fit(algorithm)
