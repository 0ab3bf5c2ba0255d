"""`pure`: a tracked call as a pure function of its positional arguments."""

from collections.abc import Callable
from typing import Any

from ._tracked import collect


def pure(fn: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """`fn(*args, **kwargs)` as a pure function of `args`, for JAX's own transforms and other libraries.

    What `fn` changes in the keyword arguments stays inside, and random numbers are the same at each call.

    Args:
        fn: any function; its keyword arguments may hold params.
        **kwargs: what they are, as they are now.

    Returns:
        A function of the positional arguments alone, safe under `jax.grad`, `jax.jit`, `jax.vmap`, ...

    Example:
        >>> import jax, jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> w = px.Param(jnp.array(3.0))
        >>> f = pxf.pure(lambda x, *, w: w * x**2, w=w)
        >>> float(jax.grad(f)(2.0))
        12.0
    """
    structure, _, values = collect(kwargs)
    return lambda *args: structure.run(getattr(fn, "__name__", "fn"), fn, values, args)[0]
