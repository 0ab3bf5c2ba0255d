"""`EnergyModule`: energy of its parts, each once; clearing; statuses; repr."""

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


def node(value, **kwargs):
    return pxc.Vode((2,), **kwargs).set("h", jnp.full(2, value)).set("u", jnp.zeros(2))


class Net(pxc.EnergyModule):
    def __init__(self, **parts):
        for name, part in parts.items():
            setattr(self, name, part)


def test_the_energy_is_the_sum_over_attributes_lists_tuples_and_dicts():
    net = Net(a=node(1.0), b=[node(2.0), (node(3.0),)], c={"x": node(4.0)})
    assert float(net.energy()) == 1.0 + 4.0 + 9.0 + 16.0


def test_a_module_without_energy_modules_has_energy_zero():
    assert Net().energy() == 0.0
    assert Net(layer=pxnn.Linear(2, 2), n=3).energy() == 0.0


def test_nested_modules_count_through_their_own_energy():
    class Twice(Net):
        def energy(self):
            return 2 * super().energy()

    assert float(Net(part=Twice(a=node(1.0)), b=node(2.0)).energy()) == 2.0 + 4.0


def test_vodes_inside_plain_modules_are_found():
    assert float(Net(seq=pxnn.Sequential(pxnn.Linear(2, 2), node(3.0))).energy()) == 9.0


def test_nodes_without_energy_add_nothing():
    assert float(Net(a=node(1.0), b=node(5.0, energy_fn=None)).energy()) == 1.0


@pytest.mark.parametrize("jitted", [False, True])
def test_one_vode_reached_twice_is_counted_once(jitted):
    shared = node(2.0)
    inner = Net(v=node(3.0))
    net = Net(a=shared, b=[shared], c=inner, d=inner)
    energy = lambda *, net: net.energy()
    assert float((pxf.jit()(energy) if jitted else energy)(net=net)) == 4.0 + 9.0


@pytest.mark.parametrize("jitted", [False, True])
def test_different_modules_that_share_a_weight_are_both_counted(jitted):
    class Decay(pxc.EnergyModule):
        def __init__(self, weight, rate):
            self.weight, self.rate = weight, rate

        def energy(self):
            return self.rate * jnp.sum(self.weight**2)

    w = pxnn.LayerParam(jnp.ones(3))
    net = Net(a=Decay(w, 1.0), b=Decay(w, 10.0))
    energy = lambda *, net: net.energy()
    assert float((pxf.jit()(energy) if jitted else energy)(net=net)) == 33.0


def test_equal_vodes_that_are_not_the_same_object_are_both_counted():
    assert float(Net(a=node(2.0), b=node(2.0)).energy()) == 8.0


def test_a_subclass_need_not_call_super_init():
    class Bare(pxc.EnergyModule):
        def __init__(self):
            self.v = node(1.0)

    bare = Bare()
    assert bare.status is None
    assert float(bare.energy()) == 1.0
    assert bare.train().is_train


def test_clear_params_empties_what_the_filter_selects_and_nothing_else():
    net = Net(a=node(1.0), b=[node(2.0)], layer=pxnn.Linear(2, 2))
    net.a.h.frozen = True
    net.clear_params(pxc.VodeParam.Cache)
    assert net.a.get("u") is None
    assert net.b[0].cache.get() is None
    assert net.a.h.shape == (2,)
    net.clear_params(pxu.M_hasnot(pxc.VodeParam, frozen=True))
    assert net.b[0].h.get() is None
    assert net.a.h.get() is not None
    assert net.layer.nn.weight.get() is not None


def test_a_cleared_cache_is_empty_in_every_way():
    vode = node(1.0)
    vode.clear_params(px.ParamCache)
    assert "u" not in vode.cache
    assert vode.cache.get("u", 5) == 5
    with pytest.raises(KeyError, match="u"):
        vode.cache["u"]
    vode.set("u", jnp.ones(2))
    assert "u" in vode.cache


def test_clear_params_with_a_bad_filter_changes_nothing():
    net = Net(a=node(1.0))
    with pytest.raises(TypeError, match="a mask filter must be"):
        net.clear_params("cache")
    assert net.a.get("u") is not None


def test_status_reaches_every_module_below_and_can_be_set_and_unset():
    net = Net(a=node(1.0), b=[Net(v=node(2.0))], seq=pxnn.Sequential(node(3.0)))
    net.status = "mine"
    parts = [net, net.a, net.b[0], net.b[0].v, net.seq[0]]
    assert [p.status for p in parts] == ["mine"] * 5
    net.status = None
    assert [p.status for p in parts] == [None] * 5


@pytest.mark.wrong_types
def test_a_status_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="a status is a string or None, got 3"):
        Net().status = 3


def test_the_constants_of_status():
    assert (pxc.STATUS.NONE, pxc.STATUS.ALL, pxc.STATUS.INIT) == (None, ".*", "init")


def test_attribute_order_changes_nothing():
    one, other = Net(a=node(1.0), b=node(2.0)), Net(b=node(2.0), a=node(1.0))
    assert jax.tree_util.tree_structure(one) == jax.tree_util.tree_structure(other)
    grad = pxf.value_and_grad(pxu.M(pxc.VodeParam))(lambda *, net: net.energy())
    _, g = grad(net=one)
    optim = pxu.Optim(optax.sgd(0.5), pxu.M(pxc.VodeParam)(one))
    optim.step(other, g["net"])
    np.testing.assert_allclose(other.a.h, 0.5)
    np.testing.assert_allclose(other.b.h, 1.0)


def test_a_mask_tree_made_in_one_mode_and_status_fits_in_another():
    net = Net(a=node(1.0), b=node(2.0), layer=pxnn.Linear(2, 2))
    mask = pxu.M(pxc.VodeParam).to((False, True))(net)
    mask.a.h = False
    grad = pxf.value_and_grad({"net": mask})(lambda *, net: net.energy())
    net.train()
    with pxu.step(net, pxc.STATUS.INIT):
        _, grads = grad(net=net)
        inside = pxu.M(pxc.VodeParam).to((False, True))(net)
    assert grads["net"].a.h is None
    np.testing.assert_allclose(grads["net"].b.h, 2.0)
    net.eval()
    _, grads = pxf.value_and_grad({"net": inside})(lambda *, net: net.energy())(net=net)
    np.testing.assert_allclose(grads["net"].a.h, 1.0)


def test_the_repr_of_a_model_lists_params_by_path_and_vodes_with_energy_and_shape():
    class Mlp(pxc.EnergyModule):
        def __init__(self):
            self.act = jax.nn.relu
            self.n = 3
            self.layers = [pxnn.Linear(2, 3)]
            self.vodes = [pxc.Vode((3,)), pxc.Vode(pxc.ce_energy)]
            self.inner = Net(v=pxc.Vode((4,), None))
            self.constant = jnp.ones(5)

    net = Mlp()
    net.vodes[0].set("h", jnp.ones(3)).set("u", jnp.ones(3))
    net.vodes[1].h.frozen = True
    assert repr(net).splitlines() == [
        "Mlp(",
        "  .constant: f32[5]",
        "  .inner.v: Vode((4,), None)",
        "  .inner.v.h: VodeParam(None)",
        "  .layers[0].nn.weight: LayerParam(f32[3,2])",
        "  .layers[0].nn.bias: LayerParam(f32[3])",
        "  .vodes[0]: Vode((3,), se_energy)",
        "  .vodes[0].cache: VodeParam.Cache({'u': f32[3]})",
        "  .vodes[0].h: VodeParam(f32[3])",
        "  .vodes[1]: Vode(ce_energy)",
        "  .vodes[1].h: VodeParam(None, frozen=True)",
        ")",
    ]
    assert repr(Net()) == "Net()"


def test_everything_is_reachable_from_the_top_level():
    names = ["EnergyModule", "Vode", "VodeParam", "STATUS", "se_energy", "ce_energy", "zero_energy"]
    for name in names:
        assert getattr(px, name) is getattr(pxc, name)
