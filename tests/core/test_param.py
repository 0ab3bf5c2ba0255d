"""Params as cells: values, metadata, copies, and what JAX sees of them."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px


class Tagged(px.Param):
    pass


class Holder(px.Module):
    def __init__(self, *params):
        self.params = list(params)


def test_get_and_set_are_those_of_a_cell():
    param = px.Param()
    assert param.get() is None
    value = jnp.ones(2)
    assert param.set(value) is param
    assert param.get() is value


def test_a_param_inside_a_param_is_unwrapped():
    value = jnp.ones(2)
    assert px.Param(px.Param(value)).get() is value
    assert px.Param().set(px.Param(value)).get() is value


def test_get_and_set_work_on_params_and_on_plain_values():
    param, value = px.Param(1), jnp.ones(2)
    assert px.get(param) == 1
    assert px.get(value) is value
    assert px.get(px.static("relu")) == "relu"
    assert px.set(param, px.Param(5)) is param
    assert param.get() == 5
    assert px.set(3, px.Param(value)) is value


def test_any_other_attribute_is_metadata_sorted_by_name():
    param = px.Param(jnp.ones(1))
    param.role, param.frozen = "state", True
    assert param.metadata == (("frozen", True), ("role", "state"))
    assert repr(param) == "Param(f32[1], frozen=True, role='state')"
    del param.frozen
    assert param.metadata == (("role", "state"),)


def test_a_mark_is_part_of_the_structure_that_jax_sees():
    plain, marked = px.Param(jnp.ones(1)), px.Param(jnp.ones(1))
    marked.frozen = True
    assert jax.tree.structure(plain) != jax.tree.structure(marked)
    again = jax.tree.map(lambda x: x + 1, marked)
    assert type(again) is px.Param
    assert again.frozen is True
    assert float(again[0]) == 2.0


def test_the_class_is_part_of_the_structure_that_jax_sees():
    again = jax.tree.map(lambda x: x + 1, Tagged(jnp.ones(1)))
    assert type(again) is Tagged
    assert jax.tree.structure(again) != jax.tree.structure(px.Param(jnp.ones(1)))


def test_a_param_may_hold_any_pytree():
    param = px.Param({"a": jnp.ones(1), "b": (2.0, None)})
    assert jax.tree.leaves(param) == [jnp.ones(1), 2.0]
    doubled = jax.tree.map(lambda x: 2 * x, param).get()
    assert float(doubled["a"][0]) == 2.0
    assert doubled["b"] == (4.0, None)


@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_keeps_values_marks_and_aliases_and_shares_nothing(twin):
    shared, own = Tagged(jnp.arange(3.0)), px.Param({"a": jnp.ones(1)})
    shared.frozen = True
    original = Holder(shared, own, shared)
    new = twin(original)
    assert new.params[0] is new.params[2]
    assert new.params[0] is not shared
    assert type(new.params[0]) is Tagged
    assert new.params[0].frozen is True
    np.testing.assert_array_equal(new.params[0].get(), shared.get())
    new.params[0].set(jnp.zeros(3))
    new.params[1].get()["a"] = 0
    assert shared.get().tolist() == [0.0, 1.0, 2.0]
    assert own.get()["a"].tolist() == [1.0]


def test_a_shallow_copy_is_another_cell_with_the_same_value():
    param = px.Param(jnp.ones(2))
    param.frozen = True
    new = copy.copy(param)
    assert new is not param
    assert new.get() is param.get()
    assert new.frozen is True
    del new.frozen
    assert param.frozen is True


def test_a_nested_param_class_can_be_pickled():
    import pcx.predictive_coding as pxc

    cache = pxc.VodeParam.Cache({"u": jnp.ones(1)})
    again = pickle.loads(pickle.dumps(cache))
    assert type(again) is pxc.VodeParam.Cache
    assert again["u"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "Param(None)"),
        (1.5, "Param(1.5)"),
        (np.zeros((2, 3)), "Param(f64[2,3])"),
        (jnp.zeros((2,), jnp.bfloat16), "Param(bf16[2])"),
        (jnp.zeros((), jnp.uint8), "Param(u8[])"),
        ({"a": jnp.zeros(1), "b": 2}, "Param({'a': f32[1], 'b': 2})"),
        ((jnp.zeros(1), [1, 2]), "Param(tuple(f32[1], list(1, 2)))"),
        (list(range(100)), "Param(list(100 items))"),
    ],
)
def test_a_param_prints_the_shape_and_type_of_its_value(value, shown):
    assert repr(px.Param(value)) == shown


def test_types_of_params():
    assert issubclass(px.Param, px.DynamicParam)
    assert issubclass(px.ParamDict, px.DynamicParam)
    assert issubclass(px.DynamicParam, px.BaseParam)
    assert issubclass(px.StaticParam, px.BaseParam)
    assert not issubclass(px.StaticParam, px.DynamicParam)


def test_a_private_attribute_that_is_missing_is_missing():
    with pytest.raises(AttributeError, match="'Param' object has no attribute '_missing'"):
        _ = px.Param(jnp.ones(1))._missing
