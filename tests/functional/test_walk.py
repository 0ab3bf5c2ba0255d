"""A remembered walk gives what a fresh walk gives, whatever was changed in between."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
from pcx.functional import _collect


class Node(px.Module):
    pass


class Frozen(eqx.Module):
    items: list


class OtherNode(Node):
    pass


class OtherFrozen(Frozen):
    pass


class OtherParam(px.Param):
    pass


class Settings:
    def __init__(self):
        self.scale, self.sizes = 1, [1]


def make_child(n):
    child = Node()
    child.h = px.Param(None)
    child.n = n
    child.act = jax.nn.relu
    return child


def make():
    root = Node()
    root.w = px.Param(jnp.arange(2.0))
    root.children = [make_child(0), make_child(1)]
    root.table = {"a": px.Param(jnp.ones(3)), "b": 2}
    root.layer = pxnn.Linear(2, 2)
    root.inner = Frozen([px.Param(jnp.zeros(1))])
    root.setting = px.static(3)
    root.state = px.Param((jnp.ones(1), {"count": jnp.zeros(())}))
    root.plain = jnp.ones(2)
    root.many = [px.Param(jnp.ones(1)), px.Param(jnp.ones(2))]
    root.more = [px.Param(jnp.ones(3))]
    root.settings, root.held = Settings(), px.static({"inner": Settings()})
    return root


CHANGES = {
    "set an attribute": lambda r: setattr(r, "new", 5),
    "set the same attribute to another number": lambda r: setattr(
        r.children[0], "n", r.children[0].n + 1000
    ),
    "rename an attribute": lambda r: setattr(
        r, "zz", r.__dict__.pop("zz", r.__dict__.pop("plain", 1))
    ),
    "append to a list": lambda r: r.children.append(make_child(2)),
    "swap list elements": lambda r: r.children.reverse(),
    "add a param deep inside": lambda r: setattr(r.children[-1], "extra", px.Param(jnp.ones(1))),
    "replace a param": lambda r: setattr(r, "w", px.Param(jnp.arange(2.0))),
    "share a param": lambda r: setattr(r.children[0], "h", r.w),
    "change a dict": lambda r: r.table.update(c=px.Param(jnp.ones(1))),
    "change a list inside an equinox module": lambda r: r.inner.items.append(px.Param(jnp.ones(1))),
    "change a static": lambda r: r.setting.set(r.setting.get() + 1),
    "mark a param": lambda r: setattr(r.w, "frozen", not r.w.__dict__.get("frozen", False)),
    "unmark a param": lambda r: r.w.__dict__.pop("frozen", None),
    "move a mark to another param": lambda r: (
        r.w.__dict__.pop("moved", None),
        setattr(r.state, "moved", True),
    ),
    "move it back": lambda r: (
        r.state.__dict__.pop("moved", None),
        setattr(r.w, "moved", True),
    ),
    "mark with a number that equals the mark": lambda r: setattr(r.w, "moved", 1),
    "move the end of a list to the start of the next": lambda r: (
        r.more.insert(0, r.many.pop()) if r.many else r.many.extend(r.more) or r.more.clear()
    ),
    "give a param its first value": lambda r: r.children[0].h.set(jnp.ones(4)),
    "empty a param": lambda r: r.children[0].h.set(None),
    "put a tree into a param": lambda r: r.w.set({"x": jnp.ones(1), "name": "text"}),
    "change the state's structure": lambda r: r.state.set(
        (jnp.ones(1), {"count": 1.0, "more": 2.0})
    ),
    "set a new array": lambda r: r.w.set(jnp.arange(2.0) + 1),
    "replace a plain array": lambda r: setattr(r, "plain", jnp.zeros(2)),
    "train mode": lambda r: r.train(),
    "eval mode": lambda r: r.eval(),
    "edit a config object": lambda r: setattr(r.settings, "scale", r.settings.scale + 1000),
    "edit a list in a config object": lambda r: r.settings.sizes.append(1),
    "edit a config object in a static": lambda r: r.held.get()["inner"].sizes.append(1),
    "replace the class of a module": lambda r: setattr(r.children[0], "__class__", OtherNode),
    "replace the class of an equinox module": lambda r: object.__setattr__(
        r.inner, "__class__", OtherFrozen
    ),
    "replace the class of a param": lambda r: setattr(r.w, "__class__", OtherParam),
    "nothing": lambda r: None,
}


def same(a, b):
    assert a.key == b.key
    assert hash(a.key) == hash(b.key)
    assert len(a.params) == len(b.params)
    assert all(x is y for x, y in zip(a.params, b.params, strict=True))
    assert len(a.values) == len(b.values)
    assert all(x is y for x, y in zip(a.values, b.values, strict=True))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(CHANGES)), max_size=8))
def test_any_sequence_of_changes_is_seen(names):
    root, other = make(), make()
    for name in ["nothing", *names, "nothing"]:
        CHANGES[name](root)
        kwargs = {"model": root, "other": other}
        same(_collect.take_apart(kwargs), _collect.walk(kwargs))


def test_an_unchanged_graph_is_not_walked_again(monkeypatch):
    root = make()
    _collect.take_apart({"model": root})
    root.w.set(jnp.zeros(2))  # a new array in a param is no change of the graph
    monkeypatch.setattr(_collect, "walk", lambda kwargs: pytest.fail("walked again"))
    found = _collect.take_apart({"model": root})
    assert any(v is root.w.get() for v in found.values)


def test_the_names_and_objects_of_the_keyword_arguments_are_part_of_the_memory():
    a, b = make(), make()
    same(_collect.take_apart({"x": a, "y": b}), _collect.walk({"x": a, "y": b}))
    same(_collect.take_apart({"y": a, "x": b}), _collect.walk({"y": a, "x": b}))
    same(_collect.take_apart({"x": a, "y": a}), _collect.walk({"x": a, "y": a}))
    same(_collect.take_apart({"x": a}), _collect.walk({"x": a}))


def test_what_could_change_unseen_is_walked_every_time():
    @jax.tree_util.register_pytree_node_class
    class Box:
        def __init__(self, x):
            self.x = x

        def tree_flatten(self):
            return (self.x,), None

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls(*children)

    root = make()
    root.box = Box(px.Param(jnp.ones(1)))
    root.listed = px.static([1, 2])
    for _ in range(3):
        same(_collect.take_apart({"m": root}), _collect.walk({"m": root}))
        root.box.x = px.Param(jnp.ones(1))
        root.listed.get().append(3)


def test_a_graph_that_changes_at_every_call_stops_being_remembered_and_stays_right():
    root = make()
    for i in range(60):
        root.n = i + 1000
        same(_collect.take_apart({"m": root}), _collect.walk({"m": root}))
    assert len(root._walk) <= _collect.MAX_MEMORIES


def test_memory_keeps_no_arrays_alive():
    root = make()
    f = pxf.jit(donate_params=True)(lambda *, model: (model.w.set(model.w * 2), None)[1])
    for _ in range(3):
        f(model=root)
    kept = root.w.get()
    f(model=root)
    assert kept.tolist() == [0.0, 8.0]  # a copy was donated, since `kept` holds it
    assert root.w.get().tolist() == [0.0, 16.0]


def test_a_copied_or_pickled_module_starts_without_memory():
    import copy
    import pickle

    root = Node()
    root.w = px.Param(jnp.ones(2))
    _collect.take_apart({"m": root})
    for twin in (copy.deepcopy(root), pickle.loads(pickle.dumps(root))):
        assert not hasattr(twin, "_walk")
        same(_collect.take_apart({"m": twin}), _collect.walk({"m": twin}))


def test_calls_with_equal_objects_compare_no_structure_after_the_first(monkeypatch):
    @pxf.jit()
    def double(*, model):
        model.a *= 2

    class Model(px.Module):
        def __init__(self):
            self.a, self.settings = px.Param(jnp.ones(2)), [1, "two", 3.0]

    models = [Model(), Model(), Model()]
    for model in models:
        double(model=model)
    compared = []
    monkeypatch.setattr(_collect.Key, "__eq__", lambda a, b: compared.append(1) or a.form == b.form)
    for model in models:
        double(model=model)
    assert not compared
    assert [float(model.a.sum()) for model in models] == [8.0] * 3
