"""What every learning algorithm has to do: checks to run against one of your own.

    from pcx.algorithms.conformance import check_algorithm

    def test_my_algorithm():
        check_algorithm(lambda model: MyAlgorithm(model, T=4), lambda: pxm.MLP([3, 4, 4, 2]), x, y)

Each check raises an AssertionError that says what is wrong, and needs nothing beside pcx. Build the
optimisers once, outside of `make_algorithm`: then all checks share compiled functions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..core import RKG, named_params
from ..nn import LayerParam
from ..predictive_coding import VodeParam, vodes
from ._pc import PC

Make = Callable[[Any], PC]
MakeModel = Callable[[], Any]


def check_algorithm(
    make_algorithm: Make,
    make_model: MakeModel,
    x: PyTree,
    y: PyTree,
    *,
    descends: bool = True,
    per_sample: bool = True,
    infers: bool = True,
) -> None:
    """Run every check.

    Args:
        make_algorithm: from a model to an algorithm on it.
        make_model: a fresh model, small; called several times.
        x, y: a batch of at least three samples.
        descends: whether inference lowers the energy (not for sampling, or for constrained descent).
        per_sample: whether a sample's inference is independent of the others in its batch (not for
            noise drawn for the whole batch).
        infers: whether the algorithm has an inference phase on the states.

    Raises:
        AssertionError: a check fails.
    """
    check_step(make_algorithm, make_model, x, y)
    check_seed(make_algorithm, make_model, x, y)
    check_traces(make_algorithm, make_model, x, y)
    check_batch_sizes(make_algorithm, make_model, x, y, per_sample=per_sample)
    check_prediction(make_algorithm, make_model, x)
    check_lazy(make_algorithm, make_model, x, y)
    check_messages(make_algorithm, make_model, x, y)
    if infers:
        check_inference(make_algorithm, make_model, x, y, descends=descends)
        check_frozen_nodes(make_algorithm, make_model, x, y)


def check_step(make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree) -> None:
    """A training step gives finite numbers, moves weights and nothing else, and leaves no states behind."""
    model = _seeded(make_model)
    frozen = next(p for p in _weights(model).values())
    frozen.frozen = True
    algorithm = make_algorithm(model)
    before = {path: _copy(p) for path, p in _weights(model).items()}
    others = _others(model)
    metrics = algorithm.train_step(x, y)
    _check("energy" in metrics, f'train_step gives {sorted(metrics)}, without "energy"')
    for name, value in metrics.items():
        _check(bool(np.all(np.isfinite(value))), f"{name} is not finite: {value}")
    _check(np.shape(metrics["energy"]) == (), '"energy" is not one number, the mean over the batch')
    moved = {path for path, p in _weights(model).items() if np.any(_copy(p) != before[path])}
    stuck = sorted(set(before) - moved - {p for p, q in _weights(model).items() if q is frozen})
    _check(
        not any(q is frozen and p in moved for p, q in _weights(model).items()),
        "a frozen weight moved",
    )
    _check(not stuck, f"after one step these weights have not moved: {', '.join(stuck)}")
    for path, value in _others(model).items():
        same = path in others and np.array_equal(value, others[path])
        _check(same, f"{path} is no weight, but the step changed it")
    for path, param in named_params(model):
        left = isinstance(param, VodeParam) and param.get() is not None
        _check(not left, f"the step left a state behind in {path}")


def check_seed(make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree) -> None:
    """The same seed gives the same weights, bit for bit."""
    results = []
    for _ in range(2):
        model = _seeded(make_model)
        algorithm = make_algorithm(model)
        RKG.seed(1)
        algorithm.start_epoch(0)
        algorithm.train_step(x, y)
        algorithm.train_step(x, y)
        results.append({path: _copy(p) for path, p in _weights(model).items()})
    for path, value in results[0].items():
        _check(np.array_equal(value, results[1][path]), f"{path} differs between two equal runs")


def check_traces(make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree) -> None:
    """After its first step an algorithm never runs the model's Python code again for equal shapes."""
    model = _seeded(make_model)
    algorithm = make_algorithm(model)
    algorithm.start_epoch(0)
    with _counting_calls(type(model)) as calls:
        algorithm.train_step(x, y)
        first = calls[0]
        for epoch in (0, 1, 2):
            algorithm.start_epoch(epoch)
            algorithm.train_step(x, y)
        again = calls[0] - first
    _check(again == 0, f"the step was traced again: {again} more calls of the model")


def check_batch_sizes(
    make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree, *, per_sample: bool = True
) -> None:
    """Batches of other sizes are handled in turn; a sample's energy does not depend on its neighbours."""
    algorithm = make_algorithm(_seeded(make_model))
    for size in (None, 1, None):
        metrics = algorithm.train_step(_part(x, size), _part(y, size))
        _check(bool(np.isfinite(metrics["energy"])), f"a batch of {size or 'all'} gives no energy")
    together = np.asarray(algorithm.energy(x, y))
    batch = jax.tree_util.tree_leaves(x if x is not None else y)[0].shape[0]
    _check(together.shape == (batch,), f"energy(x, y) has shape {together.shape}, not ({batch},)")
    if per_sample:
        alone = np.asarray(algorithm.energy(_part(x, 1), _part(y, 1)))[0]
        close = np.allclose(together[0], alone, rtol=1e-4, atol=1e-6)
        _check(close, f"a sample's energy is {alone} alone and {together[0]} in a batch")


def check_prediction(make_algorithm: Make, make_model: MakeModel, x: PyTree) -> None:
    """Predicting needs no target, gives one prediction for each sample, and changes nothing."""
    model = _seeded(make_model)
    algorithm = make_algorithm(model)
    before = {path: _copy(p) for path, p in _weights(model).items()}
    prediction = algorithm.predict(x)
    batch = jax.tree_util.tree_leaves(x)[0].shape[0]
    _check(prediction.shape[0] == batch, f"{batch} samples give a prediction of {prediction.shape}")
    for path, value in _weights(model).items():
        _check(np.array_equal(before[path], _copy(value)), f"predict changed {path}")


def check_inference(
    make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree, *, descends: bool = True
) -> None:
    """Inference moves free states, keeps the clamped ones, learns nothing, and lowers the energy."""
    model = _seeded(make_model)
    algorithm = make_algorithm(model)
    before = {path: _copy(p) for path, p in _weights(model).items()}
    _, record = algorithm.infer(x, y, trajectory=True)
    energies = np.asarray(record.energies).sum(-1)
    _check(
        len(energies) == int(record.steps) + 1, f"{record.steps} steps, {len(energies)} energies"
    )
    if descends:
        _check(
            energies[-1] < energies[0],
            f"inference took the energy from {energies[0]} to {energies[-1]}",
        )
    moved = False
    for vode, states in zip(vodes(algorithm.model), record.states or (), strict=True):
        if vode.is_frozen and algorithm.clamps_output:
            _check(np.array_equal(states[0], states[-1]), "inference moved a clamped state")
        else:
            moved |= bool(np.any(states[0] != states[-1]))
    _check(moved, "inference moved no state")
    for path, value in _weights(model).items():
        _check(
            np.array_equal(before[path], _copy(value)),
            f"infer, which must not learn, changed {path}",
        )


def check_frozen_nodes(make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree) -> None:
    """A hidden node that is frozen stays where initialisation put it."""
    model = _seeded(make_model)
    free = [vode for vode in vodes(model) if not vode.is_frozen]
    free[-1].h.frozen = True
    algorithm = make_algorithm(model)
    position = next(k for k, v in enumerate(vodes(algorithm.model)) if v.h is free[-1].h)
    _, record = algorithm.infer(x, y, trajectory=True)
    states = (record.states or ())[position]
    _check(np.array_equal(states[0], states[-1]), "a frozen node moved during inference")


def check_lazy(
    make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree, *, rtol: float = 1e-5
) -> None:
    """Lazy inference changes nothing: states, weights and optimiser state are those of `lazy=False`.

    Args:
        rtol: how far two values may differ, relative to the largest of their array: XLA may round
            elementwise arithmetic otherwise in another program.
    """
    results = []
    for lazy in (True, False):
        algorithm = make_algorithm(_seeded(make_model))
        algorithm.lazy = lazy
        algorithm.start_epoch(0)
        _, record = algorithm.infer(x, y, energies=False, trajectory=True)
        found = {
            f"state of {n}": h
            for n, h in zip(algorithm.vode_names, record.states or (), strict=False)
        }
        for _ in range(2):
            algorithm.train_step(x, y)
        found |= {p: _copy(w) for p, w in _weights(algorithm.model).items()}
        for path, leaf in jax.tree_util.tree_flatten_with_path(algorithm.weight_optim.state.get())[
            0
        ]:
            found[f"weight_optim.state{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
        results.append({name: np.asarray(value) for name, value in found.items()})
    for name, value in results[0].items():
        full = results[1][name]
        scale = rtol * max(float(np.max(np.abs(full), initial=0.0)), 1e-30)
        far = float(np.max(np.abs(value - full), initial=0.0)) if value.size else 0.0
        _check(far <= scale, f"{name} is another with lazy=True, by up to {far:.3g}")


def check_messages(make_algorithm: Make, make_model: MakeModel, x: PyTree, y: PyTree) -> None:
    """Data of the wrong shape gives a ValueError that names the node, or the sizes; then all is well."""
    algorithm = make_algorithm(_seeded(make_model))
    wrong = jax.tree_util.tree_map(lambda a: np.concatenate([a, a], axis=-1), y)
    message = _message_of(lambda: algorithm.train_step(x, wrong))
    named = any(name in message for name in algorithm.vode_names)
    _check(named, f"a target of the wrong shape gives an error that names no vode: {message!r}")
    message = _message_of(lambda: algorithm.train_step(x, _part(y, 1)))
    _check("size" in message, f"x and y of different batch sizes give the error {message!r}")
    metrics = algorithm.train_step(x, y)
    _check(bool(np.isfinite(metrics["energy"])), "after a refused batch the next one fails")


def _check(condition: Any, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _message_of(run: Callable[[], Any]) -> str:
    try:
        run()
    except ValueError as error:
        return str(error)
    raise AssertionError("data of the wrong shape was accepted without an error")


def _seeded(make_model: MakeModel) -> Any:
    RKG.seed(0)
    return make_model()


def _weights(model: Any) -> dict[str, Any]:
    return {path: p for path, p in named_params(model) if isinstance(p, LayerParam)}


def _others(model: Any) -> dict[str, Any]:
    """Values of all params that are neither weights nor states."""
    skipped = (LayerParam, VodeParam, VodeParam.Cache)
    named = [(path, p) for path, p in named_params(model) if not isinstance(p, skipped)]
    return {path: np.array(p.get()) for path, p in named if p.get() is not None}


def _copy(param: Any) -> np.ndarray:
    # a copy, since training may reuse the memory
    return np.array(param.get())


def _part(data: Any, size: int | None) -> Any:
    return jax.tree_util.tree_map(lambda a: a[:size], data)


@contextmanager
def _counting_calls(cls: type) -> Iterator[list[int]]:
    """Counts calls of the instances of a class."""
    count, original = [0], cls.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return original(self, *args, **kwargs)

    cls.__call__ = counted  # type: ignore[method-assign]
    try:
        yield count
    finally:
        cls.__call__ = original  # type: ignore[method-assign]
