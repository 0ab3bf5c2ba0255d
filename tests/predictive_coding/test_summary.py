"""The graph of a model's nodes, as it is known by construction; `EnergyModule.summary`."""

import jax
import jax.numpy as jnp

import pcx as px
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from pcx.core import named_params
from pcx.predictive_coding._graph import nodes


class Skips(pxc.EnergyModule):
    """u_2 = W_2 h_1, u_3 = W_3 h_2 + h_1, u_4 = W_1 h_3 + x: one layer is used twice."""

    def __init__(self):
        self.layers = [pxnn.Linear(4, 4) for _ in range(3)]
        self.vodes = [pxc.Vode((4,)) for _ in range(3)] + [pxc.Vode((4,), pxc.ce_energy)]
        self.vodes[3].h.frozen = True

    def __call__(self, x, y=None):
        h1 = self.vodes[0](self.layers[0](x))
        h2 = self.vodes[1](self.layers[1](h1))
        h3 = self.vodes[2](self.layers[2](h2) + h1)
        u = self.vodes[3](self.layers[0](h3) + x)
        if y is not None:
            self.vodes[3].set("h", y)
        return u


X = jax.ShapeDtypeStruct((4,), jnp.float32)


def test_the_graph_of_a_model_with_skips():
    found = nodes(Skips(), X)
    assert [node.name for node in found] == [f"vodes[{k}]" for k in range(4)]
    assert [node.inputs for node in found] == [
        ("x",),
        ("vodes[0]",),
        ("vodes[0]", "vodes[1]"),
        ("x", "vodes[2]"),
    ]
    assert [node.layers for node in found] == [
        ("layers[0]",), ("layers[1]",), ("layers[2]",), ("layers[0]",)
    ]  # fmt: skip
    assert [node.frozen for node in found] == [False, False, False, True]
    assert found[3].energy == "ce_energy"
    assert found[3].shape == (4,)


def test_predictions_may_go_down_and_a_stack_feeds_itself():
    found = nodes(pxm.Hierarchy([8, 6, 4], 3), jax.ShapeDtypeStruct((8,), jnp.float32))
    assert [node.inputs for node in found] == [("vodes[1]",), ("vodes[2]",), (), ("vodes[2]",)]
    assert found[3].shape is None  # no label, no state

    class Deep(pxc.EnergyModule):
        def __init__(self):
            self.stack = pxc.Stack(lambda: pxnn.Linear(4, 4), 3, shape=(4,))

        def __call__(self, x, y=None):
            return self.stack(x)

    (node,) = nodes(Deep(), X)
    assert (node.name, node.shape, node.inputs) == ("stack.vode", (3, 4), ("x", "stack.vode"))


def test_the_table_counts_params_and_marks_what_is_frozen():
    model = Skips()
    for param in (model.layers[1].nn.weight, model.layers[1].nn.bias):
        param.frozen = True
    lines = model.summary(X).splitlines()
    assert lines[0] == "Skips: 4 nodes, 60 params (20 frozen)"  # 3 (4 x 4 + 4); the shared one once
    assert "vodes[3] *" in lines[6]
    assert lines[6].split()[-2:] == ["20", "ce_energy"]
    assert "layers[1] (frozen)" in lines[4]


def test_nothing_in_the_model_changes():
    model = Skips()
    with px.utils.step(model, "init"):
        model(jnp.ones(4))
    model.status = "mine"
    before = {path: param.get() for path, param in named_params(model)}
    key = px.RKG.key.get()
    model.summary(X)
    assert all(param.get() is before[path] for path, param in named_params(model))
    assert model.status == "mine"
    assert px.RKG.key.get() is key


def test_dropout_and_batch_statistics_can_be_traced():
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.norm = pxnn.BatchNorm(4, axis_name="batch", mode="batch")
            self.drop, self.vode = pxnn.Dropout(0.5), pxc.Vode((4,))
            self.unused = pxnn.Linear(4, 100)

        def __call__(self, x, y=None):
            return self.vode(self.drop(self.norm(x)))

    net = Net()
    net.train()
    text = net.summary(X)
    assert any("unused" in line and "none" in line for line in text.splitlines())


def test_layers_of_one_block_are_named_by_the_block():
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.blocks = [pxnn.Sequential(pxnn.Linear(4, 4), jnp.tanh, pxnn.Linear(4, 4))]
            self.vode = pxc.Vode((4,))

        def __call__(self, x, y=None):
            return self.vode(self.blocks[0](x))

    assert "blocks[0]" in Net().summary(X).splitlines()[3]
    assert ": 2 layers" in Net().summary(X).splitlines()[3]


def test_long_names_keep_their_ends():
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.a_module_with_quite_a_long_name_for_a_layer = [pxnn.Linear(4, 4)]
            self.a_module_with_quite_a_long_name_for_a_vode = [pxc.Vode((4,))]

        def __call__(self, x, y=None):
            u = self.a_module_with_quite_a_long_name_for_a_layer[0](x)
            return self.a_module_with_quite_a_long_name_for_a_vode[0](u)

    lines = Net().summary(X).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("..")
    assert "vode[0]" in lines[3]
    assert "layer[0]" in lines[3]
