"""Modules as pytrees of their attributes, and their modes."""

import copy
import dataclasses
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn


class Layer(px.Module):
    def __init__(self, value=1.0):
        self.w = px.Param(jnp.array(value))


class Net(px.Module):
    """Without `super().__init__()`, as in many scripts."""

    def __init__(self):
        self.layers = [Layer(1.0), Layer(2.0)]
        self.named = {"a": Layer(3.0), "b": (Layer(4.0),)}
        self.top = Layer(5.0)
        self.act = jax.nn.relu
        self.n = 3


def assigned(*names):
    module = px.Module()
    for name in names:
        setattr(module, name, px.Param(jnp.array(float(ord(name)))))
    return module


def test_the_order_of_assignment_does_not_matter():
    one, two = assigned("a", "b", "c"), assigned("c", "a", "b")
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert jax.tree.leaves(one) == jax.tree.leaves(two) == [97.0, 98.0, 99.0]
    summed = jax.tree.map(lambda x, y: x + y, one, two)
    assert float(summed.b) == 196.0


def test_the_order_of_assignment_does_not_recompile():
    traces = 0

    @pxf.jit()
    def f(*, m):
        nonlocal traces
        traces += 1
        return m.a - m.b

    assert float(f(m=assigned("a", "b"))) == -1.0
    assert float(f(m=assigned("b", "a"))) == -1.0
    assert traces == 1


def test_attributes_of_other_names_are_another_structure():
    assert jax.tree.structure(assigned("a", "b")) != jax.tree.structure(assigned("a", "c"))


def test_plain_values_stay_leaves_for_jax():
    leaves = jax.tree.leaves(Net())
    assert 3 in leaves
    assert jax.nn.relu in leaves


def test_rebuilding_makes_new_objects_of_the_same_classes():
    net = Net()
    new = jax.tree.map(lambda x: x, net)
    assert type(new) is Net
    assert type(new.named["b"][0]) is Layer
    assert new.top is not net.top
    assert new.top.w is not net.top.w
    assert new.top.w.get() is net.top.w.get()
    assert new.act is jax.nn.relu


def test_fresh_modules_are_in_neither_mode():
    net = Net()
    assert (net.is_train, net.is_eval) == (False, False)


def test_a_mode_reaches_everything_below():
    net = Net()
    below = [net, *net.layers, net.named["a"], net.named["b"][0], net.top]
    assert net.train() is net
    assert all(m.is_train and not m.is_eval for m in below)
    assert net.eval() is net
    assert all(m.is_eval and not m.is_train for m in below)


def test_a_mode_flips_the_flags_of_equinox_modules():
    layer = pxnn.Layer(eqx.nn.Dropout, 0.5)
    layer.eval()
    assert layer.nn.inference.get() is True
    layer.train()
    assert layer.nn.inference.get() is False


def test_a_mode_recompiles_and_does_not_leak_out():
    modes = []

    @pxf.jit()
    def f(*, m):
        modes.append((m.is_train, m.is_eval))
        m.eval()

    layer = Layer()
    f(m=layer)
    layer.train()
    f(m=layer)
    f(m=layer)
    assert modes == [(False, False), (True, False)]
    assert layer.is_train


def test_submodules_are_the_direct_children_each_once():
    net = Net()
    net.again = net.top
    net.list_of_lists = [[net.layers[0]], None, px.Param(1.0)]
    found = list(net.submodules())
    expected = [net.layers[0], net.layers[1], net.named["a"], net.named["b"][0], net.top]
    assert {id(m) for m in found} == {id(m) for m in expected}
    assert len(found) == 5


def test_submodules_can_be_asked_for_by_type():
    class Special(Layer):
        pass

    outer = px.Module()
    outer.a, outer.b, outer.inner = Layer(), Special(), px.Module()
    outer.inner.deep = Special()
    assert list(outer.submodules(cls=Special)) == [outer.b]
    assert set(map(id, outer.submodules(cls=(Special, Layer)))) == {id(outer.a), id(outer.b)}


def test_modules_walks_everything_below_once_in_the_order_of_paths():
    net = Net()
    net.again = net
    found = list(net.modules())
    assert found[0] is net
    assert len(found) == len({id(m) for m in found}) == 6
    assert [float(m.w) for m in found[1:]] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert list(net.modules(Net)) == [net]


def test_a_module_prints_its_params_by_path():
    assert repr(Net()).splitlines() == [
        "Net(",
        "  .layers[0].w: Param(f32[])",
        "  .layers[1].w: Param(f32[])",
        "  .named['a'].w: Param(f32[])",
        "  .named['b'][0].w: Param(f32[])",
        "  .top.w: Param(f32[])",
        ")",
    ]
    assert repr(px.Module()) == "Module()"


@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
def test_copies_keep_aliases_mode_and_static_values(twin):
    net = Net().train()
    net.act = np.tanh
    net.top.w = net.layers[0].w
    new = twin(net)
    assert new.top.w is new.layers[0].w
    assert new.top.w is not net.top.w
    assert new.is_train
    assert new.layers[1].is_train
    assert (new.n, new.act) == (3, np.tanh)


def test_what_was_compiled_for_a_module_fits_its_deep_copy():
    traces = 0

    @pxf.jit()
    def f(*, m):
        nonlocal traces
        traces += 1
        return m.act(m.top.w)

    net = Net()
    net.wrapped = pxnn.Layer(eqx.nn.Lambda, jax.nn.tanh)
    assert float(f(m=net)) == float(f(m=copy.deepcopy(net))) == 5.0
    assert traces == 1


def test_a_dataclass_can_be_a_module():
    @dataclasses.dataclass(eq=False)
    class Affine(px.Module):
        w: px.Param
        b: float = 1.0

    @pxf.jit()
    def f(x, *, m):
        m.w += 1
        return m.w * x + m.b

    m = Affine(px.Param(jnp.array(2.0)))
    assert float(f(5.0, m=m)) == 16.0
    assert float(m.w) == 3.0


def test_plain_arrays_are_data_but_changes_to_them_stay_inside():
    traces = 0

    @pxf.jit()
    def f(*, m):
        nonlocal traces
        traces += 1
        m.table = m.table + 1
        return jnp.sum(m.table)

    m = px.Module()
    m.table = jnp.ones(3)
    assert float(f(m=m)) == 6.0
    m.table = jnp.zeros(3)
    assert float(f(m=m)) == 3.0
    assert traces == 1
    assert m.table.tolist() == [0.0] * 3


def test_a_mask_tree_is_a_module_that_can_be_edited():
    net = Net()
    mask = jax.tree.map(lambda p: True, net, is_leaf=lambda x: isinstance(x, px.Param))
    mask.layers[1].w = False
    assert isinstance(mask, Net)
    assert jax.tree.leaves(mask.layers) == [True, False]
