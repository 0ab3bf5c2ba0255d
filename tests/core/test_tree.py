"""Functions on trees of params."""

import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import pcx as px
import pcx.nn as pxnn
from pcx.core import describe, kwargs_path_str, named_params, path_str


class A(px.Param):
    pass


class Pair(px.Module):
    def __init__(self, first, second):
        self.first, self.second = first, second


def tree():
    shared = A(jnp.array(1.0))
    return {"x": [shared, px.Param(jnp.array(2.0))], "y": Pair(shared, A(jnp.array(3.0)))}


def test_named_params_gives_each_param_at_its_first_path():
    t = tree()
    names, params = zip(*named_params(t), strict=True)
    assert names == ("['x'][0]", "['x'][1]", "['y'].second")
    assert [id(p) for p in params] == [id(t["x"][0]), id(t["x"][1]), id(t["y"].second)]


def test_paths_read_as_they_are_written_in_code():
    model = Pair([pxnn.Linear(2, 2)], {"a": px.Param((jnp.ones(1), jnp.ones(1)))})
    paths = [p for p, _ in jax.tree_util.tree_flatten_with_path(model)[0]]
    names = [path_str(p) for p in paths]
    assert "first[0].nn.weight" in names
    assert "second['a'][1]" in names
    kwargs = [p for p, _ in jax.tree_util.tree_flatten_with_path({"model": model})[0]]
    assert "model.first[0].nn.weight" in map(kwargs_path_str, kwargs)


def test_tree_apply_visits_every_accepted_node_once():
    t = tree()
    seen = []
    px.tree_apply(seen.append, A, t)
    assert [id(p) for p in seen] == [id(t["x"][0]), id(t["y"].second)]
    seen.clear()
    px.tree_apply(seen.append, Pair, t)
    assert seen == [t["y"]]
    seen.clear()
    px.tree_apply(seen.append, lambda n: True, t)
    assert {id(n) for n in seen} == {id(t["x"][0]), id(t["x"][1]), id(t["y"]), id(t["y"].second)}


def test_tree_apply_can_stop_at_accepted_nodes():
    inner = Pair(A(1), A(2))
    outer = Pair(inner, A(3))
    seen = []
    px.tree_apply(seen.append, Pair, outer, recursive=False)
    assert seen == [outer]
    seen.clear()
    px.tree_apply(seen.append, lambda n: isinstance(n, A), [outer], recursive=False)
    assert [p.get() for p in seen] == [1, 2, 3]


def test_tree_apply_survives_a_cycle():
    a = Pair(px.Param(1), None)
    a.second = a
    seen = []
    px.tree_apply(seen.append, Pair, a)
    assert seen == [a]


def test_tree_ref_and_unref_are_inverse_and_keep_aliases():
    t = tree()
    flat = px.tree_ref(t)
    assert len(list(named_params(flat))) == 3
    assert not isinstance(flat["y"].first, px.DynamicParam)
    back = px.tree_unref(flat)
    assert back["y"].first is back["x"][0]
    assert back["y"].second is t["y"].second
    assert isinstance(back["y"], Pair)


def test_tree_extract_gives_values_in_tree_order_shared_ones_once():
    t = tree()
    assert [float(x) for x in px.tree_extract(t)] == [1.0, 2.0, 3.0]
    assert [float(x) for x in px.tree_extract(t, A)] == [1.0, 3.0]
    assert px.tree_extract(t, A, lambda p: type(p).__name__) == ("A", "A")


def test_tree_inject_is_the_inverse_of_tree_extract():
    t = tree()
    assert px.tree_inject(t, (10.0, 20.0, 30.0)) is t
    assert px.tree_extract(t) == (10.0, 20.0, 30.0)
    assert t["y"].first.get() == 10.0
    px.tree_inject(t, [px.Param(7.0), 8.0], filter_fn=A)
    assert px.tree_extract(t) == (7.0, 20.0, 8.0)
    px.tree_inject(t, params=[px.Param(1.0), px.Param(2.0), px.Param(3.0)])
    assert px.tree_extract(t) == (1.0, 2.0, 3.0)
    px.tree_inject(t, [5.0, 6.0, 7.0], inject_fn=lambda p, v: p.set(p.get() + v))
    assert px.tree_extract(t) == (6.0, 8.0, 10.0)


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0, 3.0, 4.0)])
@pytest.mark.parametrize("how", ["values", "params"])
def test_a_wrong_number_of_values_is_refused_before_anything_is_written(values, how):
    t = tree()
    given = {how: [px.Param(v) for v in values] if how == "params" else values}
    match = rf"tree_inject got {len(values)} values for 3 params \(\['x'\]\[0\], .*nothing was"
    with pytest.raises(ValueError, match=match):
        px.tree_inject(t, **given)
    assert px.tree_extract(t) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(("number", "end"), [(8, "[7])"), (9, "[7], ...)")])
def test_eight_paths_are_shown_at_most(number, end):
    with pytest.raises(ValueError, match="tree_inject got 0 values") as error:
        px.tree_inject([px.Param(0.0) for _ in range(number)], [])
    assert f"[6], {end}" in str(error.value)


def test_values_and_params_exclude_each_other():
    match = "takes either `values` or `params`, exactly one of them"
    with pytest.raises(ValueError, match=match):
        px.tree_inject(tree(), [1, 2, 3], params=[])
    with pytest.raises(ValueError, match=match):
        px.tree_inject(tree())


@pytest.mark.parametrize("value", [SimpleNamespace(shape=(2,)), SimpleNamespace(dtype="int32")])
def test_what_has_a_shape_alone_or_a_type_alone_is_no_array(value):
    assert describe(value) == repr(value)


def test_the_signature_of_a_class_is_that_of_its_init():
    class Own(px.Module):
        def __init__(self, width, *, depth=2):
            self.width, self.depth = width, depth

        def __call__(self, x):
            return x

    class Inherits(Own):
        pass

    class Any(Own):
        def __init__(*args, **options):
            Own.__init__(*args, **options)

    # the attribute, as not every `inspect` would find the `__init__` without it
    assert [*map(str, (Own.__signature__, Inherits.__signature__, Any.__signature__))] == [
        "(width, *, depth=2)",
        "(width, *, depth=2)",
        "(*args, **options)",
    ]
    assert str(inspect.signature(Inherits(1))) == "(x)"
