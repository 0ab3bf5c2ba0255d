"""pcn-torch: a network of the same widths, through its public `train_pcn`.

Another algorithm of the same family, so a neighbour and not the same work: predictions run from
the top latent down to the input, layers have no biases, latents start from N(0, 1), weights learn
by plain SGD, and the label enters through a linear read-out. T_infer is the case's T and there is
one weight step. `train_pcn` is its only public way to train, so one of our steps is an epoch of
one batch. It also infers without the label for T_infer_test steps, to report an accuracy: set to
its least, 1, as nobody else's does.
"""

import pcn_torch
import torch

from benchmarks import cases
from benchmarks.programs._program import Program


def make(case: cases.Case) -> Program:
    torch.manual_seed(case.seed)
    model = pcn_torch.PredictiveCodingNetwork(
        dims=list(case.dims[:-1]),
        activation={"leaky_relu": "relu", "sigmoid": "sigmoid"}[case.act],
        output_dim=case.dims[-1],
        mode="classification",
    )
    x, y = cases.batch(case)
    loader = [(torch.from_numpy(x), torch.from_numpy(y.argmax(axis=1)))]
    config = pcn_torch.TrainConfig(
        T_infer=case.T,
        T_learn=1,
        T_infer_test=1,
        lr_infer=case.state_lr,
        lr_learn=case.weight_lr,
        num_epochs=1,
        use_mixed_precision=False,
        callback=pcn_torch.TrainCallback(),
    )

    def step():
        pcn_torch.train_pcn(model, loader, config)

    return Program(step, lambda: None)
