"""`Stack`: equal layers with their vodes, computed all at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from ..core import DynamicParam, Mask, Module, describe, is_param
from ..functional import scan, vmap
from ..nn import LayerParam
from ._energy_module import EnergyModule
from ._vode import Vode

DIFFERENT = """Stack: the blocks must be equal but for their numbers: {what}. Build every block with the same \
arguments, as in `Stack(lambda: pxnn.Linear(64, 64), 16, shape=(64,))`"""

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
            callable module); called `n` times. Input and output of a block have the same shape.
        n: number of layers.
        *vode_args, **vode_kwargs: for the `Vode` that holds all states; its shape is that of one layer's
            state (`shape=(64,)`), to which the layer axis is added.

    Attributes:
        block: one module whose params have a leading axis of size n.
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
        self.block = _stacked(blocks)
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
        each = vmap({"block": _MAPPED}, in_axes=(0,))(_apply)
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

    def _forward(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """States and predictions of all layers, (n, *event), one after the other."""
        params = [p for p in tree_leaves(self.block, is_leaf=is_param) if is_param(p)]

        def layer(slices: Any, below: Any) -> tuple[Any, Any]:
            values, error = slices
            block, mine = _with_values(self.block, values)
            u = block(below)
            h = u if error is None else u + error
            return (h,), (h, u, [p.get() for p in mine])

        each = ([p.get() for p in params], self._errors)
        _, (states, predictions, after) = scan(layer, each)(jnp.asarray(x))
        for param, value in zip(params, after, strict=True):
            # weights come out as they went in; the state of a layer (batch statistics) may have moved
            if not isinstance(param, LayerParam):
                param.set(value)
        return states, predictions

    def __repr__(self) -> str:
        return f"Stack({self.n} x {self.block!r}, {self.vode!r})"


_MAPPED = Mask(DynamicParam).to((None, 0))


def _apply(x: Any, *, block: Any) -> Any:
    return block(x)


def _with_values(block: Any, values: list[Any]) -> tuple[Any, list[Any]]:
    """A copy of a block with other values in its params, and these params."""
    leaves, treedef = tree_flatten(block, is_leaf=is_param)
    rest = iter(values)
    new = [type(x).rebuild(next(rest), x.metadata) if is_param(x) else x for x in leaves]
    return tree_unflatten(treedef, new), [x for x in new if is_param(x)]


def _stacked(blocks: list[Any]) -> Any:
    """One block with every param's values of all blocks along a new first axis."""
    flat = [tree_flatten(block, is_leaf=is_param) for block in blocks]
    leaves, treedef = flat[0]
    if len({other for _, other in flat}) > 1:
        raise ValueError(DIFFERENT.format(what="their structures differ"))
    for others, _ in flat[1:]:
        for mine, other in zip(leaves, others, strict=True):
            if is_param(mine):
                a, b = describe(mine._value), describe(other._value)
                if a != b:
                    raise ValueError(
                        DIFFERENT.format(what=f"a param is {a} in one and {b} in another")
                    )
            elif mine is not other and not _equal(mine, other):
                raise ValueError(DIFFERENT.format(what=f"{mine!r} in one is {other!r} in another"))
    columns = zip(*(others for others, _ in flat), strict=True)
    new = [_stack_params(column) if is_param(column[0]) else column[0] for column in columns]
    return tree_unflatten(treedef, new)


def _stack_params(params: tuple[Any, ...]) -> Any:
    value = jax.tree_util.tree_map(lambda *xs: jnp.stack(xs), *(p._value for p in params))
    return type(params[0]).rebuild(value, params[0].metadata)


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):
        return False
