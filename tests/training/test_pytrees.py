"""Models with several inputs and several heads: batches, the trainer and metrics on pytrees."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt


class TwoHeads(pxc.EnergyModule):
    """`a` and `b` are added up; one head classifies, the other regresses."""

    def __init__(self):
        rkg = px.RandomKeyGenerator(0)
        self.a, self.b = pxnn.Linear(6, 8, rkg=rkg), pxnn.Linear(2, 8, rkg=rkg)
        self.c, self.r = pxnn.Linear(8, 3, rkg=rkg), pxnn.Linear(8, 2, rkg=rkg)
        self.h, self.vc, self.vr = pxc.Vode((8,)), pxc.Vode((3,), pxc.ce_energy), pxc.Vode((2,))
        self.vc.h.frozen = self.vr.h.frozen = True

    def __call__(self, x, y=None):
        h = jnp.tanh(self.h(self.a(x["a"]) + self.b(x["b"])))
        self.vc(self.c(h))
        self.vr(self.r(h))
        if y is not None:
            self.vc.set("h", y[0])
            self.vr.set("h", y[1])
        return self.vc.get("u"), self.vr.get("u")


def data(n=20):
    rng = np.random.default_rng(0)
    a, b, r = (rng.normal(size=(n, k)).astype(np.float32) for k in (6, 2, 2))
    return {"a": a, "b": b}, (np.eye(3, dtype=np.float32)[np.arange(n) % 3], r)


def pc():
    return pxa.PC(TwoHeads(), T=3, weight_optim=optax.sgd(0.05))


def weights(algorithm):
    layers = [algorithm.model.a, algorithm.model.b, algorithm.model.c, algorithm.model.r]
    return np.concatenate([np.ravel(layer.nn.weight.get()) for layer in layers])


def test_fit_takes_the_steps_of_a_loop_over_slices():
    x, y = data()
    by_hand, trained = pc(), pc()
    energies = [
        by_hand.train_step(
            {name: part[i : i + 8] for name, part in x.items()}, tuple(t[i : i + 8] for t in y)
        )["energy"]
        for _ in range(2)
        for i in (0, 8, 16)
    ]
    history = pxt.Trainer(trained, progress=False).fit(pxt.batches(x, y, 8), 2, val=[(x, y)])
    np.testing.assert_array_equal(weights(trained), weights(by_hand))
    np.testing.assert_array_equal(history.batch["energy"], np.float32(energies))
    assert history["energy"][0] == pytest.approx(np.average(energies[:3], weights=[8, 8, 4]))
    expected = float(by_hand.eval_step(x, y)["energy"])
    assert history.last("val_energy") == pytest.approx(expected)


def test_several_targets_have_no_metric_by_default_and_the_one_asked_for():
    x, y = data()
    assert "accuracy" not in pxt.Trainer(pc(), progress=False).fit([(x, y)], 1)
    metrics = {"accuracy": lambda prediction, target: pxt.accuracy(prediction[0], target[0])}
    trainer = pxt.Trainer(pc(), progress=False, metrics=metrics)
    found = trainer.evaluate(pxt.batches(x, y, 7))["accuracy"]
    classes, _ = trainer.predict(x)
    assert found == pytest.approx(np.mean(np.argmax(classes, 1) == np.arange(20) % 3))


def test_predict_in_batches_keeps_the_form_of_the_prediction():
    x, _ = data()
    trainer = pxt.Trainer(pc(), progress=False)
    whole, parts = trainer.predict(x), trainer.predict(x, batch_size=7)
    assert [p.shape for p in parts] == [(20, 3), (20, 2)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_batches_keep_dicts_and_tuples_and_shuffle_all_parts_alike():
    n = np.arange(10)
    for x, y in pxt.batches({"a": n, "b": (n * 2, n * 3)}, (n * 5, n * 7), 4, shuffle=True):
        for part, factor in ((x["b"][0], 2), (x["b"][1], 3), (y[0], 5), (y[1], 7)):
            np.testing.assert_array_equal(part, x["a"] * factor)


def test_a_model_without_input_has_batches_of_targets():
    assert [(x, y.tolist()) for x, y in pxt.batches(None, np.arange(3), 2)] == [
        (None, [0, 1]),
        (None, [2]),
    ]


def test_parts_of_different_length_are_named():
    x, y = data()
    message = (
        r"batches: x\['a'\] has shape \(19, 6\) and x\['b'\] \(20, 2\) and y\[0\] \(20, 3\) and "
        r"y\[1\] \(20, 2\); their first axes must have the same length"
    )
    with pytest.raises(ValueError, match=message):
        pxt.batches({**x, "a": x["a"][1:]}, y, 8)
    with pytest.raises(
        ValueError, match=r"train_batches, batch 2: .* and y\[1\] \(19, 2\); their first"
    ):
        pxt.Trainer(pc(), progress=False).fit([(x, y), (x, (y[0], y[1][1:]))], 1)
    with pytest.raises(ValueError, match=r"val, batch 1: x has shape \(20, 6\) and y \(3,\)"):
        pxt.Trainer(pc(), progress=False).fit([(x, y)], 1, val=[(x["a"], np.arange(3))])


def test_nothing_at_all_is_no_batch():
    with pytest.raises(ValueError, match="batches: x and y hold no array"):
        pxt.batches({}, (), 2)


def test_classes_does_not_say_which_of_several_targets_it_means():
    x, y = data()
    trainer = pxt.Trainer(pc(), progress=False, classes=3)
    with pytest.raises(TypeError, match=r"classes=3 .* but the targets are a tuple of 2. Give"):
        trainer.fit([(x, (np.arange(20) % 3, y[1]))], 1)
