"""A static value is another one to a trace when it was edited, and the same when it was not."""

import argparse
import copy
import dataclasses
import enum
import functools
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
from pcx.core import freeze


@dataclasses.dataclass
class Config:
    scale: float = 1.0
    sizes: list = dataclasses.field(default_factory=lambda: [1, 2])


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: float = 1.0
    inner: Config = dataclasses.field(default_factory=Config)


@dataclasses.dataclass(slots=True)
class Slots:
    scale: float = 1.0


class Plain:
    def __init__(self):
        self.scale, self.inner, self.parent = 1.0, {"a": [1.0]}, self

    def double(self, x):
        return 2 * x


class PlainSlots:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


EDITS = [
    (Config(), lambda c: setattr(c, "scale", 3.0)),
    (Config(), lambda c: setattr(c, "scale", 1)),
    (Config(), lambda c: c.sizes.append(3)),
    (Config(), lambda c: setattr(c, "extra", 3)),
    (Frozen(), lambda c: c.inner.sizes.append(3)),
    (Slots(), lambda c: setattr(c, "scale", 3.0)),
    (Plain(), lambda c: setattr(c, "scale", 3.0)),
    (Plain(), lambda c: c.inner["a"].append(3)),
    (Plain(), lambda c: setattr(c, "__class__", type("Plain", (Plain,), {}))),
    (PlainSlots(), lambda c: setattr(c, "scale", 3.0)),
    (types.SimpleNamespace(scale=1.0), lambda c: setattr(c, "scale", 3.0)),
    (argparse.Namespace(scale=1.0), lambda c: setattr(c, "scale", 3.0)),
    ({"a": [Config()]}, lambda c: setattr(c["a"][0], "scale", 3.0)),
    ((Plain(),), lambda c: setattr(c[0], "scale", 3.0)),
    ([1, {2}], lambda c: c[1].add(3)),
    (types.SimpleNamespace(a=np.zeros(2)), lambda c: c.a.fill(1)),
    (functools.partial(max, Config()), lambda c: setattr(c.args[0], "scale", 3.0)),
    (Plain().double, lambda c: setattr(c.__self__, "scale", 3.0)),
]


@pytest.mark.parametrize("wrap", [lambda x: x, px.static], ids=["attribute", "static"])
@pytest.mark.parametrize(("value", "edit"), EDITS)
def test_an_edit_in_place_is_seen_and_compiles_once_more(value, edit, wrap):
    import pcx.functional as pxf

    value = copy.deepcopy(value)
    traces = []
    f = pxf.jit()(lambda *, m: (traces.append(1), m.w * 1.0)[1])
    model = px.Module()
    model.w, model.config = px.Param(jnp.array(2.0)), px.Module()
    model.config.inside = wrap(value)
    before = freeze(value)
    assert before == freeze(value)
    assert hash(before) == hash(freeze(value))
    for _ in range(3):
        f(m=model)
    assert len(traces) == 1
    edit(value)
    assert freeze(value) != before
    for _ in range(3):
        f(m=model)
    assert len(traces) == 2


def test_equal_settings_made_anew_are_equal():
    for make in (Config, Frozen, lambda: {"a": [Config()]}, lambda: types.SimpleNamespace(a=1.0)):
        assert freeze(make()) == freeze(make())
    assert freeze(Config(1)) != freeze(Config(1.0))


def test_what_is_one_thing_is_compared_by_identity():
    class Colour(enum.Enum):
        RED = 1

    array, param = jnp.ones(2), px.Param(1.0)
    for thing in (Colour.RED, Colour, array, param, px.Module(), jax.nn.relu, np, object()):
        assert freeze(thing) == freeze(thing)
    assert freeze(px.Module()) != freeze(px.Module())
    assert freeze(lambda x: x) != freeze(lambda x: x)
    assert freeze(array) != freeze(jnp.ones(2))


def test_what_a_librarys_object_counts_is_no_setting():
    logger = logging.getLogger("pcx.test")
    before = freeze(logger)
    logger.isEnabledFor(10)
    logger.addHandler(logging.NullHandler())
    assert freeze(logger) == before


def test_new_code_in_an_old_function_is_seen():
    import pcx.functional as pxf

    def act(x):
        return x

    def edited(x):
        return 3 * x

    model = px.Module()
    model.act, model.also = act, px.static(act)
    f = pxf.jit()(lambda x, *, m: m.act(x) + m.also(x))
    assert [float(f(1.0, m=model)) for _ in range(2)] == [2.0, 2.0]
    act.__code__ = edited.__code__  # as an editor's reload does
    assert float(f(1.0, m=model)) == 6.0
