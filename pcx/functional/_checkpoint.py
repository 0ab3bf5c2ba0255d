"""`checkpoint` that keeps track of params."""

from collections.abc import Callable
from typing import Any

import jax

from ._leaves import WithStatics, with_statics
from ._tracked import Updates, changes, collect, write_back
from ._transform import Transform, refuse_non_data


class Checkpoint(Transform):
    """See `checkpoint`."""

    name = "checkpoint"

    def __init__(self, fn: Callable[..., Any], **checkpoint_kwargs: Any):
        super().__init__(fn)
        self.checkpoint_kwargs = checkpoint_kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_non_data(self.title, args)
        structure, params, values = collect(kwargs, self.title)

        def run(values: Any, args: Any) -> tuple[Any, Updates]:
            result, updates = structure.run(self.title, self.fn, values, args)
            return with_statics(result), updates

        result, updates = jax.checkpoint(run, **self.checkpoint_kwargs)(values, args)
        write_back(params, changes(updates))
        return result.value() if type(result) is WithStatics else result


def checkpoint(
    policy: Callable[..., bool] | None = None, prevent_cse: bool = True
) -> Callable[[Callable[..., Any]], Checkpoint]:
    """Compute a function again in the backward pass instead of keeping its intermediate values.

    Values and gradients are the same; memory is traded for time, as in `jax.checkpoint`.

    Args:
        policy: which intermediate values to keep, one of `jax.checkpoint_policies`; none if None.
        prevent_cse: as in `jax.checkpoint`; False is faster inside `pxf.scan`.

    Returns:
        A decorator. The keyword arguments of the decorated function are tracked.

    Raises:
        TypeError: at the call, if a positional argument is no array.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> w, calls = px.Param(jnp.array(0.5)), px.Param(jnp.array(0))
        >>> @pxf.checkpoint()
        ... def block(x, *, w, calls):
        ...     calls += 1
        ...     return jnp.sin(w * x)
        >>> loss = lambda x, *, w, calls: block(x, w=w, calls=calls) ** 2
        >>> value, grads = pxf.value_and_grad({"w": True})(loss)(2.0, w=w, calls=calls)
        >>> bool(jnp.isclose(grads["w"].get(), 4 * jnp.sin(1.0) * jnp.cos(1.0))), int(calls)
        (True, 1)
    """
    return lambda fn: Checkpoint(fn, policy=policy, prevent_cse=prevent_cse)
