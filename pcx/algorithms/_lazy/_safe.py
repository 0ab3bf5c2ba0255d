"""Where skipping is allowed: classes whose step is the plain one, or that declare their own to be safe."""

from typing import Any, TypeVar

from ...utils import Optim

T = TypeVar("T")

# what decides which gradients are zero, and what is done with them
HOOKS = (
    "train",
    "infer_states",
    "start_states",
    "step_states",
    "step_weights",
    "weight_gradients",
    "sample_energies",
    "inference_energy",
    "learning_energy",
)


def lazy_safe(declared: T) -> T:
    """Declare that an override keeps exact what lazy inference leaves out.

    Lazy inference does not compute gradients that are exactly zero: those of a node's state and weights as
    long as its error is zero and nothing in the energy beside the vodes' own terms depends on them. It runs
    only where every method that enters energy, gradient, step or learning rule is pcx's own, or is marked so.
    Mark an override only if, with zero errors below the output at first,

    * the gradients that PC would find zero are zero for it as well, and
    * a state or weight with a zero gradient does not move.

    `pcx.algorithms.conformance.check_lazy` tries it: states, weights and optimiser state must be those of
    `lazy=False`.

    Args:
        declared: a method, or a class for all the methods that it defines.

    Returns:
        The same object.

    Example:
        >>> import pcx.algorithms as pxa
        >>> class Halved(pxa.PC):
        ...     @pxa.lazy_safe
        ...     def inference_energy(self, x, y, *, model):  # half of zero is zero
        ...         return 0.5 * super().inference_energy(x, y, model=model)
    """
    own = vars(declared).values() if isinstance(declared, type) else (declared,)
    for method in own:
        if callable(method) and not isinstance(method, type):
            method.lazy_safe = True
    return declared


def is_plain(algorithm: Any, step: Any) -> bool:
    """Whether every method behind a step, and both optimisers' own, are pcx's or declared safe."""
    cls = type(algorithm)
    methods = [step, *(getattr(cls, name) for name in HOOKS)]
    return (
        all(getattr(method, "lazy_safe", False) for method in methods)
        and not any(name in vars(algorithm) for name in HOOKS)
        and type(algorithm.state_optim).step is Optim.step
    )
