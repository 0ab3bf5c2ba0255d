"""Partly clamped nodes, against closed forms of linear models and raw JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

RNG = np.random.default_rng(0)
W = RNG.normal(size=(6, 3)).astype("f4")
IMAGES = RNG.normal(size=(5, 6)).astype("f4")
SEEN = np.array([True, False, True, True, False, False])
FREE = pxu.M(pxc.VodeParam).hasnot(frozen=True)


def decoder(prior=True):
    """z ~ N(0, I), image ~ N(W z, I), with a free output."""
    model = pxm.LinearDecoder([3, 6], prior=prior, bias=False)
    model.layers[1].nn.weight.set(jnp.asarray(W))
    model.vodes[1].h.frozen = False
    return model


def posterior(images, seen):
    """The most likely z given the entries that are seen: `(I + A^T A) z = A^T a`, A = W[seen]."""
    a = W[seen]
    return np.linalg.solve(np.eye(3) + a.T @ a, a.T @ images[:, seen].T).T


# the free entries of the image are a second level to descend, so this takes some steps
INFER = {
    "PC": lambda m: pxa.PC(m, 800, optax.sgd(0.05), init="persistent"),
    "momentum": lambda m: pxa.PC(m, 300, optax.sgd(0.05, momentum=0.8), init="persistent"),
    "adam": lambda m: pxa.PC(m, 3000, optax.adam(0.01), init="persistent", unroll=False),
    "EPC": lambda m: pxa.EPC(m, 800, optax.sgd(0.05), init="persistent"),
}


@pytest.mark.parametrize("kind", INFER)
def test_half_an_image_is_completed_as_the_closed_form_says(kind):
    model = decoder()
    INFER[kind](model).infer(None, pxc.Clamp(IMAGES, SEEN))
    z, image = (np.asarray(vode.h.get()) for vode in model.vodes)
    want = posterior(IMAGES, SEEN)
    np.testing.assert_allclose(z, want, atol=1e-3)
    np.testing.assert_allclose(image[:, ~SEEN], (want @ W.T)[:, ~SEEN], atol=2e-3)
    np.testing.assert_array_equal(image[:, SEEN], IMAGES[:, SEEN])


def test_each_image_may_have_its_own_mask_and_garbage_where_it_is_not_seen():
    seen = RNG.random((5, 6)) < 0.6
    broken = np.where(seen, IMAGES, np.nan)
    model = decoder()
    pxa.PC(model, 800, optax.sgd(0.05), init="persistent").infer(None, pxc.Clamp(broken, seen))
    for k in range(5):
        want = posterior(IMAGES[k : k + 1], seen[k])[0]
        np.testing.assert_allclose(model.vodes[0].h[k], want, atol=2e-4)


def test_a_full_mask_is_a_clamped_node_and_an_empty_one_a_free_node():
    everything, nothing = np.ones(6, bool), np.zeros(6, bool)
    model = decoder()
    energy = lambda y: np.asarray(pxa.PC(model, 40, optax.sgd(0.1)).energy(None, y))
    full = energy(pxc.Clamp(IMAGES, everything))
    np.testing.assert_allclose(energy(pxc.Clamp(IMAGES, nothing)), 0.0, atol=1e-6)
    model.vodes[1].h.frozen = True
    np.testing.assert_allclose(full, energy(IMAGES), rtol=1e-5)


def test_a_training_step_is_that_of_raw_jax_on_the_entries_that_are_known():
    net = pxm.MLP([4, 6, 6], jnp.tanh)
    net.vodes[-1].h.frozen = False
    w = [layer.nn.weight.get() for layer in net.layers]
    b = [layer.nn.bias.get() for layer in net.layers]
    x, seen = RNG.normal(size=(5, 4)).astype("f4"), RNG.random((5, 6)) < 0.5

    def energy(weights, states, x, y, seen):
        h, out = states
        out = jnp.where(seen, y, out)
        u = jnp.tanh(weights[0] @ x + b[0])
        return 0.5 * jnp.sum((h - u) ** 2) + 0.5 * jnp.sum((out - weights[1] @ h - b[1]) ** 2)

    def one(x, y, seen):
        h = jnp.tanh(w[0] @ x + b[0])
        states = (h, w[1] @ h + b[1])
        for _ in range(4):
            grads = jax.grad(energy, 1)(w, states, x, y, seen)
            states = jax.tree_util.tree_map(lambda s, g: s - 0.1 * g, states, grads)
        return jax.grad(energy)(w, states, x, y, seen)

    grads = jax.vmap(one)(x, IMAGES, seen)
    pc = pxa.PC(net, 4, optax.sgd(0.1), optax.sgd(1.0))
    pc.train_step(x, pxc.Clamp(IMAGES, seen))
    for layer, old, g in zip(net.layers, w, grads, strict=True):
        np.testing.assert_allclose(layer.nn.weight, old - g.mean(0), rtol=1e-4, atol=1e-5)


def test_back_propagation_with_targets_known_in_part_is_a_masked_loss():
    net = pxm.MLP([4, 6])
    net.vodes[-1].h.frozen = False
    w, b = net.layers[0].nn.weight.get(), net.layers[0].nn.bias.get()
    x = RNG.normal(size=(5, 4)).astype("f4")
    loss = lambda w: jnp.mean(0.5 * jnp.sum(SEEN * (x @ w.T + b - IMAGES) ** 2, -1))
    pxa.Backprop(net, weight_optim=optax.sgd(1.0)).train_step(x, pxc.Clamp(IMAGES, SEEN))
    np.testing.assert_allclose(net.layers[0].nn.weight, w - jax.grad(loss)(w), rtol=1e-5, atol=1e-6)


class Hidden(pxc.EnergyModule):
    """A node whose state others read, clamped in part before it is called."""

    def __init__(self):
        self.vodes = [pxc.Vode((6,)), pxc.Vode((6,))]

    def __call__(self, x, known=None):
        if known is not None:
            self.vodes[0].set("h", known)
        return self.vodes[1](2 * self.vodes[0](x))


def test_clamped_entries_have_no_gradient_and_others_see_their_values():
    model, x = Hidden(), jnp.ones(6)
    known = pxc.Clamp(IMAGES[0], SEEN)
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        model(x, known)
    np.testing.assert_array_equal(model.vodes[0].h, np.where(SEEN, IMAGES[0], 1.0))
    np.testing.assert_array_equal(model.vodes[1].h, 2 * np.where(SEEN, IMAGES[0], 1.0))
    # as noise or decay would do it
    model.vodes[0].h += 10.0

    def energy(h):
        h = jnp.where(SEEN, IMAGES[0], h)
        return 0.5 * jnp.sum((h - 1) ** 2) + 0.5 * jnp.sum((model.vodes[1].h - 2 * h) ** 2)

    want = jax.grad(energy)(model.vodes[0].h.get())

    def ours(*, model):
        model(x, known)
        return model.energy()

    _, grads = pxf.value_and_grad(FREE)(ours)(model=model)
    got = grads["model"].vodes[0].h
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert bool((jnp.asarray(got)[SEEN] == 0).all())
    np.testing.assert_array_equal(model.vodes[0].h[SEEN], IMAGES[0][SEEN])


def test_reclamp_puts_back_what_noise_moved_and_leaves_the_rest():
    model = Hidden()
    with pxu.step(model, pxc.STATUS.INIT):
        model(jnp.ones(6), pxc.Clamp(IMAGES[0], SEEN))
    for vode in model.vodes:
        vode.h += 0.5
    pxc.reclamp(model)
    np.testing.assert_array_equal(model.vodes[0].h, np.where(SEEN, IMAGES[0], 1.5))
    np.testing.assert_allclose(model.vodes[1].h, 2 * np.where(SEEN, IMAGES[0], 1.0) + 0.5)


def test_a_clamp_lasts_until_the_cache_is_cleared_or_h_is_set_whole():
    vode = pxc.Vode((2,)).clamp(jnp.array([5.0, 5.0]), [True, False])
    vode.status = pxc.STATUS.INIT
    assert vode(jnp.zeros(2)).tolist() == [5.0, 0.0]
    assert vode(jnp.ones(2)).tolist() == [5.0, 1.0]
    assert vode.set("h", jnp.zeros(2)).h.tolist() == [0.0, 0.0]
    assert vode(jnp.ones(2)).tolist() == [1.0, 1.0]
    vode.clamp(jnp.array([5.0, 5.0]), [True, False])
    vode.clear_params(pxc.VodeParam.Cache)
    assert vode(jnp.zeros(2)).tolist() == [0.0, 0.0]


def test_a_frozen_node_cannot_be_clamped_in_part():
    model = pxm.MLP([4, 6])
    with pytest.raises(ValueError, match=r"`model\.vodes\[0\]` is frozen, .*h\.frozen = False"):
        model.vodes[0].clamp(IMAGES[0], SEEN)


def test_values_and_masks_that_do_not_fit_say_so():
    with pytest.raises(
        ValueError, match=r"the mask is .*\[5\], which does not broadcast .*\[5,6\]"
    ):
        pxc.Clamp(IMAGES, np.ones(5, bool))
    with pytest.raises(ValueError, match=r"declared as Vode\(\(6,\)\), but h is set to f32\[4\]"):
        pxc.Vode((6,)).clamp(jnp.ones(4), True)


def test_a_mask_of_one_sample_is_spread_over_the_batch_and_both_are_mapped():
    clamp = pxc.Clamp(IMAGES, SEEN)
    assert clamp.mask.shape == IMAGES.shape
    each = jax.vmap(lambda c: c(jnp.zeros(6)))(clamp)
    np.testing.assert_array_equal(each, np.where(SEEN, IMAGES, 0))
    assert len(jax.tree_util.tree_leaves(clamp)) == 2
    assert px.get(clamp) is clamp


def test_integer_pixels_may_be_clamped():
    vode = pxc.Vode((3,)).set("h", jnp.zeros(3)).clamp(np.array([255, 7, 1], "uint8"), [1, 0, 0])
    assert vode.h.tolist() == [255.0, 0.0, 0.0]
    assert vode.h.dtype == jnp.float32


# --- a whole label, set before its node is called -----------------------------------------------------


class LabelFirst(pxc.EnergyModule):
    def __init__(self, first=True):
        self.first = first
        self.layers = [pxnn.Linear(4, 5), pxnn.Linear(5, 2)]
        self.vodes = [pxc.Vode((5,)), pxc.Vode((2,))]
        self.vodes[1].h.frozen = True

    def __call__(self, x, y=None):
        if self.first and y is not None:
            self.vodes[1].set("h", y)
        u = self.layers[1](self.vodes[0](jnp.tanh(self.layers[0](x))))
        self.vodes[1](u)
        if not self.first and y is not None:
            self.vodes[1].set("h", y)
        return u


@pytest.mark.parametrize("first", [True, False])
def test_back_propagation_has_the_gradient_of_raw_jax_wherever_the_label_is_set(first):
    net = LabelFirst(first)
    params = [(layer.nn.weight.get(), layer.nn.bias.get()) for layer in net.layers]
    x, y = RNG.normal(size=(8, 4)).astype("f4"), np.eye(2, dtype="f4")[np.arange(8) % 2]

    def loss(params):
        (w1, b1), (w2, b2) = params
        out = jnp.tanh(x @ w1.T + b1) @ w2.T + b2
        return jnp.mean(0.5 * jnp.sum((y - out) ** 2, -1))

    value, grads = jax.value_and_grad(loss)(params)
    bp = pxa.Backprop(net, weight_optim=optax.sgd(1.0))
    np.testing.assert_allclose(bp.train_step(x, y)["energy"], value, rtol=1e-5)
    for layer, (w, b), (gw, gb) in zip(net.layers, params, grads, strict=True):
        np.testing.assert_allclose(layer.nn.weight, w - gw, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.nn.bias, b - gb, rtol=1e-4, atol=1e-6)


def test_initialisation_overwrites_every_other_state_as_in_pcx():
    h, u = jnp.ones(2), jnp.zeros(2)
    for frozen, order, kept in (
        (True, "label, call", True),
        (True, "call, label, call", False),
        (True, "outside, call", False),
        (True, "label, call, call", False),
        (False, "label, call", False),
    ):
        vode = pxc.Vode((2,))
        vode.h.frozen = frozen
        if order.startswith("outside"):
            vode.set("h", h)
        with pxu.step(vode, pxc.STATUS.INIT):
            for act in order.split(", "):
                if act == "label":
                    vode.set("h", h)
                elif act == "call":
                    out = vode(u)
        assert bool((out == (h if kept else u)).all()), order
        assert bool((vode.get("u") == u).all())
