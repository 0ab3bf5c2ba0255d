"""What `help` and editors say of an algorithm's arguments: all of them, with their defaults."""

import copy
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.utils as pxu

ALGORITHMS = sorted(
    {v for v in vars(pxa).values() if isinstance(v, type) and issubclass(v, pxa.PC)},
    key=lambda cls: cls.__name__,
)
# back-propagation has no inference, so what concerns it is not used
NOT_USED = {"init", "stop", "T_predict", "record", "lazy", "unroll", "statistics"}


def told(cls):
    """The names in the Args of a class's docstring, in order."""
    args = inspect.getdoc(cls).partition("Args:\n")[2]
    args = re.split(r"^\S", args, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^    (\w+(?:, \w+)*):", args, re.MULTILINE)
    return [name for names in found for name in names.split(", ")]


@pytest.mark.parametrize("cls", ALGORITHMS, ids=lambda cls: cls.__name__)
def test_every_argument_is_told_once_and_nothing_refers_to_another_class(cls):
    names = told(cls)
    expected = set(inspect.signature(cls).parameters)
    if cls is pxa.Backprop:
        expected -= NOT_USED
    assert set(names) == expected
    assert len(names) == len(set(names))
    assert "see `PC`" not in inspect.getdoc(cls)


def test_a_class_of_a_user_is_told_in_the_same_way():
    class Mine(pxa.PC):
        """Mine.

        Args:
            strength: how much.
            model, T, and all other options: see `PC`.

        Raises:
            ValueError: never.
        """

        def __init__(self, *args, strength: float = 1.0, **options):
            super().__init__(*args, **options)

    assert set(told(Mine)) == {"strength", *inspect.signature(pxa.PC).parameters}
    assert inspect.getdoc(Mine).endswith("Raises:\n    ValueError: never.")


def test_the_signature_shows_the_optimisers_that_are_used_without_any():
    for cls in (pxa.PC, pxa.IPC, pxa.NudgedPC, pxa.EPC, pxa.ZIL):
        text = str(inspect.signature(cls))
        assert "= optax.sgd(0.05), " in text
        assert "= optax.adamw(0.001), " in text


@pytest.mark.parametrize("given", [{}, {"state_optim": None, "weight_optim": None}])
def test_the_defaults_are_what_the_signature_says(given):
    def weights(**options):
        px.RKG.seed(0)
        model = pxm.MLP([3, 5, 2], act=jnp.tanh)
        pc = pxa.PC(model, T=3, **options)
        for _ in range(3):
            pc.train_step(jnp.eye(3), jnp.ones((3, 2)))
        return jax.tree.leaves(pxu.M(pxnn.LayerParam)(model))

    explicit = {"state_optim": optax.sgd(0.05), "weight_optim": optax.adamw(0.001)}
    for ours, expected in zip(weights(**given), weights(**explicit), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_no_signature_of_an_algorithm_leaves_the_optimisers_untyped():
    for cls in ALGORITHMS:
        for name, parameter in inspect.signature(cls).parameters.items():
            if name in ("model", "state_optim", "weight_optim", "compute_dtype"):
                assert parameter.annotation not in (parameter.empty, Any), (cls, name)


@pytest.mark.parametrize("kind", ["Optim", "OptimTree"])
def test_an_optimiser_that_another_model_has_used_is_refused(kind):
    def make():
        if kind == "Optim":
            return pxu.Optim(optax.adam(1e-2))
        return pxu.OptimTree(optax.adam(1e-2), lambda node: isinstance(node, pxnn.Linear))

    optim, first, second = make(), pxm.MLP([2, 4, 2]), pxm.MLP([2, 4, 2])
    x = jnp.eye(2)
    pxa.PC(first, weight_optim=optim).train_step(x, x)
    with pytest.raises(ValueError, match=r"IPC: weight_optim holds the state of another model"):
        pxa.IPC(second, weight_optim=optim)
    # another algorithm on the same model goes on with the moments, which may well be meant
    pxa.IPC(first, weight_optim=optim)
    # a copy of both knows nothing of params
    pxa.PC(copy.deepcopy(second), weight_optim=copy.deepcopy(optim))
    optim.clear()
    fresh = pxa.PC(second, T=2, weight_optim=optim)
    again = pxa.PC(copy.deepcopy(second), T=2, weight_optim=make())
    for algorithm in (fresh, again):
        algorithm.train_step(x, x)
    ours, theirs = (a.model.layers[0].nn.weight.get() for a in (fresh, again))
    np.testing.assert_array_equal(ours, theirs)
