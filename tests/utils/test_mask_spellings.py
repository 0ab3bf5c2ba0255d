"""`M`, `m`, `Mask`, `M_is`, `M_has`, `M_hasnot`: spellings of one thing, on models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu


class Net(pxc.EnergyModule):
    def __init__(self):
        self.layer = pxnn.Linear(2, 3)
        self.tied = pxnn.shared(self.layer)
        self.vodes = [pxc.Vode((3,)).set("h", jnp.ones(3)), pxc.Vode((3,)).set("h", jnp.ones(3))]
        self.vodes[1].h.frozen = True


def selected(mask, model):
    return {path for path, leaf in px.core.named_params(model) if mask.select(leaf)}


WEIGHTS = {"layer.nn.weight", "layer.nn.bias"}
STATES = {"vodes[0].h", "vodes[1].h"}
CACHES = {"vodes[0].cache", "vodes[1].cache"}


@pytest.mark.parametrize(
    ("mask", "want"),
    [
        (pxu.M(pxc.VodeParam), STATES),
        (pxu.m(pxc.VodeParam), STATES),
        (pxu.Mask(pxc.VodeParam), STATES),
        (pxu.M_is(pxc.VodeParam), STATES),
        (pxu.M(pxc.VodeParam | pxc.VodeParam.Cache), STATES | CACHES),
        (pxu.M(pxc.VodeParam) | pxc.VodeParam.Cache, STATES | CACHES),
        (pxu.M((pxc.VodeParam, pxc.VodeParam.Cache)), STATES | CACHES),
        (pxu.M_has(pxc.VodeParam, frozen=True), {"vodes[1].h"}),
        (pxu.M_hasnot(pxc.VodeParam, frozen=True), {"vodes[0].h"}),
        (pxu.M(pxc.VodeParam).hasnot(frozen=True), {"vodes[0].h"}),
        (pxu.M(pxc.VodeParam).has_not(frozen=True), {"vodes[0].h"}),
        (pxu.M(pxc.VodeParam) & pxu.M_has(px.Param, frozen=True), {"vodes[1].h"}),
        (~pxu.M(pxc.VodeParam), WEIGHTS | CACHES),
        (~pxu.M(pxnn.LayerParam | px.ParamCache), STATES),
        (pxu.M(lambda p: isinstance(p, px.Param) and p.ndim == 2), {"layer.nn.weight"}),
        (pxu.M(px.ParamCache), CACHES),
        (pxu.M(None), WEIGHTS | STATES | CACHES),
        (pxu.M_has(None, frozen=True), {"vodes[1].h"}),
        (pxu.M_is(px.Param, pxnn.LayerParam), WEIGHTS),
        (pxu.M_hasnot(pxnn.LayerParam), WEIGHTS),
    ],
)
def test_a_mask_selects(mask, want):
    assert selected(mask, Net()) == want


def test_both_spellings_of_mapping_agree():
    net = Net()
    paper = pxu.Mask(pxc.VodeParam, [False, True])(net)
    current = pxu.M(pxc.VodeParam).to((False, True))(net)
    leaves = lambda tree: jax.tree_util.tree_leaves(tree)
    assert leaves(paper) == leaves(current)
    assert paper.vodes[0].h is True
    assert paper.layer.nn.weight is False


def test_a_mask_without_values_keeps_the_params_and_leaves_the_model_alone():
    net = Net()
    picked = pxu.M(pxnn.LayerParam)(net)
    assert picked.layer.nn.weight is net.layer.nn.weight
    assert picked.vodes[0].h is None
    assert net.vodes[0].h.shape == (3,)


def test_a_mask_tree_is_a_module_that_can_be_edited_without_changing_the_model():
    net = Net()
    mask = pxu.M(pxc.VodeParam).to((False, True))(net)
    mask.vodes[0].h = False
    assert isinstance(mask, Net)
    assert mask.vodes[1].h is True
    assert net.vodes[0].h.shape == (3,)


def test_the_values_of_a_mask_are_in_place_of_the_params_of_a_layer_too():
    mask = pxu.M(pxc.VodeParam).to((False, True))(Net())
    assert mask.layer.nn.weight is False
    everything = pxu.M(None).to((False, True))(Net())
    assert everything.layer.nn.weight is True
    assert everything.layer.nn.bias is True


def test_an_edited_mask_tree_says_what_gets_a_gradient():
    net = Net()
    mask = pxu.M(None).to((False, False))(net)
    mask.vodes[0].h = True
    loss = lambda *, net: 3.0 * jnp.sum(net.vodes[0].h) + jnp.sum(net.vodes[1].h)
    _, g = pxf.value_and_grad({"net": mask})(loss)(net=net)
    np.testing.assert_array_equal(g["net"].vodes[0].h, [3.0, 3.0, 3.0])
    assert g["net"].vodes[1].h is None
    assert g["net"].layer.nn.weight is None


@pytest.mark.parametrize("jitted", [False, True])
def test_a_negated_mask_gives_a_shared_param_its_gradient_and_selects_no_bookkeeping(jitted):
    net = Net()
    not_states = ~pxu.M(pxc.VodeParam | px.ParamCache)

    def grads(*, net):
        loss = lambda *, net: jnp.sum(net.layer(jnp.ones(2)) + net.tied(jnp.ones(2)))
        return pxf.value_and_grad(not_states)(loss)(net=net)[1]["net"]

    g = (pxf.jit()(grads) if jitted else grads)(net=net)
    np.testing.assert_allclose(g.layer.nn.weight, 2.0)
    np.testing.assert_allclose(g.tied.nn.weight, 2.0)
    assert g.vodes[0].h is None
    optim = pxu.Optim(optax.sgd(1.0), not_states(net))
    before = net.layer.nn.weight.get()
    optim.step(net, g)
    np.testing.assert_allclose(net.layer.nn.weight, before - 2.0)
    assert net.tied.nn.weight is net.layer.nn.weight


@pytest.mark.parametrize("bad", ["weights", 3, pxnn.Linear, pxc.Vode])
def test_a_bad_filter_is_refused_when_the_mask_is_built(bad):
    with pytest.raises(TypeError, match="a mask filter must be a param type"):
        pxu.M(bad)


def test_a_mask_that_selects_nothing_is_an_error_that_says_so():
    class Other(pxc.VodeParam):
        pass

    net = Net()
    with pytest.raises(ValueError, match=r"(?s)nothing to differentiate.*it selects no param"):
        pxf.value_and_grad(pxu.M(Other))(lambda *, net: jnp.array(0.0))(net=net)
    with pytest.raises(ValueError, match=r"Optim\.init: there is no param"):
        pxu.Optim(optax.sgd(0.1), pxu.M(Other)(net))
