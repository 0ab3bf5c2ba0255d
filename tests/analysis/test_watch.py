"""The regime in a run's history, and the warning when the states' steps become unstable."""

import warnings

import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.models as pxm
import pcx.training as pxt


class Grow(pxt.Callback):
    """The planted fault: the output weights become three times as large after epoch 1."""

    def on_epoch_start(self, trainer, epoch):
        if epoch == 2:
            weight = trainer.algorithm.model.layers[-1].nn.weight
            weight.set(3 * weight.get())


def run(*callbacks, epochs=3):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((4, n)).astype(np.float32) for n in (3, 2))
    model = pxm.MLP([3, 4, 2], weight_init=lambda key, shape, dtype: np.eye(*shape, dtype=dtype))
    # with W = 1 on the diagonal, H = 1 + W'W has 2 as its largest eigenvalue
    pc = pxa.PC(model, 2, optax.sgd(0.9), optax.sgd(0.0))
    watch = pxan.WatchRegime(x, y, samples=0)
    return watch, pxt.Trainer(pc, [watch, *callbacks], progress=False).fit([(x, y)], epochs=epochs)


def test_the_regime_of_each_epoch_is_in_the_history():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch, history = run()
    assert [*watch.measured] == [1, 2, 3]
    np.testing.assert_allclose(history["regime_lambda_max"], 2, rtol=1e-4)
    assert history["regime_gradient_ratio"][2] == watch.measured[3].gradient_ratio
    assert "regime_alignment" not in history
    restored = pxt.History.from_dict(history.to_dict())
    np.testing.assert_array_equal(restored["regime_lambda_max"], history["regime_lambda_max"])


def test_growing_weights_are_warned_of_once_they_make_the_steps_unstable():
    # the curvature is 1 + 9 then, and 2 / 10 is below 0.9
    with pytest.warns(UserWarning, match=r"After epoch 2 .* grown to 10, .* below 0.2 ") as seen:
        watch, _ = run(Grow())
    assert len(seen) == 1
    assert [watch.measured[epoch].stable for epoch in (1, 2, 3)] == [True, False, False]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="every is a number of epochs, at least 1; got 0"):
        pxan.WatchRegime(np.ones((1, 2)), every=0)
    with pytest.raises(ValueError, match="there is no epoch yet"):
        pxt.History().note({"a": 1.0})
