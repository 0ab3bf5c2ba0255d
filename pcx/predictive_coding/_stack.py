"""`Stack`: equal layers with their vodes, computed all at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path, tree_map, tree_unflatten

from ..core import Mask, Module, RandomKey, describe, is_param, path_str, static
from ..functional import scan, vmap
from ..nn import LayerParam, StateParam
from ..nn._param import HeldKey
from ._energy_module import EnergyModule
from ._vode import Vode

DIFFERENT = """Stack: the blocks must be equal but for their numbers: {what}. Build every block with the same \
arguments, as in `Stack(lambda: pxnn.Linear(64, 64), 16, shape=(64,))`"""

PARTLY = """Stack: `{path}` is one param in some of the {n} blocks, not in all of them at this place. Let all \
blocks share it, or none: a function that builds every block alike shares what it was given, and makes anew what \
it makes itself"""

SHARED_STATE = """Stack: all {n} blocks share `{path}`, the state of a layer, which each of them would change, \
although a stack computes them all at once. Make that layer anew in each block, so that each has its own state"""

TRANSFORMED = """Stack: the rule {rule!r} (status {status!r}) transforms the state of one layer before the next \
reads it, which a stack cannot do for all layers at once. Use separate vodes for such a model"""


class Stack(EnergyModule):
    """`n` equal layers, each followed by a vode, with all their params and states stacked.

    The same network as

        for block, vode in zip(blocks, vodes):
            x = vode(block(x))

    but every inference step computes all predictions `u_l = block_l(h_{l-1})` and all updates in one batched
    operation, and compile time does not grow with the number of layers. Initialisation, where each layer
    waits for the one below, is a scan.

    Args:
        make_block: a function without arguments that builds one block (a layer, a `Sequential`, any
            callable module); called `n` times. Input and output of a block have the same shape. What
            it does not make itself, but was given, all blocks share: `Stack(lambda: Block(ff), 16)`
            has one `ff`, and one gradient for it, the sum of all layers'.
        n: number of layers.
        *vode_args, **vode_kwargs: for the `Vode` that holds all states; its shape is that of one layer's
            state (`shape=(64,)`), to which the layer axis is added.

    Attributes:
        block: one module whose params have a leading axis of size n; those that all blocks share have
            none.
        vode: the vode; `vode.h` is (n, *event), with the batch in front under a batched algorithm.

    Raises:
        TypeError: blocks that are no callable modules. ValueError: fewer than one layer, blocks of
            different structure.

    Example:
        >>> import jax, jax.numpy as jnp, pcx.nn as pxnn, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> stack = pxc.Stack(
        ...     lambda: pxnn.Sequential(pxnn.Linear(8, 8), jax.nn.tanh), 16, shape=(8,)
        ... )
        >>> with pxu.step(stack, pxc.STATUS.INIT):
        ...     top = stack(jnp.ones(8))
        >>> top.shape, stack.vode.h.shape
        ((8,), (16, 8))
    """

    # inference on errors (EPC) sets it in its own copy: added to the predictions, (n, *event)
    _errors: Any = None

    def __init__(self, make_block: Callable[[], Any], n: int, *vode_args: Any, **vode_kwargs: Any):
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"Stack needs at least one layer; got n = {n!r}")
        blocks = [make_block() for _ in range(n)]
        if not all(isinstance(b, Module) and callable(b) for b in blocks):
            raise TypeError(
                f"Stack takes a function that builds a callable module; it gave {blocks[0]!r}. For a plain "
                "function beside a layer, write `pxnn.Sequential(layer, function)`"
            )
        self.n = n
        self.block, shared = _stacked(blocks)
        self._shared = static(shared)
        shape = vode_kwargs.pop("shape", None)
        if vode_args and isinstance(vode_args[0], int | tuple | list):
            shape, *rest = vode_args
            vode_args = tuple(rest)
        if shape is not None:
            shape = (n, shape) if isinstance(shape, int) else (n, *shape)
        self.vode = Vode(*vode_args, shape=shape, **vode_kwargs)

    def __call__(self, x: Any) -> Any:
        """The state of the top layer, after every layer's prediction is stored.

        Args:
            x: input of the first layer, of the shape of one state.
        """
        if self._errors is not None or self._follows():
            states, predictions = self._forward(x)
            self.vode(predictions)
            return states[-1]
        h = self.vode.get("h")
        if h is None:
            raise ValueError(
                "Stack: the states are empty. Initialise them by a forward pass first: "
                "`with pxu.step(model, pxc.STATUS.INIT): model(x)`"
            )
        below = jnp.concatenate([jnp.asarray(x)[None], h[:-1]])
        stacked = set(map(id, self.stacked()))
        mask = Mask(lambda param: id(param) in stacked).to((None, 0))
        each = vmap({"block": mask}, in_axes=(0,))(_apply)
        return self.vode(each(below, block=self.block))[-1]

    def _follows(self) -> bool:
        """Whether, in the present status, each layer's state is its own prediction."""
        rules = self.vode.ruleset
        status = self.vode._status
        setting = [r for r in rules.on_set(status, "u") if "h" in r.targets]
        asking = rules.on_get(status, "h")
        for rule in (*setting, *([] if asking is None else [asking])):
            if rule.tforms:
                raise ValueError(TRANSFORMED.format(rule=rule.text, status=status))
        return bool(setting) or (asking is not None and asking.targets == ("u",))

    def stacked(self) -> list[Any]:
        """The params of the block that have one value for each layer, along their first axis."""
        leaves = tree_flatten_with_path(self.block, is_leaf=is_param)[0]
        found = {
            id(p): p for path, p in leaves if is_param(p) and path_str(path) not in self._shared
        }
        return list(found.values())

    def _forward(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """States and predictions of all layers, (n, *event), one after the other."""
        params = self.stacked()

        def layer(slices: Any, below: Any) -> tuple[Any, Any]:
            values, error = slices
            block, mine = _with_values(self.block, params, values)
            u = block(below)
            h = u if error is None else u + error
            return (h,), (h, u, [p._value for p in mine])

        each = ([_per_layer(p, self.n) for p in params], self._errors)
        _, (states, predictions, after) = scan(layer, each)(jnp.asarray(x))
        for param, value in zip(params, after, strict=True):
            # weights come out as they went in; the state of a layer (batch statistics) may have moved
            if not isinstance(param, LayerParam | RandomKey):
                param.set(value)
            elif isinstance(param, RandomKey) and not isinstance(param, HeldKey):
                param.set(value[0])
        return states, predictions

    def __repr__(self) -> str:
        return f"Stack({self.n} x {self.block!r}, {self.vode!r})"


def _apply(x: Any, *, block: Any) -> Any:
    return block(x)


def _per_layer(param: Any, n: int) -> Any:
    """The values of a param, one for each layer; of a random key as `pxf.vmap` splits it."""
    if isinstance(param, RandomKey) and param.get() is not None:
        return jax.random.split(param.get(), n)
    return param._value


def _with_values(block: Any, params: list[Any], values: list[Any]) -> tuple[Any, list[Any]]:
    """A copy of a block with other values in some of its params, and these params."""
    pairs = zip(params, values, strict=True)
    new = {id(p): type(p).rebuild(value, p.metadata) for p, value in pairs}
    copy = tree_map(lambda leaf: new.get(id(leaf), leaf), block, is_leaf=is_param)
    return copy, list(new.values())


def _stacked(blocks: list[Any]) -> tuple[Any, tuple[str, ...]]:
    """One block with every param's values of all blocks along a new first axis.

    Params that all blocks share stay as they are; their paths are the second result. A param that
    one block uses twice is one param in the result as well.
    """
    flat = [tree_flatten_with_path(block, is_leaf=is_param) for block in blocks]
    treedef = flat[0][1]
    if len({other for _, other in flat}) > 1:
        raise ValueError(DIFFERENT.format(what="their structures differ"))
    new: list[Any] = []
    shared: list[str] = []
    made: dict[tuple[int, ...], Any] = {}
    place: dict[int, tuple[int, ...]] = {}
    for column in zip(*(leaves for leaves, _ in flat), strict=True):
        path, parts = path_str(column[0][0]), [leaf for _, leaf in column]
        _check_equal(parts)
        ids = tuple(map(id, parts))
        if not is_param(parts[0]):
            new.append(parts[0])
            continue
        everywhere = len(ids) > 1 and len(set(ids)) == 1
        once = len(set(ids)) == len(ids)
        if not (everywhere or once) or any(place.setdefault(i, ids) != ids for i in ids):
            raise ValueError(PARTLY.format(n=len(blocks), path=path))
        if everywhere:
            if isinstance(parts[0], StateParam):
                raise ValueError(SHARED_STATE.format(n=len(blocks), path=path))
            shared.append(path)
            new.append(parts[0])
        else:
            new.append(made.setdefault(ids, _stack_params(parts)))
    return tree_unflatten(treedef, new), tuple(shared)


def _check_equal(parts: list[Any]) -> None:
    """Refuse params of different shapes, and other leaves that differ."""
    first = parts[0]
    for other in parts[1:]:
        if is_param(first):
            a, b = describe(first._value), describe(other._value)
            if a != b:
                raise ValueError(DIFFERENT.format(what=f"a param is {a} in one and {b} in another"))
        elif first is not other and not _equal(first, other):
            raise ValueError(DIFFERENT.format(what=f"{first!r} in one is {other!r} in another"))


def _stack_params(params: list[Any]) -> Any:
    if isinstance(params[0], RandomKey):
        return params[0]  # one for all: `pxf.vmap` gives each layer its own part
    value = tree_map(lambda *xs: jnp.stack(xs), *(p._value for p in params))
    return type(params[0]).rebuild(value, params[0].metadata)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, jax.Array):
        return isinstance(b, jax.Array) and bool(jnp.array_equal(a, b))
    try:
        return bool(a == b)
    except (TypeError, ValueError):
        return False
