"""Why a function was compiled again: what was changed on purpose is what is named."""

import logging
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn


@pytest.fixture
def said(caplog):
    """What was said since the last time."""
    caplog.set_level(logging.WARNING, logger="pcx")
    pxf.explain_recompiles()

    def read():
        messages = [record.getMessage() for record in caplog.records if record.name == "pcx"]
        caplog.clear()
        return "\n".join(messages)

    yield read
    pxf.explain_recompiles(False)


class Net(px.Module):
    def __init__(self):
        self.layers = [pxnn.Linear(3, 3, bias=False) for _ in range(2)]
        self.power, self.act = 1, jnp.tanh
        self.cache = px.Param(None)

    def __call__(self, x):
        for layer in self.layers:
            x = self.act(layer(x))
        return x**self.power


def change_a_number(net):
    net.power = 2


def change_a_function(net):
    net.act = jnp.sin


def freeze(net):
    net.layers[1].nn.weight.frozen = True


def fill(net):
    net.cache.set(jnp.ones(2))


def share(net):
    net.layers[1] = net.layers[0]


def add(net):
    net.more = px.Param(jnp.ones(1))


def train(net):
    net.train()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_a_number, "`model.power` was 1, now 2"),
        (change_a_function, "`model.act` was"),
        (freeze, "`model.layers[1].nn.weight.frozen` is new: True"),
        (fill, "`model.cache` was Param(None), now Param(...)"),
        (share, "`model.layers[1].nn.weight` was LayerParam(...), now the same param as "
                "`model.layers[0].nn.weight`"),
        (add, "`model.more` is new: Param(...)"),
        (train, "`model._mode` was None, now 'train'"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_a_change_of_structure_is_named(change, named, said):
    net = Net()
    forward = pxf.jit()(lambda x, *, model: model(x))
    forward(jnp.ones(3), model=net)
    assert said() == ""
    change(net)
    forward(jnp.ones(3), model=net)
    message = said()
    assert "compiles again" in message
    assert named in message
    if change is not train:  # which is told for each module
        assert message.count("\n") == 1
    forward(jnp.ones(3), model=net)
    assert said() == ""


def test_the_nearest_earlier_call_is_the_one_compared(said):
    net = Net()
    forward = pxf.jit()(lambda x, *, model: model(x))
    for power, act in ((1, jnp.tanh), (1, jnp.sin), (2, jnp.sin)):
        net.power, net.act = power, act
        forward(jnp.ones(3), model=net)
    last = said().split("pcx: ")[-1]
    assert "`model.power` was 1, now 2" in last
    assert "model.act" not in last


def test_a_change_of_shape_or_type_is_named(said):
    scale = px.Param(jnp.ones(()))
    f = pxf.jit(static_argnums=1)(lambda x, n, *, scale: jnp.sum(x["a"]) * n * scale)
    f({"a": jnp.ones((4, 2))}, 2, scale=scale)
    assert said() == ""
    f({"a": jnp.ones((3, 2))}, 2, scale=scale)
    assert "`argument 0['a']` was f32[4,2], now f32[3,2]" in said()
    f({"a": jnp.ones((3, 2))}, 5, scale=scale)
    assert "`argument 1` was 2, now 5" in said()
    scale.set(jnp.ones((), jnp.bfloat16))
    f({"a": jnp.ones((3, 2))}, 5, scale=scale)
    assert "`scale` was f32[], now bf16[]" in said()
    f({"a": jnp.ones((3, 2))}, 5, scale=scale)
    assert said() == ""


def test_methods_of_algorithms_are_explained(said):
    pc = pxa.PC(pxm.MLP([2, 3, 2]), T=1)
    for n in (4, 4, 3):
        pc.predict(jnp.ones((n, 2)))
    message = said()
    assert "predict" in message
    assert "`argument 0` was f32[4,2], now f32[3,2]" in message
    pc.T = 2
    pc.predict(jnp.ones((4, 2)))
    assert "`algorithm.T` was 1, now 2" in said()


def test_nothing_is_said_when_it_is_off(said):
    net = Net()
    forward = pxf.jit()(lambda x, *, model: model(x))
    forward(jnp.ones(3), model=net)
    pxf.explain_recompiles(False)
    net.power = 3
    forward(jnp.ones(3), model=net)
    assert said() == ""


def test_an_environment_variable_turns_it_on():
    program = """
import jax.numpy as jnp, pcx as px, pcx.functional as pxf
f = pxf.jit()(lambda x, *, p: p * x)
p = px.Param(jnp.ones(()))
f(jnp.ones(2), p=p); f(jnp.ones(3), p=p)
"""
    env = os.environ | {"PCX_EXPLAIN_RECOMPILES": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert "`argument 0` was f32[2], now f32[3]" in run.stderr, run.stderr
