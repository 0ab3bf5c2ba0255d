"""Ten jobs of a user's first month, each written from the documentation in under 40 lines."""

import inspect
import re

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.data
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt
import pcx.utils as pxu

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Each job in a folder of its own, with fresh keys."""
    monkeypatch.chdir(tmp_path)
    px.RKG.seed(0)
    yield
    plt.close("all")


def digits():
    data = pcx.data.load_digits().flat().split(0.2, seed=0)
    hot = lambda y: pcx.data.one_hot(y, data.classes)
    train = pxt.batches(data.x_train, hot(data.y_train), 64, shuffle=True)
    return data, train, pxt.batches(data.x_val, hot(data.y_val), 256)


@pytest.mark.slow
def test_1_an_mlp_of_ones_own_with_validation_that_is_stopped_and_resumed():
    class Net(pxc.EnergyModule):
        def __init__(self, *dims):
            self.layers = [pxnn.Linear(m, n) for m, n in zip(dims, dims[1:])]
            self.vodes = [pxc.Vode((n,)) for n in dims[1:]]
            self.vodes[-1].h.frozen = True

        def __call__(self, x, y=None):
            for layer, vode in zip(self.layers[:-1], self.vodes[:-1]):
                x = vode(jax.nn.gelu(layer(x)))
            u = self.layers[-1](x)
            self.vodes[-1](u)
            if y is not None:
                self.vodes[-1].set("h", y)
            return u

    def run(epochs):
        px.RKG.seed(0)
        data, train, val = digits()
        state = optax.sgd(0.02, momentum=0.5)
        pc = pxa.PC(Net(64, 64, 64, 10), 8, state, optax.adamw(2e-3))
        callbacks = [
            pxt.Checkpoint("run.npz"),
            pxt.EarlyStopping("val_accuracy", patience=5, restore_best=True),
        ]
        trainer = pxt.Trainer(pc, callbacks, progress=False)
        trainer.fit(train, epochs, val=val, resume=True)
        return trainer, data

    run(3)  # Ctrl-C, a crash, the end of the job's time
    trainer, data = run(8)
    correct = trainer.predict(data.x_test).argmax(axis=-1) == data.y_test
    # --- what it must give
    assert len(trainer.history) == 8
    assert correct.mean() > 0.93
    assert trainer.history.best("val_accuracy")[1] > 0.93


@pytest.mark.slow
def test_2_two_input_streams_and_a_node_that_says_how_sure_it_is():
    def gaussian(vode, rkg=None):
        """-log N(h; u, exp(s)) up to a constant: s is the log-variance, predicted like the mean u."""
        h, u = pxc.state_and_prediction(vode)
        s = vode.get("s")
        return 0.5 * (jnp.exp(-s) * (h - u) ** 2 + s)

    class Fusion(pxc.EnergyModule):
        def __init__(self):
            self.image, self.sound = pxnn.Linear(3, 16), pxnn.Linear(2, 16)
            self.mean, self.log_var = pxnn.Linear(16, 1), pxnn.Linear(16, 1)
            self.hidden, self.out = pxc.Vode((16,)), pxc.Vode((1,), gaussian)
            self.out.h.frozen = True

        def __call__(self, x, y=None):
            h = self.hidden(jnp.tanh(self.image(x["image"]) + self.sound(x["sound"])))
            u, s = self.mean(h), self.log_var(h)
            self.out(u, s=s)
            if y is not None:
                self.out.set("h", y)
            return u, s

    rng = np.random.default_rng(0)
    n = 2000
    x = {"image": rng.normal(size=(n, 3)), "sound": rng.normal(size=(n, 2))}
    x = {name: part.astype(np.float32) for name, part in x.items()}
    sigma = np.where(x["sound"][:, :1] > 0, 1.0, 0.1)
    y = (x["image"][:, :1] + sigma * rng.normal(size=(n, 1))).astype(np.float32)
    pc = pxa.PC(Fusion(), T=4, state_optim=optax.sgd(0.02), weight_optim=optax.adam(5e-3))
    error = {"mse": lambda p, y: pxt.squared_error(p[0], y)}
    trainer = pxt.Trainer(pc, metrics=error, progress=False)
    trainer.fit(pxt.batches(x, y, 50, shuffle=True), epochs=20, val=pxt.batches(x, y, 500))
    mean, log_var = trainer.predict(x, batch_size=500)
    # --- what it must give: the two standard deviations that the data were made with
    found = np.exp(0.5 * log_var)[:, 0]
    loud = x["sound"][:, 0] > 0.5
    assert 0.7 < np.median(found[loud]) < 1.4
    assert np.median(found[x["sound"][:, 0] < -0.5]) < 0.35
    assert np.corrcoef(mean[:, 0], x["image"][:, 0])[0, 1] > 0.95


@pytest.mark.slow
def test_3_a_convolutional_autoencoder_with_pictures():
    data = pcx.data.load_digits(normalize=False)
    images = data.x_train[:256]  # (n, 1, 8, 8), in 0..1
    model = pxm.ConvDecoder((1, 8, 8), channels=(8, 16), act=jnp.tanh)
    pc = pxa.PC(model, 10, optax.sgd(0.1, momentum=0.8), optax.adam(3e-3))
    trainer = pxt.Trainer(pc, progress=False)
    trainer.fit(pxt.batches(y=images, batch_size=64, shuffle=True), epochs=60)

    pictures = np.asarray(pc.reconstruct(images[:10], T=60))
    half = np.arange(8)[:, None] < 4  # the upper half is known
    recalled = np.asarray(pc.reconstruct(pxc.Clamp(images[:10], half), T=60))
    figure, axes = plt.subplots(3, 10, figsize=(10, 3))
    for row, shown in zip(axes, (images[:10], pictures, recalled)):
        for panel, image in zip(row, shown):
            panel.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            panel.axis("off")
    figure.savefig("reconstructed.png")
    # --- what it must give
    spread = np.mean((images[:10] - images.mean(axis=0)) ** 2)
    assert np.mean((pictures - images[:10]) ** 2) < 0.5 * spread
    assert np.mean((recalled - images[:10]) ** 2) < np.mean((0.0 - images[:10]) ** 2)


@pytest.mark.slow
def test_4_four_algorithms_and_three_seeds():
    _, train, val = digits()
    algorithms = {"PC": pxa.PC, "IPC": pxa.IPC, "EPC": pxa.EPC, "Backprop": pxa.Backprop}

    def make(seed, algorithm):
        state = {} if algorithm == "Backprop" else {"T": 4, "state_optim": optax.sgd(0.02)}
        model = pxm.MLP([64, 32, 10])
        return algorithms[algorithm](model, weight_optim=optax.adamw(2e-3), **state)

    grid = {"algorithm": list(algorithms)}
    group = pxt.Population(make, grid, seeds=range(3), structure=("algorithm",), progress=False)
    group.fit(train, epochs=5, val=val)
    rows = {r.settings["algorithm"]: r for r in group.summary("val_accuracy")}
    table = [f"{name:8} {r.mean:.1%} ± {r.sd:.1%}" for name, r in rows.items()]
    # --- what it must give
    assert len(group.members) == 12
    assert set(rows) == set(algorithms)
    assert all(re.fullmatch(r"\w+ +\d\d\.\d% ± \d\.\d%", line) for line in table)
    assert all(row.mean > 0.85 for row in rows.values())


def test_5_the_numbers_go_to_a_file_and_to_a_logger_of_ones_own():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    y = pcx.data.one_hot((x[:, 0] > 0).astype(int), 2)

    class Slack(pxt.Logger):
        def write(self, trainer, epoch, numbers):
            lines.append(f"epoch {epoch}: {numbers['val_accuracy']:.0%}")

    lines = []
    pc = pxa.PC(pxm.MLP([4, 16, 2]), T=2, weight_optim=optax.adam(1e-2))
    trainer = pxt.Trainer(pc, [pxt.CSVLogger("run.csv"), Slack()], progress=False)
    batches = pxt.batches(x, y, 16)
    history = trainer.fit(batches, epochs=3, val=batches)
    # --- what it must give
    table = np.genfromtxt("run.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["val_accuracy"], history["val_accuracy"])
    assert lines[-1] == f"epoch 3: {history['val_accuracy'][-1]:.0%}"


@pytest.mark.slow
def test_6_a_torch_loader():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    data = pcx.data.load_digits().flat()
    dataset = TensorDataset(torch.tensor(data.x_train), torch.tensor(data.y_train))
    test = TensorDataset(torch.tensor(data.x_test), torch.tensor(data.y_test))
    pc = pxa.PC(pxm.MLP([64, 32, 10]), T=4, weight_optim=optax.adamw(3e-3))
    trainer = pxt.Trainer(pc, classes=10, progress=False)
    trainer.fit(DataLoader(dataset, 64, shuffle=True), epochs=5)
    result = trainer.evaluate(DataLoader(test, 128))
    scores = pc.predict(test.tensors[0])
    # --- what it must give
    assert result["accuracy"] > 0.9
    correct = np.asarray(scores).argmax(axis=-1) == test.tensors[1].numpy()
    assert correct.mean() == pytest.approx(result["accuracy"], abs=1e-6)


def test_7_save_and_serve():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    y = pcx.data.one_hot((x[:, 0] > 0).astype(int), 2)
    trained = pxa.PC(pxm.MLP([4, 16, 2]), T=2, weight_optim=optax.adam(1e-2))
    pxt.Trainer(trained, progress=False).fit(pxt.batches(x, y, 16), epochs=2)
    pxu.save_params(trained.model, "model.npz")

    # in the program that serves: the same model, and an optimiser that is never used
    serving = pxa.PC(pxm.MLP([4, 16, 2]), weight_optim=optax.identity())
    pxu.load_params(serving.model, "model.npz")

    def serve(request):
        """One request, a list of numbers; its class."""
        return int(serving.predict([request])[0].argmax())

    answers = [serve(row.tolist()) for row in x[:8]]
    # --- what it must give
    assert answers == trained.predict(x[:8]).argmax(axis=-1).tolist()


def test_8_energies_and_the_graph_are_drawn():
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    y = pcx.data.one_hot((x[:, 0] > 0).astype(int), 2)
    model = pxm.MLP([8, 16, 16, 2])
    pc = pxa.PC(model, T=8, state_optim=optax.sgd(0.1), weight_optim=optax.adam(1e-2))
    pxt.Trainer(pc, progress=False).fit(pxt.batches(x, y, 16), epochs=2)

    print(model.summary(x[0]))
    pxan.draw(model, x[0]).savefig("graph.png")
    energies = pxan.layer_energies(pc, x, y)
    pxan.plot_energies(energies).savefig("energies.png")
    # --- what it must give
    assert list(energies) == ["vodes[0]", "vodes[1]", "vodes[2]"]
    total = sum(np.asarray(e) for e in energies.values())
    assert (np.diff(total) <= 1e-6).all()  # inference descends
    for name in ("graph.png", "energies.png"):
        picture = plt.imread(name)
        assert picture[..., :3].std() > 0.02


@pytest.mark.slow
def test_9_a_time_series_is_predicted_step_by_step():
    class Temporal(pxc.EnergyModule):
        """h_t is predicted by A h_{t-1}, and predicts the observation y_t by C h_t."""

        def __init__(self, steps, hidden, seen):
            self.A = pxnn.Linear(hidden, hidden, bias=False)
            self.C = pxnn.Linear(hidden, seen, bias=False)
            self.h = [pxc.Vode((hidden,)) for _ in range(steps)]
            self.y = [pxc.Vode((seen,)) for _ in range(steps)]
            self.h[0] = pxc.Vode((hidden,), energy_fn=None)  # where it starts is free
            for vode in self.y:
                vode.h.frozen = True

        def __call__(self, x, y=None):
            h, predictions = jnp.zeros(self.h[0].shape), []
            for t, (state, seen) in enumerate(zip(self.h, self.y)):
                h = state(self.A(h))
                predictions.append(self.C(h))
                seen(predictions[-1])
                if y is not None:
                    seen.set("h", y[t])
            return jnp.stack(predictions)

    rng = np.random.default_rng(0)
    phase, speed = rng.uniform(0, 2 * np.pi, (256, 1)), 0.6
    series = np.sin(phase + speed * np.arange(9)).astype(np.float32)[..., None]
    model = Temporal(8, 2, 1)
    pc = pxa.PC(model, 40, optax.sgd(0.1, momentum=0.8), optax.adam(1e-2))
    trainer = pxt.Trainer(pc, progress=False)
    trainer.fit(pxt.batches(y=series[:, :8], batch_size=64, shuffle=True), epochs=60)
    # the states that explain what was seen, and one step on
    pc.infer(None, series[:, :8], T=400, energies=False)
    A, C = (np.asarray(layer.nn.weight.get()) for layer in (model.A, model.C))
    forecast = np.asarray(model.h[-1].h.get()) @ A.T @ C.T
    # --- what it must give: better than "as the last one", 1/2 of whose error is known in closed form
    error, persistence = (np.mean((p - series[:, 8]) ** 2) for p in (forecast, series[:, 7]))
    assert persistence == pytest.approx(1 - np.cos(speed), rel=0.1)
    assert error < 0.25 * persistence


def test_10_a_recompilation_is_explained(caplog):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    y = pcx.data.one_hot((x[:, 0] > 0).astype(int), 2)
    pc = pxa.PC(pxm.MLP([4, 8, 2]), T=2, weight_optim=optax.adam(1e-2))
    pxf.explain_recompiles()
    for part in pxt.batches(x, y, 16):  # the last one has 2 samples
        pc.train_step(*part)
    pxf.explain_recompiles(False)
    # --- what it must give: the last word, since other tests have trained other algorithms
    said = caplog.messages[-1].splitlines()
    assert "pxf.jit(train_step) compiles again" in said[0]
    assert said[1:] == [
        "  `argument 0` was f32[16,4], now f32[2,4]",
        "  `argument 1` was f32[16,2], now f32[2,2]",
    ]


def lines_of_user_code(function):
    """Lines of a job without its name, blank lines, comments and what is asserted of it."""
    source = inspect.getsource(function).partition("# --- what it must give")[0].splitlines()
    body = [
        line.strip()
        for line in source[source.index(next(s for s in source if s.startswith("def "))) + 1 :]
    ]
    return [line for line in body if line and not line.startswith("#")]


def test_every_job_is_under_forty_lines():
    jobs = {name: f for name, f in globals().items() if re.match(r"test_\d+_", name)}
    assert len(jobs) == 10
    assert {
        n: len(lines_of_user_code(f)) for n, f in jobs.items() if len(lines_of_user_code(f)) >= 40
    } == {}
