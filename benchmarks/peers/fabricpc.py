"""FabricPC: the same MLP as a graph of Linear nodes, through its public `make_train_step`.

Its SGD on the states has no momentum, so the numbers differ from the other programs'; the work per
step differs by one multiply-add per state. States are initialised by its feed-forward initialiser.
"""

import itertools

import fabricpc
import jax
import jax.numpy as jnp
import numpy as np
import optax
from fabricpc.core.activations import (
    IdentityActivation,
    LeakyReLUActivation,
    SigmoidActivation,
)
from fabricpc.core.energy import CrossEntropyEnergy, GaussianEnergy
from fabricpc.core.inference import InferenceSGD
from fabricpc.core.topology import Edge
from fabricpc.graph_assembly import TaskMap, graph
from fabricpc.graph_initialization import FeedforwardStateInit
from fabricpc.nodes import Linear
from fabricpc.training import make_train_step

from benchmarks import cases
from benchmarks.programs._program import Program

ACTIVATIONS = {"leaky_relu": LeakyReLUActivation, "sigmoid": SigmoidActivation}


def build(case: cases.Case):
    last = len(case.dims) - 1
    nodes = [Linear(shape=(case.dims[0],), name="node0")]
    for index, width in enumerate(case.dims[1:], start=1):
        nodes.append(
            Linear(
                shape=(width,),
                name=f"node{index}",
                activation=IdentityActivation() if index == last else ACTIVATIONS[case.act](),
                energy=CrossEntropyEnergy()
                if index == last and case.loss == "ce"
                else GaussianEnergy(),
            )
        )
    return graph(
        nodes=nodes,
        edges=[Edge(source=a, target=b.slot("in")) for a, b in itertools.pairwise(nodes)],
        task_map=TaskMap(x=nodes[0], y=nodes[-1]),
        inference=InferenceSGD(eta_infer=case.state_lr, infer_steps=case.T),
        graph_state_initializer=FeedforwardStateInit(),
    )


def load_weights(params, weights):
    """The case's first weights in FabricPC's own parameters, which keep a matrix (in, out)."""

    def place(path, leaf):
        index = next(
            i for i in range(len(weights) + 1) if f"'node{i}'" in jax.tree_util.keystr(path)
        )
        if index == 0:
            return leaf
        weight, bias = weights[index - 1]
        if leaf.size == bias.size and leaf.size != weight.size:
            return jnp.asarray(bias).reshape(leaf.shape)
        if leaf.size != weight.size:
            raise ValueError(
                f"no array of the case fits {jax.tree_util.keystr(path)}: {leaf.shape}"
            )
        return jnp.asarray(weight.T).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(place, params)


def make(case: cases.Case, algorithm: str = "pc") -> Program:
    """`algorithm`: "pc" or "backprop", as FabricPC names them."""
    structure = build(case)
    params = fabricpc.initialize_params(structure, jax.random.PRNGKey(0))
    params = load_weights(params, cases.initial_weights(case))
    optimizer = optax.adamw(case.weight_lr)
    train_step = make_train_step(structure, optimizer, algorithm=algorithm)
    x, y = (jnp.asarray(array) for array in cases.batch(case))
    key = jax.random.PRNGKey(1)
    carry = (params, optimizer.init(params))

    def step():
        nonlocal carry
        *carry, _, _ = train_step(*carry, {"x": x, "y": y}, key)
        return carry[0]

    def read_weights():
        found = []
        leaves = jax.tree_util.tree_leaves_with_path(carry[0])
        for index, (weight, bias) in enumerate(case.weight_shapes(), start=1):
            own = [leaf for path, leaf in leaves if f"'node{index}'" in jax.tree_util.keystr(path)]
            by_size = {leaf.size: np.asarray(leaf) for leaf in own}
            found.append(
                (
                    by_size[int(np.prod(weight))].reshape(weight[::-1]).T,
                    by_size[bias[0]].reshape(bias),
                )
            )
        return found

    return Program(step, read_weights)
