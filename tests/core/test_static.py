"""Static values: part of the structure, not of the data."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
from pcx.core import freeze


def test_static_is_idempotent():
    value = px.static(3)
    assert px.static(value) is value
    assert value.get() == 3


def test_calls_and_containers_go_through():
    assert px.static(lambda x, y: x - y)(5, y=2) == 3
    names = px.static(["a", "b"])
    assert (names[1], len(names), list(names), "a" in names) == ("b", 2, ["a", "b"], True)
    assert px.static({"k": 1})["k"] == 1
    assert px.static("relu").upper() == "RELU"
    assert bool(px.static(0)) is False


def test_equality_is_that_of_the_values():
    assert px.static(3) == 3
    assert px.static(3) == px.static(3)
    assert px.static(3) != 4
    assert hash(px.static("x")) == hash("x")
    assert {px.static(3): 1}[3] == 1


def test_it_has_no_leaves_and_survives_a_tree_map():
    value = px.static(jax.nn.relu)
    assert jax.tree.leaves(value) == []
    again = jax.tree.map(lambda x: x, [value])[0]
    assert again.get() is jax.nn.relu


def test_marks_survive_and_are_compared():
    value = px.static(3)
    value.role = "size"
    assert jax.tree.map(lambda x: x, value).role == "size"
    assert jax.tree.structure(value) != jax.tree.structure(px.static(3))


def test_a_missing_private_attribute_is_missing():
    with pytest.raises(AttributeError, match="'StaticParam' object has no attribute '_x'"):
        _ = px.static(3)._x


def test_it_prints_and_pickles():
    assert repr(px.static("relu")) == "static('relu')"
    assert pickle.loads(pickle.dumps(px.static("relu"))) == "relu"


def recompiles(change, value):
    """Whether a jitted function with `value` among its arguments traces again after `change`."""
    traces = 0

    @pxf.jit()
    def f(*, model):
        nonlocal traces
        traces += 1

    model = px.Module()
    model.value = px.static(value)
    f(model=model)
    f(model=model)
    assert traces == 1
    new = change(value)
    if new is not None:
        model.value.set(new)
    f(model=model)
    return traces == 2


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: list


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1, 2], lambda x: x.append(3)),
        ([1, [2]], lambda x: x[1].append(3)),
        ({"a": 1}, lambda x: x.update(a=2)),
        ({"a": [1]}, lambda x: x["a"].append(2)),
        ({1, 2}, lambda x: x.add(3)),
        (bytearray(b"a"), lambda x: x.extend(b"b")),
        (np.ones(2), lambda x: x.__setitem__(0, 5)),
        (1, lambda x: 1.0),
        (1, lambda x: True),
        (0.0, lambda x: -0.0),
        (1.0, lambda x: np.float32(1.0)),
        (np.float32(1), lambda x: np.int32(1)),
        (2, lambda x: 2 + 0j),
        ((1, 2), lambda x: (1, 2.0)),
        ((1, 2), lambda x: [1, 2]),
        (np.ones(2, np.float32), lambda x: np.ones(2, np.float64)),
        ("relu", lambda x: "tanh"),
        (jax.nn.relu, lambda x: jax.nn.tanh),
        (jnp.ones(2), lambda x: jnp.ones(2)),
        (Config([1]), lambda x: Config([2])),
    ],
)
def test_a_change_of_a_static_value_recompiles(value, change):
    assert recompiles(change, value)


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1, 2], lambda x: [1, 2]),
        ({"a": [1]}, lambda x: {"a": [1]}),
        (float("nan"), lambda x: float("nan")),
        (10**20, lambda x: 10**20),
        ("ab" * 3, lambda x: "ababab"),
        (np.arange(3), lambda x: np.arange(3)),
        ((1, (2, "x")), lambda x: (1, (2, "x"))),
    ],
)
def test_an_equal_static_value_does_not_recompile(value, change):
    assert not recompiles(change, value)


def test_what_freeze_gives_is_hashable():
    for value in (1, [1, {2: [3]}], {1: {2}}, np.ones(2), Config([1]), jnp.ones(1), object()):
        hash(freeze(value))


@dataclasses.dataclass(frozen=True)
class FrozenConfig:
    name: str
    table: dict = dataclasses.field(default_factory=dict)


def test_a_frozen_dataclass_is_walked_once_and_not_at_every_trace():
    held = px.static(FrozenConfig("a", None))
    assert held._structure() is held._structure()


def test_a_dictionary_in_a_frozen_dataclass_is_still_compared_by_content():
    config = FrozenConfig("a", {"n": 1})
    model = px.Module()
    model.config, model.p = px.static(config), px.Param(jnp.ones(()))
    traced = []

    @pxf.jit()
    def times_n(*, model):
        traced.append(1)
        return model.p * model.config.get().table["n"]

    assert float(times_n(model=model)) == 1
    config.table["n"] = 5
    assert float(times_n(model=model)) == 5
    model.config.set(dataclasses.replace(config, name="b"))
    assert float(times_n(model=model)) == 5
    assert len(traced) == 3
