"""The members of a population that are one program: its steps, and their state."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ..algorithms import Algorithm
from ..core import RKG
from ..functional._tracked import Structure, collect
from ..utils._mesh import divided
from . import _batches
from ._calls import Augment, Call, stack_trees, take
from ._divergence import GROWTH, Diverged
from ._history import History
from ._metrics import accuracy
from ._stacking import Stack, own_key

TITLE = "pxt.Population"

MEMBER = """The training of {name} diverged in epoch {epoch}, batch {batch}: the energy is {energy:.4g}. \
Its params are as they were before this batch. A `pxt.Trainer` on this member alone names the layer and the \
inference step."""

TRACED = """In a population a number in which the members differ is an array, and {cls} decides by it in Python. \
Name its setting in `structure=`: each value is then a program of its own."""

CHANGED = """Population: a training step of {cls} changes the form of its params: one that is empty gets a value, \
or another shape or type. Let the function that makes a member give each its first value \
(`algorithm.train_step(x, y)` on a batch does)."""

PERSISTENT = """Population: with init="persistent" the first batch gives the algorithm its first states, which \
changes its form. Use another `init`, or a `pxt.Trainer` for each member."""


@dataclass
class Member:
    """One member of a population.

    Attributes:
        seed: as given.
        settings: the value of each setting.
        algorithm: what is trained; up to date when `fit` has returned.
        history: as of a run of its own, without "lr"; "seconds" are those of all members together.
        diverged: where it diverged, with `epoch` and `batch`; None if it did not.

    Example:
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> population = pxt.Population(lambda seed: pxa.PC(pxm.MLP([2, 4, 1])), seeds=[3])
        >>> population.members[0]
        Member(seed 3)
    """

    seed: int
    settings: dict[str, Any]
    algorithm: Any
    history: History = field(default_factory=History)
    diverged: Diverged | None = None
    # of the default generator, as in a run of its own
    key: Any = None

    @property
    def name(self) -> str:
        """The settings and the seed, in words."""
        return ", ".join(
            [*(f"{k}={show(v)}" for k, v in self.settings.items()), f"seed {self.seed}"]
        )

    def diverge(self, epoch: int, batch: int, energy: float) -> None:
        """Note that the member diverged."""
        message = MEMBER.format(name=self.name, epoch=epoch, batch=batch, energy=energy)
        self.diverged = Diverged(message, epoch, batch, energy=energy)

    def __repr__(self) -> str:
        return f"Member({self.name}{', diverged' if self.diverged else ''})"


def show(value: Any) -> str:
    """A setting in a few words, the same in every process."""
    return getattr(value, "__name__", None) or repr(value)


class Program:
    """The compiled steps of all members together."""

    def __init__(self, stack: Stack, augment: Augment | None):
        algorithm = stack.algorithm
        self._augment = augment
        self.key = stack.key
        self._cls = type(algorithm).__name__
        algorithm.model.train()
        self._train: Structure = collect({"algorithm": algorithm})[0]
        algorithm.model.eval()
        self._evaluate: Structure = collect({"algorithm": algorithm})[0]
        algorithm.model.train()
        donated = (0,) if getattr(algorithm, "donate", False) else ()
        self._one = jax.jit(self._all, static_argnums=2, donate_argnums=donated)
        self._many = jax.jit(self._scan, static_argnums=3, donate_argnums=donated)
        self.evaluate = jax.jit(jax.vmap(self._eval, in_axes=(0, None, None)))
        self.draw = jax.jit(jax.vmap(self._draw))

    def run(self, state: Any, call: Call, each: bool, keys: Any) -> tuple[Any, dict[str, Any]]:
        """The steps of a call: the state after them, and what they returned, `(members, ...)`, with an
        axis for the steps in front if there are several.

        Args:
            each: whether every member has batches of its own.
            keys: of the members, for augmentation in this epoch; None without.
        """
        try:
            if len(call) > 1:
                steps = call.steps if call.data is not None else stack_trees(call.steps)
                numbers = None
                if keys is not None:
                    numbers = np.arange(call.first, call.first + len(call), dtype=np.int32)
                return self._many(state, call.data, (steps, numbers), each, keys)
            number = None if keys is None else np.int32(call.first)
            return self._one(state, (call.batch(0), number), each, keys)
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
            error.add_note(TRACED.format(cls=self._cls))
            raise

    def _scan(self, state: Any, data: Any, steps: Any, each: bool, keys: Any) -> Any:
        batch = lambda part: part if data is None else take(data, part)
        one = lambda state, step: self._all(state, (batch(step[0]), step[1]), each, keys)
        return jax.lax.scan(one, state, steps)

    def _all(self, state: Any, step: Any, each: bool, keys: Any) -> Any:
        batch, number = step
        if self._augment is None:
            return jax.vmap(self._step, in_axes=(0, 0 if each else None))(state, batch)
        own = lambda state, batch, key: self._step(state, self._augmented(batch, key, number))
        return jax.vmap(own, in_axes=(0, 0 if each else None, 0))(state, batch, keys)

    def _augmented(self, batch: Any, key: Any, number: Any) -> Any:
        x, y = batch
        return self._augment(jax.random.fold_in(key, number), x), y  # type: ignore[misc]

    def _draw(self, values: Any) -> Any:
        """A key from the generator of one member, and the arrays of the member after that."""

        def body(*, algorithm: Any) -> Any:
            return RKG()

        key, updates = self._train.run(TITLE, body, values, (), full=True)
        return key, [*jax.tree_util.tree_leaves(updates), *values[self._train.size :]]

    def _step(self, state: Any, batch: Any) -> Any:
        """One step of one member, which stays as it was from the step on in which it diverges."""
        values, alive, first = state
        body = lambda x, y, *, algorithm: algorithm.train_step(x, y)
        out, updates = self._train.run(TITLE, body, values, batch, full=True)
        new = [*jax.tree_util.tree_leaves(updates), *values[self._train.size :]]
        self._check(new, values)
        energy = jnp.asarray(out["energy"], first.dtype)
        first = jnp.where(jnp.isnan(first) & jnp.isfinite(energy), jnp.abs(energy), first)
        limit = GROWTH * jnp.fmax(first, 1.0)
        alive &= jnp.isfinite(energy) & (jnp.abs(energy) <= limit)
        values = [jnp.where(alive, a, b) for a, b in zip(new, values, strict=True)]
        return (values, alive, first), {**out, "alive": alive}

    def _eval(self, values: Any, x: Any, y: Any) -> Any:
        body = lambda x, y, *, algorithm: algorithm.eval_step(x, y)
        return self._evaluate.run(TITLE, body, values, (x, y))[0]

    def _check(self, new: list[Any], old: list[Any]) -> None:
        form = lambda arrays: [(jnp.shape(a), jnp.result_type(a)) for a in arrays]
        if form(new) != form(old):
            raise TypeError(CHANGED.format(cls=self._cls))


class Group:
    """Members that are one program, and their state on the device."""

    def __init__(
        self,
        members: Sequence[Member],
        classes: int | None,
        steps_per_call: int,
        mesh: Mesh | None = None,
        augment: Augment | None = None,
    ):
        self.augment, self.keys = augment, None
        self.members, self.classes, self.steps_per_call = list(members), classes, steps_per_call
        self.mesh = mesh
        # which member is in each place; the last one again where the devices would have unequal parts
        extra = 0 if mesh is None else -len(members) % mesh.devices.size
        self.places = np.minimum(np.arange(len(members) + extra), len(members) - 1)
        for member in members:
            if getattr(member.algorithm, "init", None) == "persistent":
                raise ValueError(PERSISTENT)
        self._program: Program | None = None
        self.prepared = False
        self.load()

    def load(self) -> None:
        """Take the arrays of the members' algorithms; the state of a run begins."""
        stack = self._restack()
        alive = jnp.array([member.diverged is None for member in self.members])
        first = jnp.full(len(self.members), jnp.nan, jnp.result_type(float))
        self.put((stack.stacked([m.key for m in self.members]), alive, first))

    def put(self, state: Any) -> None:
        """Go on from a state of the members, in their order: its arrays, who is alive, first energies."""
        if self.mesh is not None:
            where = divided(self.mesh)
            state = jax.tree_util.tree_map(
                lambda a: jax.device_put(jnp.asarray(a)[self.places], where), state
            )
        self.state: Any = state

    def get(self) -> Any:
        """The state of the members, in their order."""
        if len(self.places) == len(self.members):
            return self.state
        return jax.tree_util.tree_map(lambda a: a[: len(self.members)], self.state)

    def _restack(self) -> Stack:
        members = self.members
        self.stack = Stack(
            [m.algorithm for m in members], [m.name for m in members], [m.settings for m in members]
        )
        return self.stack

    def unload(self) -> None:
        """Put the arrays into the members' algorithms, and let go of those of all together."""
        self.write()
        self.state = None

    def write(self) -> None:
        """Put the arrays into the members' algorithms."""
        for member, key in zip(self.members, self.stack.write(self.get()[0]), strict=True):
            member.key = key

    @property
    def program(self) -> Program:
        """The compiled steps; made anew only if an algorithm has changed its form."""
        if self._program is None or self._program.key != self.stack.key:
            self._program = Program(self.stack, self.augment)
        return self._program

    def prepare(self, y: Any) -> None:
        """Before the first batch: choose a metric that suits the targets, for members without one."""
        if self.prepared:
            return
        self.prepared = True
        without = [m.algorithm for m in self.members if not m.algorithm.metrics]
        if without and _batches.is_one_hot(y):
            for algorithm in without:
                algorithm.metrics = {"accuracy": accuracy}
            self._restack()

    def start_epoch(self, epoch: int) -> None:
        """Draw the keys of augmentation and call `start_epoch`, for each member as in a run of its own."""
        members = self.members
        if self.augment is not None:
            values, alive, first = self.state
            self.keys, new = self.program.draw(values)
            chosen = [_choose(alive, a, b) for a, b in zip(new, values, strict=True)]
            self.state = chosen, alive, first
        if all(type(m.algorithm).start_epoch is Algorithm.start_epoch for m in members):
            return
        self.write()
        for member in members:
            with own_key(member.key):
                member.algorithm.start_epoch(epoch)
                member.key = RKG.key.get()
        values, alive, first = self.get()
        new = self._restack().stacked([m.key for m in members])
        # those that diverged stay as they are; they were called too, to remain one program
        chosen = [_choose(alive, a, b) for a, b in zip(new, values, strict=True)]
        self.put((chosen, alive, first))


_choose = jax.jit(jax.vmap(jnp.where))
