"""Random object graphs with shared params go through every stage and come back as they were."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcx as px
import pcx.functional as pxf
from pcx.core import named_params
from pcx.functional._tracked import collect

# beartype (`make test-typed`) looks at random items of containers while a strategy builds modules
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")


class State(px.Param):
    pass


class Node(px.Module):
    pass


class Pair(px.Module):
    def __init__(self, left, right):
        self.left, self.right = left, right


VALUES = [
    None,
    1.5,
    2,
    np.arange(2.0, dtype=np.float32),
    {"a": 1.0, "b": None, "c": "text"},
    (0.5, [1.0]),
    "text",
    [],
]
STATICS = st.sampled_from([None, "text", 3, True, 2.5, jnp.sin, px.static(("a", 1))])


@st.composite
def graphs(draw):
    """A tree of modules, lists, tuples and dicts over a pool of params that may be used twice."""
    pool = []
    for _ in range(draw(st.integers(1, 5))):
        param = draw(st.sampled_from([px.Param, State]))(draw(st.sampled_from(VALUES)))
        if draw(st.booleans()):
            param.frozen = draw(st.sampled_from([True, 1, "yes"]))
        pool.append(param)
    leaves = st.one_of(st.sampled_from(pool), STATICS, st.just(np.ones(2, np.float32)))

    def node(children):
        out = Node()
        for name, child in children.items():
            setattr(out, name, child)
        return out

    names = st.sampled_from("abc")
    tree = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(names, inner, max_size=3),
            st.dictionaries(names, inner, max_size=3).map(node),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=12,
    )
    return {"x": draw(tree), "y": draw(tree)}


def shape_of(tree):
    """Everything about a graph but identities: structure, classes, values, marks, and aliases."""
    seen = {}

    def one(leaf):
        if isinstance(leaf, px.DynamicParam):
            known = id(leaf) in seen
            number = seen.setdefault(id(leaf), len(seen))
            return (number,) if known else (number, type(leaf), plain(leaf.get()), leaf.metadata)
        return plain(leaf)

    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, px.DynamicParam))
    return treedef, [one(leaf) for leaf in leaves]


def plain(value):
    leaves, treedef = jax.tree.flatten(value)
    return treedef, [np.asarray(x).tolist() if hasattr(x, "dtype") else x for x in leaves]


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_taking_apart_and_rebuilding_gives_the_same_graph(graph):
    structure, params, values = collect(graph)
    again, new = structure.rebuild(values)
    assert shape_of(again) == shape_of(graph)
    assert len(new) == len(params) == len(list(named_params(graph))) + 1
    assert not {id(p) for p in new} & {id(p) for p in params}
    # and once more, from the copy
    assert shape_of(collect(again)[0].rebuild(values)[0]) == shape_of(graph)


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_names_are_those_of_the_first_paths(graph):
    structure, params, _ = collect(graph)
    names = [structure.name_of(i) for i in range(1, len(params))]
    for name, param in zip(names, params[1:], strict=True):
        assert eval(name, {}, graph) is param
    assert len(set(names)) == len(names)
    assert [p for _, p in named_params(graph)] == params[1:] or all(
        a is b for (_, a), b in zip(named_params(graph), params[1:], strict=True)
    )


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_references_are_undone(graph):
    refs = px.tree_ref(graph)
    assert len(list(named_params(refs))) == len(list(named_params(graph)))
    assert shape_of(px.tree_unref(refs)) == shape_of(graph)


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_copies_and_pickles_keep_the_graph(graph):
    # in a module, since `copy` itself takes JAX's functions for objects to copy
    held = Pair(graph["x"], graph["y"])
    assert shape_of(copy.deepcopy(held)) == shape_of(held)
    text = pickle.dumps([p for _, p in named_params(graph)])
    assert shape_of(pickle.loads(text)) == shape_of([p for _, p in named_params(graph)])


def doubled(value):
    number = lambda x: not isinstance(x, str) and not callable(x)
    return jax.tree.map(lambda x: np.asarray(x) * 2 if number(x) else x, value)


def expected(graph, calls):
    """The values of all params after `calls` doublings, each param once."""
    values = [p.get() for _, p in named_params(graph)]
    for _ in range(calls):
        values = [doubled(v) for v in values]
    return [plain(v) for v in values]


def double(*, graph):
    for _, param in named_params(graph):
        value = param.get()
        param.set(jax.tree.map(lambda x: x if isinstance(x, str) else jnp.asarray(x) * 2, value))


@settings(max_examples=40, deadline=None)
@given(graphs(), st.booleans())
def test_changes_reach_each_param_once(graph, donate):
    # numbers become arrays at the first call
    double(graph=graph)
    want = expected(graph, 2)
    ids = [id(p) for _, p in named_params(graph)]
    f = pxf.jit(donate_params=donate)(double)
    f(graph=graph)
    pxf.scan(lambda _, *, graph: ((), double(graph=graph)), length=1)(graph=graph)
    assert [plain(p.get()) for _, p in named_params(graph)] == want
    assert [id(p) for _, p in named_params(graph)] == ids
