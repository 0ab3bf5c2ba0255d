"""ngc-learn: a discriminative circuit of the same widths, from its public components.

A `RateCell` for each layer of states, a `GaussianErrorCell` for each error, a `HebbianSynapse` forward and a
`StaticSynapse` with its transposed weights back; a chain of cells without dynamics sets the states to a forward
pass. The same number of steps on nodes of the same widths, and Adam on the weights; but a node predicts the next
one by `W phi(z) + b`, with the activation before the weights, its states move without momentum, and it starts from
weights of its own, so updates are not compared. Its steps run in its `scan`, the transposed weights are set after
each training step.
"""

import jax
import jax.numpy as jnp
from ngclearn import Context, MethodProcess
from ngclearn.components import GaussianErrorCell, HebbianSynapse, RateCell, StaticSynapse
from ngclearn.utils.distribution_generator import DistributionGenerator

from benchmarks import cases
from benchmarks.programs._program import Program

ACTIVATIONS = {"leaky_relu": "lrelu", "sigmoid": "sigmoid"}


def make(case: cases.Case) -> Program:
    keys = iter(jax.random.split(jax.random.PRNGKey(case.seed), 3 * len(case.layers)))
    pairs = list(zip(case.dims[:-1], case.dims[1:], strict=True))
    last = len(pairs)
    init = {"weight_init": DistributionGenerator.fan_in_gaussian()}
    zeros = DistributionGenerator.constant(0.0)

    def cell(name, size, index, tau):
        act = "identity" if index in (0, last) else ACTIVATIONS[case.act]
        return RateCell(name, n_units=size, tau_m=tau, act_fx=act, batch_size=case.batch)

    with Context("pc"):
        z = [cell(f"z{i}", n, i, 1 / case.state_lr) for i, n in enumerate(case.dims)]
        q = [cell(f"q{i}", n, i, 0.0) for i, n in enumerate(case.dims)]
        errors, forward, back, ahead = [], [], [], []
        for i, (inner, outer) in enumerate(pairs, start=1):
            errors.append(GaussianErrorCell(f"e{i}", n_units=outer, batch_size=case.batch))
            forward.append(
                HebbianSynapse(
                    f"W{i}", shape=(inner, outer), eta=case.weight_lr, optim_type="adam", sign_value=-1.0,
                    bias_init=zeros, key=next(keys), **init,
                )
            )  # fmt: skip
            ahead.append(
                StaticSynapse(f"Q{i}", shape=(inner, outer), key=next(keys),
                              bias_init=zeros, **init)
            )  # fmt: skip
            if i > 1:
                back.append(StaticSynapse(f"E{i}", shape=(outer, inner), key=next(keys), **init))
        for i, (w, e, a) in enumerate(zip(forward, errors, ahead, strict=True)):
            z[i].zF >> w.inputs
            w.outputs >> e.mu
            z[i + 1].z >> e.target
            z[i].zF >> w.pre
            e.dmu >> w.post
            q[i].zF >> a.inputs
            a.outputs >> q[i + 1].j
            e.dtarget >> z[i + 1].j_td
        for i, b in enumerate(back, start=1):
            errors[i].dmu >> b.inputs
            b.outputs >> z[i].j
        advance = MethodProcess("advance")
        for part in (*forward, *errors, *back, *z[1:-1]):
            advance = advance >> part.advance_state
        evolve = MethodProcess("evolve")
        for part in (*forward, *errors):
            evolve = evolve >> part.advance_state
        for w in forward:
            evolve = evolve >> w.evolve
        project = MethodProcess("project")
        for i, a in enumerate(ahead):
            project = project >> q[i].advance_state >> a.advance_state
        project = project >> q[-1].advance_state
    rows = jnp.asarray(advance.pack_rows(case.T, t=0.0, dt=1.0))
    x, y = (jnp.asarray(array) for array in cases.batch(case))

    def tie():
        for w, a in zip(forward, ahead, strict=True):
            a.weights.set(w.weights.get())
            a.biases.set(w.biases.get())
        for w, b in zip(forward[1:], back, strict=True):
            b.weights.set(w.weights.get().T)

    def start():
        q[0].j.set(x)
        project.run(t=0.0, dt=1.0)
        for own, projected in zip(z, q, strict=True):
            own.z.set(projected.z.get())
            own.zF.set(projected.zF.get())
        z[-1].z.set(y)

    def step():
        start()
        settled, _ = advance.scan(rows)
        evolve.run(state=settled, t=1.0, dt=1.0)
        tie()
        return forward[-1].weights.get()

    tie()
    start()
    advance.run(t=0.0, dt=1.0)  # the scan wants all arrays in their final shapes
    return Program(step, lambda: None)
