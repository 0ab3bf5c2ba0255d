"""A dictionary in one param."""

import jax
import jax.numpy as jnp
import pytest

import pcx as px


def test_it_is_used_as_a_dictionary():
    d = px.ParamDict()
    d["u"] = 1
    d["v"] = 2
    assert d["u"] == 1
    assert ("u" in d, "w" in d) == (True, False)
    assert (d.get("v"), d.get("w"), d.get("w", 5)) == (2, None, 5)
    assert d.get() == {"u": 1, "v": 2}
    assert (list(d), len(d)) == (["u", "v"], 2)
    del d["u"]
    assert d.get() == {"v": 2}


@pytest.mark.parametrize("make", [px.ParamDict, lambda: px.ParamDict({"u": 1}).set(None)])
def test_cleared_means_empty(make):
    d = make()
    assert d.get() is None
    assert "u" not in d
    assert d.get("u", 7) == 7
    assert (list(d), len(d)) == ([], 0)
    with pytest.raises(KeyError, match="u"):
        d["u"]
    with pytest.raises(KeyError, match="u"):
        del d["u"]


def test_deleting_the_last_entry_clears_it():
    d = px.ParamDict({"u": 1})
    del d["u"]
    assert d.get() is None


def test_a_missing_key_is_a_key_error():
    with pytest.raises(KeyError, match="w"):
        px.ParamDict({"u": 1})["w"]


@pytest.mark.parametrize("value", [3, jnp.ones(2), [1]])
def test_only_a_dictionary_or_none_can_be_set(value):
    match = r"ParamDict.set takes a dict or None, got \w+; write `d\[key\] = value`"
    with pytest.raises(TypeError, match=match):
        px.ParamDict().set(value)
    with pytest.raises(TypeError, match=match):
        px.ParamDict(value)


def test_writing_an_entry_leaves_dictionaries_taken_out_before_alone():
    d = px.ParamDict({"u": 1})
    before = d.get()
    d["u"] = 2
    assert before == {"u": 1}


def test_its_values_are_leaves():
    d = px.ParamDict({"u": jnp.ones(2), "e": None})
    assert [x.tolist() for x in jax.tree.leaves(d)] == [[1.0, 1.0]]
    assert jax.tree.map(lambda x: x + 1, d)["u"].tolist() == [2.0, 2.0]


def test_a_cache_class_is_selected_by_its_mark():
    class Cache(px.ParamDict, px.ParamCache):
        pass

    assert isinstance(Cache(), px.ParamCache)
