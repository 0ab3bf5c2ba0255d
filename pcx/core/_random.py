"""Random keys: a generator that is state like any other, and the default one."""

import copy
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _scope
from ._module import BaseModule
from ._param import Param

UNTRACKED = """a random number generator draws inside a JAX transform that does not track its \
state (`jax.jit`, `jax.vmap`, `jax.lax.map` or another of `jax`'s own): it would draw the same each \
time, or be left with a dead tracer. Use the transform of the same name in `pcx.functional` \
(`pxf.jit`, `pxf.vmap`, `pxf.scan`, ...), and pass a generator of your own by keyword (`px.RKG` \
always comes along); or pass keys, as in plain JAX"""


# held while a key is drawn and the next state is stored: threads share the default generator
RKG_LOCK = threading.RLock()


def new_key(seed: int) -> jax.Array:
    """A key from a seed: a raw array as in PCX, or a typed one if JAX is told to refuse raw ones."""
    return jax.random.PRNGKey(seed) if _raw_allowed() else jax.random.key(seed)


def _raw_allowed() -> bool:
    config: Any = jax.config
    return config.jax_legacy_prng_key == "allow"


def _allowed(key: Any) -> Any:
    """A key in the form that JAX takes now."""
    raw = not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(key) if raw and not _raw_allowed() else key


class RandomKey(Param):
    """The state of a generator. `pxf.vmap` gives each mapped element its own."""

    __slots__ = ()
    # whether `pxf.vmap` splits it for its elements even where no mask maps it
    per_element = False


def uncommitted(key: Any) -> Any:
    """A key that may be used on any device; itself, if it is not bound to one."""
    if _scope.has_tracer(key) or not getattr(key, "committed", False):
        return key
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    free = jnp.asarray(np.asarray(data))
    return free if data is key else jax.random.wrap_key_data(free, impl=jax.random.key_impl(key))


class RandomKeyGenerator(BaseModule):
    """Returns a fresh JAX key at every call; its state is the param `key`.

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
        self.key = RandomKey(new_key(seed))

    def seed(self, seed: int) -> None:
        """Start again from `seed`."""
        self.key.set(new_key(seed))

    def __call__(self, n: int | None = None) -> jax.Array:
        """A key, or an array of `n` keys (`n` may be 0).

        Raises:
            ValueError: n is negative.
            RuntimeError: inside a transform of JAX's own, such as `jax.jit` or `jax.vmap`, which
                does not track the generator.
        """
        if n is not None and n < 0:
            raise ValueError(f"rkg(n) returns n >= 0 keys, got n = {n}")
        if _scope.state.scope is not None:
            return self._draw(n)  # the state is that of the running transform, in this thread alone
        with RKG_LOCK:
            return self._draw(n)

    def _draw(self, n: int | None) -> jax.Array:
        param = self.key
        key = _allowed(uncommitted(param.get()))
        keys = jax.random.split(key, 2 if n is None else n + 1)
        # a state that is not traced, although drawing from it is, was not passed in
        passed_in = _scope.has_tracer(key) or not _scope.has_tracer(keys)
        if (_scope.in_unknown_trace() or not passed_in) and not _scope.made_here(param._scope):
            raise RuntimeError(UNTRACKED)
        param.set(keys[0])
        return keys[1] if n is None else keys[1:]


class _Default(RandomKeyGenerator):
    """The generator used where no `rkg=` is given.

    Inside a transform it draws from the param that this transform tracks (each thread its own).
    Its first key is made when first asked for, not at import, because making an array starts
    JAX's backends, which users may still want to configure.
    """

    def __init__(self) -> None:
        pass

    @classmethod
    def _register(cls) -> None:
        # as a child of a tracked object it stands for the generator of the running transform
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda generator: (((jax.tree_util.GetAttrKey("key"), generator.key),), None),
            lambda _, children: _with_key(*children),
            lambda generator: ((generator.key,), None),
        )

    @property
    def key(self) -> Param:  # type: ignore[override]
        """The state: a param."""
        scope = _scope.state.scope
        if scope is not None:
            return scope.key
        own = self.__dict__.get("key")
        if own is None:
            # the first use may happen while tracing; the key must be a concrete array even then
            with jax.ensure_compile_time_eval():
                new = RandomKey.rebuild(new_key(0))
            new._scope = None
            own = self.__dict__.setdefault("key", new)
        return own

    def __repr__(self) -> str:
        return "px.RKG"  # as it is written in a signature; looking at it makes no key

    def __reduce__(self) -> Any:
        return _with_key, (self.key,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _with_key(copy.deepcopy(self.key, memo))


def _with_key(key: Any) -> Any:
    """A generator around a param: a copy of the default one is an ordinary one."""
    generator = RandomKeyGenerator.__new__(RandomKeyGenerator)
    generator.__dict__["key"] = key
    return generator


RKG = _Default()
