"""The energy that inference should end at against the one it ends at, and Heun against Euler.

    python examples/linear_theory.py                                    # digits, no files
    python examples/linear_theory.py --dataset mnist --data-dir DIR     # 3 000 images

Fig. 1 and 2 of Innocenti et al., "JPC: flexible inference for predictive coding networks in JAX":

* A linear network of ten hidden layers, trained with inference that ends at different times t: the energy
  that is left after it, beside the one of the equilibrium in closed form (`pxan.LinearNetwork`), at every
  step of training, and the test accuracy.
* Networks with tanh, of 3, 5 and 10 hidden layers: what a training step costs with Heun's method and
  adaptive steps, and with Euler's and constant ones, up to the same t. Evaluations of the gradient are
  counted besides the time, as a busy machine does not change them. This part needs diffrax.

Writes a JSON record and a figure.
"""

import argparse
import statistics
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import add_arguments, colour, command, first, load, save, styled, table, write_analysis

import pcx as px
import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.data
import pcx.models as pxm
import pcx.training as pxt

LAYERS, BATCH_SIZE, RATE = 10, 64, 1e-3
DT = 0.25  # of the linear part
TIMES = [2, 10, 50]
DEPTHS = {3: 20, 5: 50, 10: 100}  # hidden layers, and t
EULER_DT, TOLERANCE = 0.5, 1e-3


def model_of(data, layers, width, act, seed):
    px.RKG.seed(seed)
    return pxm.MLP([data.shape[0], *[width] * layers, data.classes], act)


def training(data, seed):
    y = pcx.data.one_hot(data.y_train, data.classes)
    return pxt.batches(data.x_train, y, BATCH_SIZE, shuffle=True, drop_last=True, rkg=seed)


def accuracy(pc, data):
    return 100 * float(np.mean(np.argmax(pc.predict(data.x_test), -1) == data.y_test))


def theory(model, x, y):
    """The batch's mean energy at the equilibrium of inference."""
    parts = [(layer.nn.weight.get(), layer.nn.bias.get()) for layer in model.layers]
    network = pxan.LinearNetwork.from_weights(*zip(*parts, strict=True))
    return float(network.equilibrium_energy(x, y).mean())


def energies(data, arguments):
    """Of each end of inference: both energies at every step of one epoch, and the accuracy after it."""
    found = {}
    for t in arguments.times:
        model = model_of(data, LAYERS, arguments.width, lambda h: h, arguments.seeds[0])
        pc = pxa.PC(model, round(t / DT), optax.sgd(DT), optax.adam(RATE))
        curves = {"theory": [], "numerical": []}
        for x, y in training(data, arguments.seeds[0]):
            curves["theory"].append(theory(model, x, y))
            curves["numerical"].append(float(pc.train_step(x, y)["energy"]))
        found[t] = curves | {"accuracy": accuracy(pc, data)}
        print(f"linear, t = {t}: accuracy {found[t]['accuracy']:.1f} %", flush=True)
    return found


def solvers(data, arguments, depths):
    """Of each depth and solver: seconds and evaluations for a training step, energy left, accuracy."""
    if not depths:
        return {}
    import diffrax

    control = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
    made = {
        "Euler": lambda t: pxa.Diffrax(diffrax.Euler(), T=t, dt0=EULER_DT),
        "Heun": lambda t: pxa.Diffrax(diffrax.Heun(), T=t, dt0=EULER_DT, controller=control),
    }
    found = {}
    for layers, t in depths.items():
        found[layers] = {"t": t}
        for name, solver in made.items():
            model = model_of(data, layers, arguments.width, jax.nn.tanh, arguments.seeds[0])
            pc = pxa.PC(model, state_optim=solver(t), weight_optim=optax.adam(RATE))
            seconds, evaluations, left = [], [], []
            for x, y in training(data, arguments.seeds[0]):
                start = time.perf_counter()
                metrics = jax.block_until_ready(pc.train_step(x, y))
                seconds.append(time.perf_counter() - start)
                evaluations.append(int(metrics["steps"]) * (2 if name == "Heun" else 1))
                left.append(float(metrics["energy"]))
            found[layers][name] = {
                "milliseconds": 1e3 * statistics.median(seconds[1:]),  # the first one compiles
                "evaluations": evaluations,
                "energy": left,
                "accuracy": accuracy(pc, data),
            }
            last = found[layers][name]
            print(
                f"{layers} layers, {name}: {last['milliseconds']:.0f} ms, "
                f"{statistics.mean(evaluations):.0f} evaluations, {last['accuracy']:.1f} %",
                flush=True,
            )
    return found


@styled
def plot(record):
    """The figure of a record."""
    with_solvers = bool(record["solvers"])
    figure, panels = plt.subplots(
        1, 2 if with_solvers else 1, figsize=(11.5 if with_solvers else 5.5, 3.6), squeeze=False
    )
    axes = panels[0, 0]
    for k, (t, own) in enumerate(record["energies"].items()):
        line = {"color": colour(k), "linewidth": 1.5}
        label = f"inference to t = {float(t):g} ({own['accuracy']:.0f} % accuracy)"
        axes.plot(own["numerical"], **line, label=label)
        axes.plot(own["theory"], ":", **line)
    axes.plot([], [], ":", color="#7a7a7a", label="closed form, same weights")
    axes.set(xlabel="training step", ylabel="energy after inference (nats)")
    axes.legend(fontsize=8)
    if with_solvers:
        axes = panels[0, 1]
        for k, name in enumerate(("Euler", "Heun")):
            means = [np.mean(own[name]["evaluations"]) for own in record["solvers"].values()]
            bars = axes.bar(
                np.arange(len(means)) + 0.4 * k - 0.2, means, 0.36, color=colour(k), label=name
            )
            axes.bar_label(bars, fmt="%.0f", fontsize=8, color="#7a7a7a")
        ticks = [f"{layers} layers, t = {own['t']}" for layers, own in record["solvers"].items()]
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set(ylabel="evaluations of the gradient")
        axes.legend(fontsize=8)
    figure.suptitle(record["dataset"], x=0.01, ha="left", fontweight="bold")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "linear_theory")
    parser.set_defaults(epochs=1)
    parser.add_argument("--images", type=int, default=3000, help="at most so many to train on")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--times", type=float, nargs="+", default=TIMES, help="ends of inference")
    parser.add_argument(
        "--depths", type=int, nargs="*", choices=DEPTHS, default=[*DEPTHS], help="of Heun and Euler"
    )
    arguments = parser.parse_args()
    data = first(load(parser, arguments), arguments.images)
    start = time.perf_counter()
    record, path = write_analysis(
        arguments.out,
        analysis="linear-theory",
        dataset=arguments.dataset,
        seeds=arguments.seeds[:1],
        epochs=1,
        images=len(data.x_train),
        settings={
            "layers": LAYERS,
            "width": arguments.width,
            "dt": DT,
            "weight_rate": RATE,
            "batch_size": BATCH_SIZE,
            "euler_dt": EULER_DT,
            "tolerance": TOLERANCE,
        },
        energies=energies(data, arguments),
        solvers=solvers(data, arguments, {n: DEPTHS[n] for n in arguments.depths}),
        seconds=time.perf_counter() - start,
        command=command(arguments, "images", "width", "times", "depths", "seeds"),
    )
    rows = [
        [t, f"{own['numerical'][-1]:.3g}", f"{own['theory'][-1]:.3g}", f"{own['accuracy']:.1f}"]
        for t, own in record["energies"].items()
    ]
    print(table(["t", "energy, last step", "closed form", "accuracy (%)"], rows))
    save(plot(record), path.with_suffix(".png"))
    print(f"record and figure: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
