"""Masks against hand-written selections."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from pcx.core import to_predicate


class A(px.Param):
    pass


class B(px.Param):
    pass


class SubA(A):
    pass


class Marker:
    """Mixed into param classes, without being one."""


class Marked(px.Param, Marker):
    pass


PARAMS = {"a": A(1.0), "b": B(2.0), "sub": SubA(3.0), "marked": Marked(4.0)}
PARAMS["sub"].frozen = True


def selected(mask):
    return {name for name, value in mask(PARAMS).items() if value is not None}


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (A, {"a", "sub"}),
        (SubA, {"sub"}),
        (px.Param, {"a", "b", "sub", "marked"}),
        (object, {"a", "b", "sub", "marked"}),
        (Marker, {"marked"}),
        (A | B, {"a", "b", "sub"}),
        (typing.Union[A, B], {"a", "b", "sub"}),  # noqa: UP007
        ((SubA, B), {"b", "sub"}),
        (lambda p: float(p) > 2.5, {"sub", "marked"}),
        (pxu.M(A), {"a", "sub"}),
        (px.ParamCache, set()),
        (px.StaticParam, set()),
        (None, {"a", "b", "sub", "marked"}),
    ],
)
def test_a_filter_selects_what_it_says(filter, expected):
    assert selected(pxu.M(filter)) == expected
    assert selected(pxu.Mask(filter)) == expected
    assert selected(pxu.m(filter)) == expected
    assert selected(pxu.M_is(filter)) == expected


ALL = {"a", "b", "sub", "marked"}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (~pxu.M(A), ALL - {"a", "sub"}),
        (pxu.M(A) & ~pxu.M(SubA), {"a"}),
        (pxu.M(SubA) | pxu.M(B), {"sub", "b"}),
        (pxu.M(SubA) | B, {"sub", "b"}),
        (B | pxu.M(SubA), {"sub", "b"}),
        (pxu.M(px.Param) & A, {"a", "sub"}),
        (A & pxu.M(px.Param), {"a", "sub"}),
        (~~pxu.M(A), {"a", "sub"}),
        (~(pxu.M(A) | pxu.M(B)), {"marked"}),
        (pxu.M(A).has(frozen=True), {"sub"}),
        (pxu.M(A).hasnot(frozen=True), {"a"}),
        (pxu.M(A).has_not(frozen=True), {"a"}),
        (pxu.M_has(A, frozen=True), {"sub"}),
        (pxu.M_hasnot(px.Param, frozen=True), {"a", "b", "marked"}),
        (pxu.M(A).has(frozen=False), set()),
        (~pxu.M(A).has(frozen=True), {"a", "b", "marked"}),
        (pxu.M(A).has(frozen=True) | B, {"sub", "b"}),
        (pxu.M(A).has(), {"a", "sub"}),
        (pxu.M(A).hasnot(), {"a", "sub"}),
        (pxu.M_hasnot(A), {"a", "sub"}),
        (pxu.M_hasnot(None, frozen=True), {"a", "b", "marked"}),
        (pxu.M_has(None, frozen=True), {"sub"}),
        # `has`: all of them; `hasnot`: none of them
        (pxu.M(A).has(frozen=True, other=1), set()),
        (pxu.M(A).hasnot(frozen=True, other=1), {"a"}),
        (~pxu.M(None), set()),
        (pxu.M(None) & B, {"b"}),
        (pxu.M_is(A, SubA), {"sub"}),
        (pxu.M_is(A, pxu.M(px.Param).hasnot(frozen=True), lambda p: float(p) < 2), {"a"}),
        (pxu.M_is(A, B), set()),
        (pxu.M_is(), ALL),
    ],
)
def test_masks_combine(mask, expected):
    assert selected(mask) == expected


def test_a_mask_without_values_keeps_the_params_and_puts_none_elsewhere():
    tree = {"a": PARAMS["a"], "n": 3, "x": jnp.ones(2), "f": jax.nn.relu}
    out = pxu.M(A)(tree)
    assert out["a"] is PARAMS["a"]
    assert (out["n"], out["x"], out["f"]) == (None, None, None)


def test_a_mask_maps_to_its_values():
    tree = [PARAMS["a"], PARAMS["b"], 3]
    assert pxu.M(A).to((None, 0))(tree) == [0, None, None]
    assert pxu.M(A).to([False, True])(tree) == [True, False, False]
    assert pxu.Mask(A, [False, True])(tree) == [True, False, False]
    assert pxu.Mask(A, map_to=("no", "yes"))(tree) == ["yes", "no", "no"]


def test_a_mask_can_be_asked_about_one_param():
    assert [pxu.M(A).apply(PARAMS[name]) for name in ("a", "b", "sub")] == [True, False, True]
    assert pxu.M(A).to((None, 0)).apply(PARAMS["a"]) is True
    assert pxu.M(None).apply(jnp.ones(2)) is False


def test_is_pytree_is_accepted_and_changes_nothing():
    tree = [PARAMS["a"], {"deep": PARAMS["b"]}, 3]
    for mask in (pxu.M(A), pxu.M(A).to((False, True))):
        assert mask(tree, is_pytree=True) == mask(tree, is_pytree=False) == mask(tree)


def test_masks_are_immutable():
    mask = pxu.M(A)
    with_values = mask.to((0, 1))
    marked = with_values.has(frozen=True)
    assert mask([PARAMS["a"]]) == [PARAMS["a"]]
    assert with_values([PARAMS["a"]]) == [1]
    assert marked([PARAMS["a"], PARAMS["sub"]]) == [0, 1]
    assert with_values.to((5, 6))([PARAMS["a"]]) == [6]
    assert with_values([PARAMS["a"]]) == [1]


@pytest.mark.parametrize("values", [(1,), (1, 2, 3), 5, None, "ab", {0: 1, 1: 2}])
@pytest.mark.wrong_types
def test_a_mask_maps_to_exactly_two_values(values):
    match = r"a mask maps to two values, \(rejected, selected\)"
    with pytest.raises(ValueError, match=match):
        pxu.M(A).to(values)
    if values is not None:
        with pytest.raises(ValueError, match=match):
            pxu.Mask(A, values)


@pytest.mark.parametrize("bad", [3, "LayerParam", int, [A], A | None, (A, None), np.ones(2)])
def test_a_bad_filter_is_refused_when_the_mask_is_built(bad):
    with pytest.raises(TypeError, match="a mask filter must be a param type"):
        pxu.M(bad)


def test_a_module_type_is_refused_with_what_to_do():
    match = "got the type Linear. Masks look at params, not modules: use the type of the module's"
    with pytest.raises(TypeError, match=match):
        pxu.M(pxnn.Linear)
    with pytest.raises(TypeError, match="a mask filter must be"):
        pxu.M(pxnn.Linear(2, 2))


def test_negation_never_selects_alias_bookkeeping():
    shared = A(1.0)
    tree = px.tree_ref([shared, shared, B(2.0)])
    out = (~pxu.M(B))(tree)
    assert isinstance(out[0], A)
    assert not isinstance(out[1], px.DynamicParam)
    assert out[2] is None
    assert [pxu.M(object).select(x) for x in (tree[1], px.static(3), 5, None)] == [False] * 4


def test_marks_are_looked_up_on_the_param_not_on_its_array():
    param = A(jnp.ones((2, 3)))
    assert not pxu.M(A).has(shape=(2, 3)).select(param)
    param.shape_wanted = (2, 3)
    assert pxu.M(A).has(shape_wanted=(2, 3)).select(param)


def test_a_mark_may_be_a_class_attribute():
    class Frozen(A):
        frozen = True

    assert pxu.M(A).has(frozen=True).select(Frozen(1.0))


def test_a_mask_prints_what_it_selects():
    assert repr(pxu.M(A)) == "M(A)"
    assert repr(~pxu.M(A).has(frozen=True)) == "M(~A.has(frozen=True))"
    assert repr((pxu.M(A) | B).to((0, 1))) == "M((A | B)).to((0, 1))"


def test_modules_are_accepted_where_nodes_are_visited():
    accept = to_predicate(pxnn.Linear, nodes=True)
    assert accept(pxnn.Linear(2, 2))
    assert not accept(PARAMS["a"])


def test_the_masks_of_the_papers_scripts():
    vode = pxc.Vode((2,))
    vode.h.frozen = True
    layer = pxnn.Linear(2, 2)
    model = {"vode": vode, "layer": layer}
    free = pxu.m(pxc.VodeParam).has_not(frozen=True)
    weights = pxu.M(pxnn.LayerParam).to([False, True])
    assert free(model)["vode"].h is None
    assert weights(model)["layer"].nn.weight is True
    assert weights(model)["vode"].h is False
    axes = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))(model)
    assert (axes["vode"].h, axes["vode"].cache, axes["layer"].nn.weight) == (0, 0, None)
