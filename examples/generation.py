"""Generation: densities and images drawn from networks that learned by Monte Carlo predictive coding.

    python examples/generation.py --dataset iris                         # Figure 4, left: no files
    python examples/generation.py                                        # digits of 8 x 8 pixels, no files
    python examples/generation.py --dataset mnist --data-dir DIR         # averaged down to 14 x 14

Monte Carlo predictive coding (`pxa.MCPC`) samples the states of a decoder given the data, learns from the
samples, and afterwards samples all states, the output too. Here every datum has a chain of its own that goes on
from one weight step to the next (`init="persistent"`), so that a few steps for each are enough.

    iris      a decoder [2, 64, 2] (tanh) on two standardised features, output variance 0.01, with the settings
              of Pinchetti et al., Appendix C.2; the dynamics are first order, or have momentum in one of
              two forms. The energy distance between samples and data is 0 where both have one density.
    images    a decoder [30, 128, 128, pixels] (tanh) without labels, a network [10, 128, 128, pixels] by label,
              and a variational autoencoder with the same decoder, all on the same images. FID and inception
              score come from a small classifier that is trained here: they are *not* comparable with
              those of the paper, or of another classifier.
"""

import argparse
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _scores import energy_distance, fid, inception_score
from _shared import FLAT, INK, NAMES, add_data, hardware, load, save, table, tidy, write_value
from tqdm import tqdm

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.predictive_coding as pxc

DYNAMICS = {
    "first order": (None, "heavy_ball"),
    "heavy ball": (0.9, "heavy_ball"),
    "second order": (0.9, "second_order"),
}


def train(algorithm, x, y, steps, name):
    """Weight steps on all data at once, with a bar; the energies."""
    bar = tqdm(range(steps), desc=name, mininterval=5)
    energies = [algorithm.train_step(x, y)["energy"] for _ in bar]
    return np.array(energies)


def iris(arguments):
    """Learn the density of two features with each of the dynamics; draw it."""
    from sklearn.datasets import load_iris

    x = load_iris().data[:, 2:]  # length and width of the petals
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    steps, T = arguments.steps or 150, arguments.T or 500
    rows, drawn = [], {}
    for name, seed in ((d, s) for d in arguments.dynamics for s in arguments.seeds):
        momentum, form = DYNAMICS[name]
        px.RKG.seed(seed)
        model = pxm.LinearDecoder([2, 64, 2], jnp.tanh, prior=True)
        mcpc = pxa.MCPC(
            model,
            T,
            pxa.langevin(arguments.gamma or 0.01, momentum=momentum, form=form),
            optax.adamw(arguments.lr or 0.01, weight_decay=1e-4),
            output_variance=0.01,
            init="forward",
            unroll=False,
        )
        start = time.perf_counter()
        energies = train(mcpc, None, x, steps, name)
        made = np.asarray(mcpc.generate(n=500, burn_in=arguments.burn_in or 10_000)[-1][0])
        distance = energy_distance(made, x) if np.isfinite(made).all() else float("inf")
        rows.append([name, seed, f"{energies[-1]:.3g}", f"{distance:.3g}"])
        drawn.setdefault(name, made)
        if np.isfinite(distance):
            note(arguments, name, seed, distance, "energy distance", "density of iris, 2-64-2",
                 steps, start, {"T": T, "energy": float(energies[-1])})  # fmt: skip
    limits = ((-2.5, 2.5), (-2.5, 2.5))
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.4 * len(drawn), 3.3), layout="constrained",
                                sharey=True, squeeze=False)  # fmt: skip
    for panel, (name, made) in zip(axes[0], drawn.items(), strict=True):
        counts, *edges = np.histogram2d(*np.nan_to_num(made).T, bins=25, range=limits)
        kernel = np.exp(-0.5 * (np.arange(-3, 4) / 1.2) ** 2)
        for axis in (0, 1):
            counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same")
        middle = [(e[1:] + e[:-1]) / 2 for e in edges]
        panel.contourf(*middle, counts.T + 1e-9, levels=8, cmap="Blues")
        panel.plot(*x.T, "x", color=INK, markersize=3, alpha=0.7)
        panel.set(title=name, xlabel="petal length", xlim=limits[0], ylim=limits[1])
        tidy(panel)
    axes[0][0].set_ylabel("petal width")
    save(figure, arguments.out / "iris.png")
    print(table(["dynamics", "seed", "energy", "energy distance to the data"], rows))


def read(parser, arguments):
    """Images in 0..1, (n, side * side), and labels: training and test."""
    data = load(parser, arguments, flat=False, normalize=False)
    block = 1 if arguments.dataset == "digits" else 2
    out = []
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        side = x.shape[-1] // block
        x = np.float32(x).reshape(len(x), side, block, side, block).mean(axis=(2, 4))
        out += [x.reshape(len(x), -1), np.asarray(y)]
    return out


def classifier(x, y, epochs, seed):
    """Functions to class probabilities, and to features: the last hidden layer of a perceptron."""
    px.RKG.seed(seed)
    model = pxm.MLP([x.shape[1], 128, 32, 10], jnp.tanh, pxc.ce_energy)
    bp = pxa.Backprop(model, weight_optim=optax.adamw(2e-3))
    for epoch in tqdm(range(epochs), desc="classifier", mininterval=5):
        for part in np.array_split(np.random.default_rng(epoch).permutation(len(x)), len(x) // 100):
            bp.train_step(x[part], np.eye(10, dtype=np.float32)[y[part]])
    weights = [(np.asarray(f.nn.weight.get()), np.asarray(f.nn.bias.get())) for f in model.layers]

    def features(images):
        for W, b in weights[:-1]:
            images = np.tanh(images @ W.T + b)
        return images

    W, b = weights[-1]
    return features, lambda images: np.asarray(jax.nn.softmax(features(images) @ W.T + b))


def vae(x, steps, n, seed, variance=0.01):
    """Images from a variational autoencoder [pixels, 128, 128, 30, 128, 128, pixels] (tanh)."""
    keys = jax.random.split(jax.random.key(seed), 4)
    mlp = lambda i, o, key: eqx.nn.MLP(i, o, 128, 2, jnp.tanh, key=key)
    nets = mlp(x.shape[1], 60, keys[0]), mlp(30, x.shape[1], keys[1])
    optim = optax.adamw(1e-3)

    def loss(nets, batch, key):
        mean, log_sd = jnp.split(jax.vmap(nets[0])(batch), 2, axis=1)
        code = mean + jnp.exp(log_sd) * jax.random.normal(key, mean.shape)
        errors = jnp.sum((jax.vmap(nets[1])(code) - batch) ** 2, axis=1) / (2 * variance)
        kl = jnp.sum(0.5 * (mean**2 + jnp.exp(2 * log_sd) - 1) - log_sd, axis=1)
        return jnp.mean(errors + kl)

    @eqx.filter_jit
    def step(nets, state, batch, key):
        grads = eqx.filter_grad(loss)(nets, batch, key)
        updates, state = optim.update(grads, state, eqx.filter(nets, eqx.is_array))
        return eqx.apply_updates(nets, updates), state

    state, rng = optim.init(eqx.filter(nets, eqx.is_array)), np.random.default_rng(seed)
    for k in tqdm(range(steps), desc="VAE", mininterval=5):
        batch = x[rng.integers(len(x), size=100)]
        nets, state = step(nets, state, batch, jax.random.fold_in(keys[2], k))
    return np.asarray(jax.vmap(nets[1])(jax.random.normal(keys[3], (n, 30))))


def generator(x, y, labels, seed, arguments):
    """Images that a network generates after MCPC, those of label k first, k + 1 next, and so on."""
    px.RKG.seed(seed)
    hidden = [128, 128, y.shape[1]]
    model = (
        pxm.LinearDecoder([30, *hidden], jnp.tanh, prior=True)
        if x is None
        else pxm.MLP([10, *hidden], jnp.tanh)
    )
    mcpc = pxa.MCPC(
        model,
        arguments.T or 10,
        pxa.langevin(arguments.gamma or 0.05, arguments.sigma2, momentum=0.9, form="heavy_ball"),
        optax.adamw(arguments.lr or 1e-3, weight_decay=1e-4),
        init="persistent",
        unroll=False,
    )
    name = "MCPC" if x is None else "MCPC by label"
    train(mcpc, x, y, arguments.steps or 1500, name)
    burn_in = arguments.burn_in or 2000
    given = {"n": len(labels)} if x is None else {"x": np.eye(10, dtype=np.float32)[labels]}
    return np.asarray(mcpc.generate(burn_in=burn_in, **given)[-1][0])


def note(arguments, name, seed, value, metric, experiment, steps, start, settings, **rest):
    """Write the record of a number."""
    names = ("images", "steps", "T", "gamma", "lr", "burn_in", "classifier_epochs")
    given = "".join(
        f" --{k.replace('_', '-')} {getattr(arguments, k)}" for k in names if getattr(arguments, k)
    )
    where = " --data-dir DIR" if arguments.dataset in ("mnist", "fashion-mnist") else ""
    write_value(
        arguments.out / "records",
        experiment=experiment,
        dataset="iris" if arguments.dataset == "iris" else NAMES[arguments.dataset],
        algorithm=name,
        metric=metric,
        value=round(value, 4),
        epochs=steps,
        seed=seed,
        seconds=round(time.perf_counter() - start, 1),
        settings=settings,
        command=f"python examples/generation.py --dataset {arguments.dataset}{where}{given} "
        f"--seeds {seed}",
        **rest,
    )


def images(parser, arguments):
    """Generate images without labels, by label, and by a VAE; score and draw them."""
    x_train, y_train, x_test, y_test = read(parser, arguments)
    x, y = x_train[: arguments.images], y_train[: arguments.images]
    n = min(1000, len(x_test))
    labels, steps = np.arange(n) // -(-n // 10), arguments.steps or 1500
    every = min(len(x_train), 10_000)
    features, probabilities = classifier(
        x_train[:every], y_train[:every], arguments.classifier_epochs, 0
    )
    accuracy = np.mean(probabilities(x_test).argmax(axis=1) == y_test)
    print(f"the classifier's test accuracy: {100 * accuracy:.1f} %", flush=True)
    makers = {
        "training images": lambda _: x_train[-n:],
        "MCPC": lambda seed: generator(None, x, labels, seed, arguments),
        "MCPC by label": lambda seed: generator(
            np.eye(10, dtype=np.float32)[y], x, labels, seed, arguments
        ),
        "VAE": lambda seed: vae(x, 2 * steps, n, seed),
    }
    side = int(np.sqrt(x.shape[1]))
    experiment = f"generation, {side} x {side} pixels"
    how = f"{len(x)} images, our classifier's features"
    rows, made = [], {}
    for name, seed in ((m, s) for m in makers for s in arguments.seeds):
        start = time.perf_counter()
        drawn = np.clip(makers[name](seed), 0, 1)
        p = probabilities(drawn)
        values = {"FID": fid(features(drawn), features(x_test)), "IS": inception_score(p)}
        right = np.mean(p.argmax(axis=1) == labels) if name == "MCPC by label" else None
        shown = "" if right is None else f"{100 * right:.1f}"
        learned = {"training images": 0, "VAE": 2 * steps}.get(name, steps)
        rows.append([name, seed, *(f"{v:.2f}" for v in values.values()), shown])
        settings = {"sigma2": arguments.sigma2, "classifier_accuracy": float(accuracy)}
        settings |= {} if right is None else {"classified as the label": float(right)}
        for metric, value in values.items():
            note(
                arguments, name, seed, value, metric, experiment, learned, start, settings, note=how
            )
        if name not in made:
            order = np.arange(50) if right is None else np.arange(0, n, n // 50)[:50]
            made[name] = drawn[order]
    figure, axes = plt.subplots(1, len(made), figsize=(2.9 * len(made), 1.75), layout="constrained")
    for panel, (name, drawn) in zip(axes, made.items(), strict=True):
        grid = drawn.reshape(5, 10, side, side)
        # by label: a column for each label
        grid = drawn.reshape(10, 5, side, side).swapaxes(0, 1) if "label" in name else grid
        panel.imshow(grid.swapaxes(1, 2).reshape(5 * side, 10 * side), cmap="gray", vmin=0, vmax=1)
        panel.set(title=name, xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    save(figure, arguments.out / f"{arguments.dataset}.png")
    header = [arguments.dataset, "seed", "FID", "IS", "classified as their label, %"]
    print(table(header, rows))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data(parser, ["iris", *FLAT])
    parser.add_argument("--dynamics", nargs="+", choices=DYNAMICS, default=list(DYNAMICS))
    parser.add_argument("--images", type=int, default=1000, help="how many are learned")
    parser.add_argument("--steps", type=int, help="weight steps: 150 on iris, 1500 on images")
    parser.add_argument("--T", type=int, help="samples before each: 500 on iris, 10 on images")
    parser.add_argument("--gamma", type=float, help="step size: 0.01 on iris, 0.05 on images")
    parser.add_argument("--sigma2", type=float, default=0.01, help="temperature, on images")
    parser.add_argument("--lr", type=float, help="weight rate: 0.01 on iris, 0.001 on images")
    parser.add_argument("--burn-in", type=int, help="steps of generation: 10000, or 2000")
    parser.add_argument("--classifier-epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/generation"))
    arguments = parser.parse_args()
    iris(arguments) if arguments.dataset == "iris" else images(parser, arguments)
    print(f"\n{hardware()}; records and picture: {arguments.out}")


if __name__ == "__main__":
    main()
