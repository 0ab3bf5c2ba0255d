"""Every named layer is the bare equinox layer built with the same key: outputs and gradients."""

import doctest
import importlib
import inspect
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.utils as pxu


class Case(NamedTuple):
    name: str
    args: tuple
    kwargs: dict
    inputs: tuple  # shapes


CASES = [
    Case("Linear", (3, 4), {}, ((3,),)),
    Case("Linear", (3, 4, False), {}, ((3,),)),
    Case("Linear", (3,), {"out_features": 4, "use_bias": False}, ((3,),)),
    Case("Linear", ("scalar", 4), {}, ((),)),
    Case("Conv", (2, 3, 4, 3), {"padding": 1}, ((3, 6, 6),)),
    Case("Conv1d", (3, 4, 3), {"stride": 2}, ((3, 9),)),
    Case("Conv2d", (3, 4), {"kernel_size": (3, 2), "use_bias": False}, ((3, 6, 6),)),
    Case("Conv3d", (2, 3, 2), {}, ((2, 4, 4, 4),)),
    Case("ConvTranspose", (2, 3, 4, 3), {}, ((3, 4, 4),)),
    Case("ConvTranspose1d", (3, 4, 3, 2), {}, ((3, 5),)),
    Case("ConvTranspose2d", (3, 4, 3), {"stride": 2, "output_padding": 1}, ((3, 4, 4),)),
    Case("ConvTranspose3d", (2, 3, 2), {}, ((2, 3, 3, 3),)),
    Case("Pool", (0.0, jax.lax.add, 1, 2), {}, ((3, 6),)),
    Case("MaxPool1d", (2,), {"stride": 2}, ((3, 6),)),
    Case("MaxPool2d", (2, 2), {}, ((3, 6, 6),)),
    Case("MaxPool3d", (2,), {}, ((3, 4, 4, 4),)),
    Case("AvgPool1d", (2,), {}, ((3, 6),)),
    Case("AvgPool2d", (), {"kernel_size": 2, "stride": 2}, ((3, 6, 6),)),
    Case("AvgPool3d", (2,), {}, ((3, 4, 4, 4),)),
    Case("AdaptivePool", ((2, 2), 2, jnp.max), {}, ((3, 6, 6),)),
    Case("AdaptiveAvgPool2d", ((2, 3),), {}, ((3, 6, 6),)),
    Case("AdaptiveMaxPool2d", (2,), {}, ((3, 6, 6),)),
    Case("LayerNorm", (5,), {}, ((5,),)),
    Case("LayerNorm", ((2, 5),), {"use_bias": False}, ((2, 5),)),
    Case("GroupNorm", (2, 4), {}, ((4, 3),)),
    Case("RMSNorm", (5,), {}, ((5,),)),
    Case(
        "Embedding",
        (7, 3),
        {},
        (),
    ),
    Case("MultiheadAttention", (2, 6), {"use_output_bias": True}, ((4, 6), (5, 6), (5, 6))),
    Case("GRUCell", (3, 4), {}, ((3,), (4,))),
    Case("GRUCell", (3, 4), {"use_bias": False}, ((3,), (4,))),
    Case("Identity", (), {}, ((3,),)),
    Case("Lambda", (jnp.sin,), {}, ((3,),)),
    Case("PReLU", (), {}, ((3,),)),
    Case("PReLU", (0.5,), {}, ((3,),)),
]
IDS = [f"{c.name}{i}" for i, c in enumerate(CASES)]


def build(case):
    ours = getattr(pxnn, case.name)(*case.args, rkg=px.RandomKeyGenerator(7), **case.kwargs)
    bare = getattr(eqx.nn, case.name)
    kwargs = dict(case.kwargs)
    if "key" in inspect.signature(bare).parameters:
        kwargs["key"] = px.RandomKeyGenerator(7)()
    return ours, bare(*case.args, **kwargs)


def inputs(case):
    if case.name == "Embedding":
        return (jnp.array(4),)
    keys = jax.random.split(jax.random.PRNGKey(1), len(case.inputs) + 1)
    return tuple(jax.random.normal(k, s) for k, s in zip(keys, case.inputs, strict=False))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_layer_computes_what_the_equinox_layer_with_its_key_computes(case):
    ours, bare = build(case)
    np.testing.assert_array_equal(ours(*inputs(case)), bare(*inputs(case)))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_layer_has_the_gradients_of_the_equinox_layer(case):
    ours, bare = build(case)
    xs = inputs(case)
    weights = jax.tree_util.tree_leaves(eqx.filter(bare, eqx.is_array))
    if not weights:
        assert px.tree_extract(ours) == ()
        return

    def energy(*, layer):
        return jnp.sum(layer(*xs) ** 3)

    value, grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(energy)(layer=ours)
    want_value, want = eqx.filter_value_and_grad(lambda m: jnp.sum(m(*xs) ** 3))(bare)
    np.testing.assert_allclose(value, want_value, rtol=1e-6)
    got = [
        g.get() for g in jax.tree_util.tree_leaves(grads, is_leaf=lambda x: isinstance(x, px.Param))
    ]
    want = jax.tree_util.tree_leaves(eqx.filter(want, eqx.is_array))
    assert len(got) == len(want) == len(weights)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_array_of_a_layer_is_a_layer_param_at_its_equinox_path(case):
    ours, bare = build(case)
    arrays, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(bare, eqx.is_array))
    params, _ = jax.tree_util.tree_flatten_with_path(
        pxu.M(pxnn.LayerParam)(ours.nn), is_leaf=lambda x: isinstance(x, px.Param)
    )
    assert [path for path, _ in params] == [path for path, _ in arrays]
    assert all(type(param) is pxnn.LayerParam for _, param in params)


def test_an_lstm_cell_carries_its_pair_of_states():
    ours = pxnn.LSTMCell(3, 4, rkg=px.RandomKeyGenerator(7))
    bare = eqx.nn.LSTMCell(3, 4, key=px.RandomKeyGenerator(7)())
    state = (jnp.ones(4), jnp.zeros(4))
    for a, b in zip(ours(jnp.ones(3), state), bare(jnp.ones(3), state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_take_their_keys_from_the_default_generator_one_after_the_other():
    px.RKG.seed(3)
    a, b = pxnn.Linear(3, 3), pxnn.Linear(3, 3)
    px.RKG.seed(3)
    keys = [px.RKG(), px.RKG()]
    for ours, key in zip((a, b), keys, strict=True):
        np.testing.assert_array_equal(ours.nn.weight, eqx.nn.Linear(3, 3, key=key).weight)
    assert not bool((a.nn.weight == b.nn.weight).any())


def test_an_explicit_key_is_used():
    key = jax.random.PRNGKey(5)
    np.testing.assert_array_equal(
        pxnn.Linear(3, 2, key=key).nn.weight, eqx.nn.Linear(3, 2, key=key).weight
    )


def test_linear_without_bias_has_a_weight_and_no_bias():
    for layer in (pxnn.Linear(3, 2, bias=False), pxnn.Linear(3, 2, use_bias=False)):
        assert layer.nn.bias is None
        assert isinstance(layer.nn.weight, pxnn.LayerParam)
        assert layer.nn.weight.shape == (2, 3)
    assert pxnn.Linear(3, 2, bias=True).nn.bias.shape == (2,)


def test_bias_under_both_of_its_names_is_refused():
    with pytest.raises(TypeError, match=r"Linear: 'bias' and 'use_bias' are one argument"):
        pxnn.Linear(3, 2, bias=True, use_bias=False)


def test_a_wrong_constructor_argument_is_refused_by_equinox():
    with pytest.raises(TypeError, match="colour"):
        pxnn.Linear(3, 2, colour="red")


NAMED = [
    cls
    for cls in vars(pxnn).values()
    if isinstance(cls, type) and issubclass(cls, pxnn.NamedLayer) and cls is not pxnn.NamedLayer
]


@pytest.mark.parametrize("cls", [*NAMED, pxnn.BatchNorm], ids=lambda cls: cls.__name__)
def test_the_signature_is_that_of_equinox_with_rkg_for_key(cls):
    theirs = inspect.signature(getattr(eqx.nn, cls.__name__)).parameters
    want = ["bias" if n == "use_bias" and cls is pxnn.Linear else n for n in theirs]
    want = [n for n in want if n not in ("key", "kwargs")]
    got = inspect.signature(cls).parameters
    assert list(got) == [*want, "rkg"]
    for name in want:
        if (cls, name) == (pxnn.BatchNorm, "mode"):
            continue  # ours is "batch"
        assert got[name].default == theirs["use_bias" if name == "bias" else name].default
    assert f"equinox.nn.{cls.__name__}" in cls.__doc__
    assert cls.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("cls", [*NAMED, pxnn.BatchNorm], ids=lambda cls: cls.__name__)
def test_every_layer_has_an_example_that_doctest_finds(cls):
    module = importlib.import_module(cls.__module__)
    # as `--doctest-modules` does: what the module defines, with the docstring of run time
    found = {test.name: test for test in doctest.DocTestFinder().find(module)}
    examples = found[f"{cls.__module__}.{cls.__name__}"].examples
    assert any(f"pxnn.{cls.__name__}(" in example.source for example in examples)


def test_the_contract_s_layers_are_all_there():
    names = """Linear Conv Conv1d Conv2d Conv3d ConvTranspose ConvTranspose1d ConvTranspose2d
    ConvTranspose3d Pool MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d AdaptivePool
    AdaptiveAvgPool2d AdaptiveMaxPool2d Dropout LayerNorm GroupNorm RMSNorm BatchNorm Embedding
    MultiheadAttention GRUCell LSTMCell Identity Lambda PReLU Sequential"""
    assert [n for n in names.split() if not hasattr(pxnn, n)] == []


def test_the_signature_of_batch_norm_says_the_default_that_holds():
    assert inspect.signature(pxnn.BatchNorm).parameters["mode"].default == "batch"
    assert pxnn.BatchNorm(2, axis_name="batch").nn.mode == "batch"
