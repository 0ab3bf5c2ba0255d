"""Deepity: a network of the same widths, through its public `SimplePCN`.

A C++ engine with kernels of its own. The same number of settling steps on nodes of the same widths, and AdamW on
the weights; but a node predicts the next one by `W phi(z) + b`, with the activation before the weights, its states
descend without momentum, and the weights that it starts from are its own, so updates are not compared.
"""

import deepity

from benchmarks import cases
from benchmarks.programs._program import Program

ACTIVATIONS = {"leaky_relu": deepity.ReLU, "sigmoid": deepity.Sigmoid}


def make(case: cases.Case) -> Program:
    layers = []
    for index, (inner, outer) in enumerate(zip(case.dims[:-1], case.dims[1:], strict=True)):
        layers += [ACTIVATIONS[case.act]()] if index else []
        layers.append(deepity.Linear(inner, outer))
    network = deepity.SimplePCN(*layers, batch_size=case.batch)
    network.configure(
        learning_rate=case.weight_lr,
        inference_rate=case.state_lr,
        optimizer="ADAMW",
        seed=case.seed,
    )
    x, y = cases.batch(case)
    return Program(lambda: network.train_step(x, y, steps=case.T), lambda: None)
