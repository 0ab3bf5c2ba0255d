"""Published libraries that are measured beside this one, each in an environment of its own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from benchmarks.programs import Entry


class Peer(NamedTuple):
    """What to install, what to run there, and what a reader must know of the comparison."""

    requirements: tuple[str, ...]
    entry: Entry
    caveat: str = ""
    why_dense_only: str = ""
    pythons: tuple[str, ...] = ()  # the versions it has wheels for; () for any
    variables: Mapping[str, str] = MappingProxyType({})  # of its process's environment


# "{torch}" is replaced by the command line's --torch-spec.
PEERS: dict[str, Peer] = {
    "pcx-0.6.3": Peer(
        ("pcx==0.6.3",),
        Entry(
            "benchmarks.programs.low_level",
            {"loop": "for"},
            "PCX 0.6.3 as published, with the JAX it pins; the same file as low-level",
        ),
    ),
    "fabricpc": Peer(
        ("fabricpc",),
        Entry(
            "benchmarks.peers.fabricpc",
            {"algorithm": "pc"},
            "FabricPC, make_train_step(algorithm='pc')",
            dense_only=True,
        ),
        caveat="its SGD on the states has no momentum; without it the floor's update is the same",
        why_dense_only="only the dense cases are written for it",
    ),
    "fabricpc-bp": Peer(
        ("fabricpc",),
        Entry(
            "benchmarks.peers.fabricpc",
            {"algorithm": "backprop"},
            "FabricPC, make_train_step(algorithm='backprop')",
            learns_by="bp",
            dense_only=True,
        ),
        why_dense_only="only the dense cases are written for it",
    ),
    "pcn-torch": Peer(
        ("{torch}", "pcn-torch"),
        Entry("benchmarks.peers.pcn_torch", {}, "pcn-torch, train_pcn", dense_only=True),
        caveat="another algorithm of the same widths: generative, no biases, SGD on the weights",
        why_dense_only="it has no convolutional layers",
    ),
    "ngc-learn": Peer(
        ("ngclearn",),
        Entry(
            "benchmarks.peers.ngclearn",
            {},
            "ngc-learn, a circuit of its cells and synapses, its scan",
            dense_only=True,
        ),
        caveat="activations come before the weights, states descend without momentum, Adam without decay",
        why_dense_only="only the dense cases are written for it",
    ),
    "deepity": Peer(
        ("pydeepity",),
        Entry("benchmarks.peers.deepity", {}, "Deepity, SimplePCN.train_step", dense_only=True),
        caveat="a C++ engine; activations come before the weights, states descend without momentum, and "
        "ReLU stands for leaky ReLU",
        why_dense_only="only the dense cases are written for it",
        pythons=("3.13", "3.12"),
        # its threads would spin while the others are timed
        variables=MappingProxyType({"OMP_WAIT_POLICY": "passive"}),
    ),
}
