"""Trains on meshes of 1, 2, 4 and 8 devices and without, in float64; prints what differs, as JSON.

Run by `test_mesh.py` in a process of its own, because the number of devices is fixed when JAX starts.
"""

# ruff: noqa: T201

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt
import pcx.utils as pxu
from pcx.core import named_params

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 6))
IMAGES = rng.normal(size=(40, 2, 6, 6))
Y = np.eye(3)[rng.integers(0, 3, 40)]


class ConvNet(pxc.EnergyModule):
    """A convolution, batch normalisation over all samples, dropout from the random key, a linear layer."""

    def __init__(self):
        rkg = px.RandomKeyGenerator(0)
        self.conv = pxnn.Conv2d(2, 3, 3, rkg=rkg)
        self.norm = pxnn.BatchNorm(3, "batch")
        self.drop = pxnn.Dropout(0.3, hold=True)
        self.linear = pxnn.Linear(3 * 4 * 4, 3, rkg=rkg)
        self.vodes = [pxc.Vode((3, 4, 4)), pxc.Vode((3,))]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        x = self.vodes[0](self.drop(jax.nn.relu(self.norm(self.conv(x)))))
        u = self.vodes[1](self.linear(x.ravel()))
        if y is not None:
            self.vodes[1].set("h", y)
        return u


def mlp():
    return pxm.MLP([6, 16, 3], rkg=px.RandomKeyGenerator(0))


def wide():
    return pxm.MLP([6, 64, 3], rkg=px.RandomKeyGenerator(0))


OPTIONS = {"state_optim": optax.sgd(0.1), "weight_optim": optax.adam(1e-2, eps=1e-3)}
MAKE = {
    "PC": lambda **o: pxa.PC(mlp(), 3, **OPTIONS, **o),
    "IPC": lambda **o: pxa.IPC(mlp(), 3, **OPTIONS, **o),
    "EPC": lambda **o: pxa.EPC(mlp(), 3, **OPTIONS, **o),
    "NudgedPC": lambda **o: pxa.NudgedPC(
        mlp(), 3, **OPTIONS, mode="centred", alternate="batch", beta=0.5, **o
    ),
    "Backprop": lambda **o: pxa.Backprop(mlp(), weight_optim=OPTIONS["weight_optim"], **o),
    "PC, persistent states": lambda **o: pxa.PC(mlp(), 3, **OPTIONS, init="persistent", **o),
    "PC, convolutions": lambda **o: pxa.PC(ConvNet(), 2, **OPTIONS, **o),
    "Backprop, convolutions": lambda **o: pxa.Backprop(
        ConvNet(), weight_optim=OPTIONS["weight_optim"], **o
    ),
}
MAKE_WIDE = {"PC, wide": lambda **o: pxa.PC(wide(), 3, **OPTIONS, **o)}


def mesh(devices, axis="data"):
    return jax.make_mesh((devices,), (axis,), devices=jax.devices()[:devices])


def numbers(tree):
    """Every number in the params of layers, in one vector."""
    kinds = pxnn.LayerParam | pxnn.StateParam
    leaves = [
        leaf
        for _, param in named_params(tree)
        if isinstance(param, kinds)
        for leaf in jax.tree_util.tree_leaves(param.get())
        if isinstance(leaf, jax.Array)
    ]
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves])


def trained(name, steps=3, batch=16, **options):
    px.RKG.seed(0)
    algorithm = (MAKE | MAKE_WIDE)[name](**options)
    if batch == 16:
        object.__setattr__(algorithm, "_unseen", False)  # its look at the first batch compiles, too
    algorithm.model.train()
    x = IMAGES if "convolutions" in name else X
    energies = [
        float(algorithm.train_step(x[s : s + batch], Y[s : s + batch])["energy"])
        for s in range(steps)
    ]
    return algorithm, np.array([*energies, *numbers(algorithm.model)])


def difference(ours, theirs):
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def say(name, value):
    print(json.dumps([name, value]), flush=True)


def several_devices():
    for name in MAKE:
        alone = trained(name)[1]
        for devices in (1, 2, 4, 8) if name == "PC" else (8,):
            algorithm, found = trained(name, mesh=mesh(devices))
            say(f"{name} on {devices}", difference(found, alone))
            if name == "PC" and devices == 4:
                where = {len(p.get().sharding.device_set) for p in algorithm.weights()}
                say("devices that hold the weights", sorted(where))
    alone = trained("PC", batch=13)[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        say("13 samples on 8", difference(trained("PC", batch=13, mesh=mesh(8))[1], alone))
    say("13 samples warn", [str(w.message) for w in caught])


def fsdp():
    alone = trained("PC, wide")[1]
    both = jax.make_mesh((2, 4), ("data", "fsdp"))
    for what, on in (("fsdp 8", mesh(8, "fsdp")), ("data 2, fsdp 4", both)):
        algorithm, found = trained("PC, wide", mesh=on)
        say(what, difference(found, alone))
        weight = algorithm.model.layers[0].nn.weight.get()  # 64 x 6 is below what is divided
        say(f"{what}, small", [s.data.shape for s in weight.addressable_shards][:1])
    algorithm = pxa.PC(pxm.MLP([64, 32, 3]), 1, **OPTIONS, mesh=mesh(8, "fsdp"))
    algorithm.train_step(np.ones((8, 64)), Y[:8])
    algorithm.train_step(np.ones((8, 64)), Y[:8])
    arrays = [algorithm.model.layers[0].nn.weight.get()]
    arrays += jax.tree_util.tree_leaves(algorithm.weight_optim.state.get())
    shapes = {a.shape: a.addressable_shards[0].data.shape for a in arrays}
    say("parts of 32 x 64", shapes[32, 64])
    say("parts of 32", shapes[32,])


def compilations():
    """How often a step compiles: once, also after keys were drawn in between and values were set."""
    algorithm = MAKE["PC"](mesh=mesh(2))
    algorithm.train_step(X[:16], Y[:16])
    algorithm.train_step(X[:16], Y[:16])
    px.RKG()
    algorithm.train_step(X[:16], Y[:16])
    from jax._src import test_util

    with test_util.count_jit_compilation_cache_miss() as count:
        algorithm.train_step(X[:16], Y[:16])
    say("compilations of a later step", count())
    px.RKG.seed(0)
    drawing = MAKE["PC, convolutions"](mesh=mesh(2))
    object.__setattr__(drawing, "_unseen", False)
    drawing.model.train()
    drawing.train_step(IMAGES[:16], Y[:16])
    with test_util.count_jit_compilation_cache_miss() as count:
        drawing.train_step(IMAGES[:16], Y[:16])
    say("compilations of a second step that draws", count())


def noise(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


def fit(folder, epochs, on=None, resume=False, **options):
    px.RKG.seed(0)
    optim = pxu.Optim(optax.adam, learning_rate=1e-2)
    algorithm = pxa.PC(
        pxm.MLP([6, 64, 3], rkg=px.RandomKeyGenerator(0)), 3, OPTIONS["state_optim"], optim
    )
    trainer = pxt.Trainer(
        algorithm,
        [pxt.Checkpoint(f"{folder}/run.npz")],
        progress=False,
        mesh=on,
        augment=noise,
        **options,
    )
    batches = pxt.batches(X, Y, 16, shuffle=True)  # 16, 16 and 8
    history = trainer.fit(batches, epochs, val=pxt.batches(X, Y, 16), resume=resume)
    energies = [*history.epoch["energy"], *history.epoch["val_energy"]]
    return trainer, np.array([*energies, *numbers(algorithm.model)])


def trainer():
    with tempfile.TemporaryDirectory() as folder:
        alone = fit(folder, 3)[1]
        together = fit(folder, 3, mesh(8), steps_per_call=2)[1]
        say("trainer, 2 in a call, on 8", difference(together, alone))
        whole = fit(folder, 3, mesh(4, "fsdp"))[1]
        say("trainer, fsdp on 4", difference(whole, alone))
        fit(folder, 2, mesh(4, "fsdp"))
        Path(f"{folder}/run.npz").rename(f"{folder}/two.npz")
        two = f"{folder}/two.npz"
        again, found = fit(folder, 3, mesh(4, "fsdp"), resume=two)
        say("resumed on as many", bool(np.all(found == whole)))
        again, found = fit(folder, 3, mesh(2), resume=two)
        say("resumed on 2", difference(found, alone))
        prediction = again.predict(X, batch_size=16)
        bare = np.asarray(again.algorithm.predict(X))
        say("prediction", [*prediction.shape, difference(prediction, bare)])


def member(seed, lr):
    weight = pxu.Optim(optax.adam, learning_rate=lr)
    return pxa.PC(pxm.MLP([6, 8, 3]), 2, OPTIONS["state_optim"], weight)


def population():
    def run(on, epochs=2, **options):
        made = pxt.Population(
            member, {"lr": [1e-3, 1e-2, 3e-2]}, seeds=range(2), progress=False, mesh=on
        )
        order = lambda seed: pxt.batches(X, Y, 16, shuffle=True, rkg=seed)
        made.fit(order, epochs, val=pxt.batches(X, Y, 16), **options)
        last = [m.history.last("val_energy") for m in made.members]
        return np.array(last + [n for m in made.members for n in numbers(m.algorithm.model)])

    with tempfile.TemporaryDirectory() as folder:
        alone = run(None)
        file = f"{folder}/members.npz"
        run(mesh(4), epochs=1, checkpoint=file)
        say(
            "population of 6 on 4, then on 2",
            difference(run(mesh(2), checkpoint=file, resume=True), alone),
        )


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    warnings.simplefilter("error")
    for part in (several_devices, fsdp, compilations, trainer, population):
        if len(sys.argv) == 1 or part.__name__ in sys.argv[1:]:
            start = time.perf_counter()
            part()
            say(f"seconds of {part.__name__}", time.perf_counter() - start)
    assert jnp.ones(1).dtype == jnp.float64
