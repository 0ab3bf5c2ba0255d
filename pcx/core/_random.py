"""Random keys: a generator that is state like any other, and the default one."""

import jax

from ._module import BaseModule
from ._param import Param


class RandomKeyGenerator(BaseModule):
    """Gives a fresh JAX key at every call; its state is the param `key`.

    Under a tracked transform the state travels with the arguments: a jitted function draws new
    numbers at every call, and each mapped element of a `pxf.vmap` has its own stream.

    Args:
        seed: an int; the same seed gives the same keys.

    Example:
        >>> import pcx as px
        >>> rkg = px.RandomKeyGenerator(0)
        >>> rkg(3).shape[0], rkg(0).shape[0]
        (3, 0)
    """

    def __init__(self, seed: int = 0):
        self.key = Param(jax.random.PRNGKey(seed))

    def seed(self, seed: int) -> None:
        """Start again from `seed`."""
        self.key.set(jax.random.PRNGKey(seed))

    def __call__(self, n: int | None = None) -> jax.Array:
        """A key, or an array of `n` keys (`n` may be 0).

        Raises:
            ValueError: n is negative.
        """
        if n is not None and n < 0:
            raise ValueError(f"rkg(n) gives n >= 0 keys, got n = {n}")
        keys = jax.random.split(self.key.get(), 2 if n is None else n + 1)
        self.key.set(keys[0])
        return keys[1] if n is None else keys[1:]


class _Default(RandomKeyGenerator):
    """The default generator: its first key is made when first asked for, not at import,

    because making an array starts JAX's backends, which users may still want to configure.
    """

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Param:
        if name != "key":
            raise AttributeError(f"'RandomKeyGenerator' object has no attribute {name!r}")
        # the first use may happen while tracing; the key must be a concrete array even then
        with jax.ensure_compile_time_eval():
            self.key = Param.rebuild(jax.random.PRNGKey(0))
            self.key._scope = None
        return self.key


RKG = _Default()
