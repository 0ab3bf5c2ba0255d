"""The checkpoint of a population: the state of every group, the histories, and where the run is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import _checkpoint
from ._group import Group
from ._history import History
from ._population_epoch import Order

OTHER_MEMBERS = """{path} was written by another population: {difference}. Make it as in that run. Nothing was \
changed."""


def save(path: Path, groups: Sequence[Group], number: int, epoch: int, batches: Any) -> None:
    """Write everything that is needed to go on.

    Args:
        number: of the group that is trained, from 0.
        epoch: how many of its epochs are done.
        batches: of its first seed.
    """
    members = [member for group in groups for member in group.members]
    manifest = {
        "members": [member.name for member in members],
        "group": number,
        "epoch": epoch,
        "batches": _checkpoint.batch_order(batches),
        "histories": [member.history.to_dict() for member in members],
        "diverged": [
            None if m.diverged is None else [m.diverged.epoch, m.diverged.batch, m.diverged.energy]
            for m in members
        ],
    }
    _checkpoint.write(path, manifest, _params(groups), {})


def load(path: Path, groups: Sequence[Group]) -> dict[str, Any]:
    """Restore the groups from a file; returns its manifest."""
    manifest, arrays = _checkpoint.read(path)
    members = [member for group in groups for member in group.members]
    ours, theirs = [m.name for m in members], manifest.get("members", [])
    if ours != theirs:
        first = next(
            (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if len({*pair}) > 1), 0
        )
        difference = (
            f"member {first} is `{theirs[first]}`, here `{ours[first]}`"
            if len(ours) == len(theirs)
            else f"it has {len(theirs)} members, this one {len(ours)}"
        )
        raise ValueError(OTHER_MEMBERS.format(path=path, difference=difference))
    values = _checkpoint.matched(path, _params(groups), manifest, arrays, "population")
    for number, group in enumerate(groups):
        own = [values[name] for name in _names(number, group)]
        group.put((own[2:], own[0], own[1]))
    for member, history, diverged in zip(
        members, manifest["histories"], manifest["diverged"], strict=True
    ):
        member.history = History.from_dict(history)
        if diverged is not None:
            member.diverge(*diverged)
    return manifest


def resume(path: Path, manifest: dict[str, Any], order: Order) -> None:
    """Let the batches go on where those of the run that was saved were."""
    saved = manifest["batches"]
    _checkpoint.check_order(path, saved, order.loaders[0])
    _checkpoint.set_order(path, saved, order.loaders[0])
    if saved:
        order.epoch = saved["epoch"]


def _names(number: int, group: Group) -> list[str]:
    own = ["alive", "first energy", *group.stack.names()]
    return [f"group {number}: {name}" for name in own]


def _params(groups: Sequence[Group]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for number, group in enumerate(groups):
        values, alive, first = group.get()
        params |= dict(zip(_names(number, group), [alive, first, *values], strict=True))
    return params
