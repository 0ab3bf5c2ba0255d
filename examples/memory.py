"""Associative memory: recall of stored images from a noisy one, or from their upper half (Table 3).

    python examples/memory.py                                             # digits, no files, a minute
    python examples/memory.py --dataset tiny-imagenet --data-dir DIR --side 32
    python examples/memory.py --dataset tiny-imagenet --data-dir DIR       # 64 x 64, as in the paper

A decoder [512, d, d, pixels] (tanh, squared error) learns n images by predictive coding, its code free, its
output clamped: `train_step(None, images)`. Then

    noise   some steps with the output clamped to an image with Gaussian noise (standard deviation 0.2, pixels in
            0..1); then all states are free, the output too
    mask    the upper half is held by `pxc.Clamp`, the lower half and all other states are free

and inference runs on. What is reported is the mean squared error of the output's state, in 1e-4, as in Pinchetti
et al., Table 3 and Figure 5; their settings where they are given (Appendix C.3). Three things decide the result:

  - The rate of the states must stay below 2 / (largest curvature), which the script prints: it falls several times
    while the decoder learns. The paper's rates, 0.1 and more, are above it at 32 x 32 pixels and more.
  - With all states free there is nothing to explain, and states of a forward pass pull the output towards
    themselves before they know the image (`--clamped-steps 0`). The more clamped steps, the more of the noise is
    explained, too.
  - What remains of the noise lies in the directions that the decoder can produce, and is a smaller share of more
    pixels: few pixels cannot do as well as many.
"""

import argparse
import time

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import FLAT, add_data, hardware, load, save, table, write_value

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.predictive_coding as pxc

SMALLER = "{side} x {side} pixels; the paper's images have 64 x 64"
NOISE = 0.2
PAPER = {(50, 512): ("6.06 ± 0.11", "0.06 ± 0.02"), (100, 512): ("6.99 ± 0.19", "1.15 ± 0.78"),
         (250, 512): ("9.95 ± 0.05", "39.1 ± 10.8")}  # fmt: skip
SETTINGS = (
    "T",
    "state_rate",
    "momentum",
    "weight_rate",
    "clamped_steps",
    "noise_steps",
    "mask_steps",
)


def command(arguments, seed):
    """What to type to get the same numbers."""
    names = ("dataset", "side", "images", "hidden", "epochs", *SETTINGS)
    given = {k: vars(arguments)[k] for k in names if vars(arguments)[k] is not None}
    options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in given.items())
    where = "" if arguments.dataset == "digits" else " --data-dir DIR"
    return f"python examples/memory.py {options}{where} --seeds {seed}"


def images(parser, arguments):
    """The stored images, (n, channels, side, side), in 0..1."""
    data = load(parser, arguments, flat=False, normalize=False)
    # distributed without its training part, the validation images do as well
    every = data.x_train if len(data.x_train) >= arguments.images else data.x_test
    if len(every) < arguments.images:
        parser.exit(2, f"{parser.prog}: --images {arguments.images}: there are {len(every)}\n")
    x = np.asarray(every[: arguments.images], np.float32)
    side = x.shape[-1] if arguments.side is None else arguments.side
    if x.shape[-1] % side:
        parser.exit(2, f"{parser.prog}: --side {side} does not divide {x.shape[-1]}\n")
    x = x.reshape(len(x), -1, x.shape[-1], x.shape[-1])
    block = x.shape[-1] // side
    return x.reshape(*x.shape[:2], side, block, side, block).mean(axis=(3, 5))


def store(stored, arguments):
    """A decoder that has learned the images."""
    d = arguments.hidden
    model = pxm.LinearDecoder([512, d, d, stored.shape[1]], act=jnp.tanh)
    algorithm = pxa.PC(
        model,
        arguments.T,
        optax.sgd(arguments.state_rate, arguments.momentum),
        optax.adam(arguments.weight_rate),
        unroll=False,
    )
    start = time.perf_counter()
    for epoch in range(arguments.epochs):
        order = np.random.default_rng(epoch).permutation(len(stored))
        parts = np.array_split(order, max(1, len(stored) // 50))
        energies = [algorithm.train_step(None, stored[p])["energy"] for p in parts]
        if (epoch + 1) % max(1, arguments.epochs // 10) == 0:
            rate = float(algorithm.largest_state_rate(None, stored))
            seconds = time.perf_counter() - start
            print(f"epoch {epoch + 1:5d}  energy {np.mean(energies):10.4f}  largest stable state rate {rate:.3g}"
                  f"  {seconds:.0f} s", flush=True)  # fmt: skip
    return model


def recall(model, given, start, steps, optim, clamped=0):
    """The output's state after inference with every state free that `given` does not hold.

    Before that, so many steps with the output clamped at the start.
    """
    output = model.vodes[-1]
    output.h.frozen = True
    pxa.PC(model, clamped, optim, unroll=False).infer(None, start, energies=False)
    output.h.frozen = False
    # not more at once, so that a step can be interrupted
    part = min(steps, 1000)
    inference = pxa.PC(model, part, optim, init="persistent", unroll=False)
    for _ in range(0, steps, part):
        inference.infer(None, given, energies=False)
    out = np.asarray(output.h.get())
    output.h.frozen = True
    return out


def run(stored, seed, arguments):
    """Errors of both tasks, and what was given and recalled."""
    px.RKG.seed(seed)
    rng = np.random.default_rng(seed)
    shape = stored.shape[1:]
    flat = stored.reshape(len(stored), -1)
    model = store(flat, arguments)
    rate = 0.5 * float(pxa.PC(model).largest_state_rate(None, flat))

    noisy = flat + NOISE * rng.standard_normal(flat.shape).astype(np.float32)
    from_noise = recall(
        model, None, noisy, arguments.noise_steps, optax.sgd(rate, 0.5), arguments.clamped_steps
    )

    upper = np.zeros(shape, bool)
    upper[:, : shape[1] // 2] = True
    half = np.where(upper.ravel(), flat, 0.0).astype(np.float32)
    clamp = pxc.Clamp(flat, upper.ravel())
    from_half = recall(model, clamp, half, arguments.mask_steps, optax.sgd(rate, 0.9))

    mse = lambda a: 1e4 * float(np.mean(np.square(a - flat)))
    errors = {"noise": mse(from_noise), "mask": mse(from_half)}
    print(f"seed {seed}: noise {errors['noise']:.3g}, mask {errors['mask']:.3g} (1e-4)", flush=True)
    return errors, {"noise": (noisy, from_noise), "mask": (half, from_half)}


def draw(stored, pictures, path, n=8):
    """Rows of images: stored, then given and recalled for each task."""
    rows = [("stored", stored)]
    for task, (given, recalled) in pictures.items():
        rows += [(task, given), ("recalled", recalled)]
    figure, axes = plt.subplots(
        len(rows), n, figsize=(1.2 + 0.9 * n, 0.93 * len(rows)), layout="none"
    )
    for (name, row), panels in zip(rows, axes, strict=True):
        for image, panel in zip(row, panels, strict=False):
            picture = np.clip(np.reshape(image, stored.shape[1:]), 0, 1).transpose(1, 2, 0)
            panel.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.subplots_adjust(0.12, 0.01, 0.99, 0.99, wspace=0.06, hspace=0.06)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data(parser, [*FLAT, "cifar10", "tiny-imagenet"])
    parser.add_argument("--side", type=int, help="height and width to average down to")
    parser.add_argument("--images", type=int, default=50, help="how many are stored")
    parser.add_argument("--hidden", type=int, default=512, help="d")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--T", type=int, default=40, help="inference steps in training")
    parser.add_argument("--state-rate", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.8, help="of the states in training")
    parser.add_argument("--weight-rate", type=float, default=3e-4)
    parser.add_argument("--clamped-steps", type=int, default=40, help="first steps of noise")
    parser.add_argument("--noise-steps", type=int, default=2000)
    parser.add_argument("--mask-steps", type=int, default=10000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", default="outputs/memory", help="folder for results")
    arguments = parser.parse_args()
    stored = images(parser, arguments)
    side = stored.shape[-1]
    paper = PAPER.get((arguments.images, arguments.hidden), ("–", "–"))
    every = []
    for seed in arguments.seeds:
        start = time.perf_counter()
        errors, pictures = run(stored, seed, arguments)
        every.append(errors)
        seconds = round(time.perf_counter() - start, 1)
        for task, published in zip(errors, paper, strict=True):
            write_value(
                f"{arguments.out}/records",
                experiment=f"associative memory, n = {arguments.images}, d = {arguments.hidden}",
                dataset=f"{arguments.dataset} {side} x {side}",
                algorithm=f"PC, {task}",
                metric="MSE, 1e-4",
                value=round(errors[task], 4),
                epochs=arguments.epochs,
                seed=seed,
                paper=published,
                seconds=seconds,
                settings={k: vars(arguments)[k] for k in SETTINGS},
                command=command(arguments, seed),
                **({} if side == 64 else {"note": SMALLER.format(side=side)}),
            )
        draw(stored, pictures, f"{arguments.out}/{arguments.dataset}-{stored.shape[-1]}.png")
    shown = lambda task: (
        f"{np.mean([e[task] for e in every]):.3g} ± {np.std([e[task] for e in every]):.2g}"
    )
    name = f"{arguments.dataset} {side} x {side}, n = {arguments.images}, d = {arguments.hidden}"
    rows = [[task, shown(task), published] for task, published in zip(every[0], paper, strict=True)]
    header = [f"MSE in 1e-4: {name}", f"{len(every)} seeds", "paper, 64 x 64"]
    print(f"\n{table(header, rows)}\n\n{hardware()}; records and picture: {arguments.out}")


if __name__ == "__main__":
    main()
