"""`EnergyModule`: a module whose energy is the sum of its parts'."""

from collections.abc import Iterator
from typing import Any, Self

import jax

from ..core import (
    BaseModule,
    BaseParam,
    Mask,
    Module,
    ParamCache,
    describe,
    freeze,
    is_param,
    named_params,
)


class EnergyModule(Module):
    """A module with an energy, `F = sum of the energies of the EnergyModules it holds`.

    Subclass it and hold layers and vodes as attributes (also in lists, tuples and dicts).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import pcx as px, pcx.nn as pxnn, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> class Net(pxc.EnergyModule):
        ...     def __init__(self):
        ...         self.layers = [pxnn.Linear(2, 4), pxnn.Linear(4, 3)]
        ...         self.vodes = [pxc.Vode((4,)), pxc.Vode((3,))]
        ...
        ...     def __call__(self, x, y=None):
        ...         for layer, vode in zip(self.layers, self.vodes):
        ...             u = layer(jax.nn.tanh(x))
        ...             x = vode(u)
        ...         if y is not None:
        ...             self.vodes[-1].set("h", y)
        ...         return u
        >>> net = Net()
        >>> with pxu.step(net, pxc.STATUS.INIT):
        ...     _ = net(jnp.ones(2))
        ...     energy = net.energy()  # forward initialisation: no error anywhere
        >>> float(energy)
        0.0
    """

    _status: str | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004
        # from the start, because a mask tree made in one status must fit the module in another
        module = super().__new__(cls)
        module.__dict__["_status"] = None
        return module

    def energy(self) -> Any:
        """The sum over the nearest EnergyModules below, each counted once; 0.0 if there are none.

        Returns:
            One scalar per sample, in nats.
        """
        total: Any = 0.0
        for child in self._energy_children():
            total = total + child.energy()
        return total

    def _energy_children(self) -> Iterator["EnergyModule"]:
        """EnergyModules below, looking through other modules; one node reached twice comes once.

        Two objects are the same node if they hold the same params and are alike otherwise: inside
        a transform, a module that is reached by two paths is rebuilt as two that share params.
        """
        seen: set[Any] = set()

        def visit(module: BaseModule) -> Iterator["EnergyModule"]:
            for child in module.submodules():
                if not isinstance(child, EnergyModule):
                    yield from visit(child)
                    continue
                identity = _identity(child)
                if identity not in seen:
                    seen.add(identity)
                    child._held_by(self)
                    yield child

        yield from visit(self)

    def _held_by(self, holder: "EnergyModule") -> None:
        """Hook for terms that speak of the module that holds them."""

    def clear_params(self, filter: Any) -> None:
        """Set every param that the filter selects to None (empty).

        Args:
            filter: a param type, union, callable or mask, such as `pxc.VodeParam.Cache`.
        """
        mask = Mask(filter)
        for _, param in named_params(self):
            if mask.select(param):
                param.set(None)

    @property
    def status(self) -> str | None:
        """The status that rules look at; setting it sets it for everything below."""
        return self._status

    @status.setter
    def status(self, status: str | None) -> None:
        if status is not None and not isinstance(status, str):
            raise TypeError(f"a status is a string or None, got {status!r}")
        for module in self.modules(EnergyModule):
            module._status = status

    def summary(self, x: Any = None) -> str:
        """A table of the nodes: states, which node predicts which, by what layers, params, energies.

        The model is traced, not run; nothing in it changes.

        Args:
            x: an input of one sample, or its `jax.ShapeDtypeStruct`; None for a model without input.

        Returns:
            Lines of at most 80 columns. Params that several nodes share are counted for each of
            them, and once in the first line.

        Example:
            >>> import jax.numpy as jnp, pcx.models as pxm
            >>> print(pxm.MLP([4, 16, 3]).summary(jnp.ones(4)))
            MLP: 2 nodes, 131 params
            node        state  from      by         params  energy
            ---------------------------------------------------------
            vodes[0]    (16,)  x         layers[0]      80  se_energy
            vodes[1] *  (3,)   vodes[0]  layers[1]      51  se_energy
            * frozen: inference leaves it alone, as an output that is clamped
        """
        # nodes of a model are known above this module
        from ._graph import summary

        return summary(self, x)

    def _summary(self) -> str | None:
        """What `repr` says of this module in the line with its path; None for nothing."""
        return None

    def __repr__(self) -> str:
        lines = list(_lines(self, ""))
        name = self._summary() or type(self).__name__
        return "\n".join([f"{name}(", *lines, ")"]) if lines else f"{name}()"


def _identity(module: EnergyModule) -> Any:
    leaves, treedef = jax.tree_util.tree_flatten(module, is_leaf=is_param)
    params = [id(leaf) for leaf in leaves if is_param(leaf)]
    if not params:
        return id(module)
    others = [_leaf_identity(leaf) for leaf in leaves if not is_param(leaf)]
    return treedef, tuple(params), tuple(others)


def _leaf_identity(leaf: Any) -> Any:
    return id(leaf) if isinstance(leaf, jax.Array) else freeze(leaf)


def _lines(module: BaseModule, root: str) -> Iterator[str]:
    """One line for each param, array and energy module below, by path; settings are left out."""
    nodes = jax.tree_util.tree_flatten_with_path(
        module, is_leaf=lambda x: isinstance(x, BaseParam) or (x is not module and _is_node(x))
    )[0]
    for path, node in nodes:
        where = root + jax.tree_util.keystr(path)
        if _is_node(node):
            if (summary := node._summary()) is not None:
                yield f"  {where}: {summary}"
            yield from _lines(node, where)
        elif is_param(node):
            if node.get() is not None or not isinstance(node, ParamCache):
                yield f"  {where}: {node!r}"
        elif isinstance(node, jax.Array):
            yield f"  {where}: {describe(node)}"


def _is_node(x: Any) -> bool:
    return isinstance(x, EnergyModule)


def energy_modules(tree: Any) -> list[EnergyModule]:
    """Every EnergyModule in a tree, each object once.

    Example:
        >>> import pcx.predictive_coding as pxc
        >>> vode = pxc.Vode((2,))
        >>> pxc.energy_modules({"a": vode, "b": [vode, pxc.Vode((3,))]})
        [Vode((2,), se_energy, h=VodeParam(None)), Vode((3,), se_energy, h=VodeParam(None))]
    """
    found: dict[int, EnergyModule] = {}
    for leaf in jax.tree_util.tree_leaves(tree, is_leaf=lambda x: isinstance(x, BaseModule)):
        if isinstance(leaf, BaseModule):
            for module in leaf.modules(EnergyModule):
                assert isinstance(module, EnergyModule)
                found[id(module)] = module
    if any(type(module)._held_by is not EnergyModule._held_by for module in found.values()):
        for module in found.values():
            list(module._energy_children())
    return list(found.values())
