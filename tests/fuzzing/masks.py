"""Random masks on random trees, against an interpreter of sets."""

import random
from typing import Any

import jax

import pcx as px
import pcx.utils as pxu
from pcx.core import is_param, tree_extract


class A(px.Param):
    pass


class SubA(A):
    pass


class B(px.Param):
    pass


class Temporary(px.Param, px.ParamCache):
    pass


CLASSES: tuple[Any, ...] = (px.Param, A, SubA, B, Temporary)
# class -> the filters that it answers to; written down, not asked of Python
ANCESTORS = {
    px.Param: {px.Param},
    A: {A, px.Param},
    SubA: {SubA, A, px.Param},
    B: {B, px.Param},
    Temporary: {Temporary, px.Param, px.ParamCache},
}
ATTRIBUTES = {"frozen": (True, False), "group": (0, 1, "x")}


class Box(px.BaseModule):
    pass


def make_param(rng, described):
    cls = rng.choice(CLASSES)
    attributes = {n: rng.choice(vs) for n, vs in ATTRIBUTES.items() if rng.random() < 0.5}
    param = cls(float(len(described)) if rng.random() < 0.9 else None)
    for name, value in attributes.items():
        setattr(param, name, value)
    described.append((param, cls, attributes))
    return param


def make_tree(rng, depth, described):
    """A tree, and beside it a nested list of what its leaves are, in order."""
    if depth == 0 or rng.random() < 0.3:
        if rng.random() < 0.15:
            return rng.choice((1, 2.5))  # no param
        if described and rng.random() < 0.15:
            return rng.choice(described)[0]  # shared
        return make_param(rng, described)
    parts = [make_tree(rng, depth - 1, described) for _ in range(rng.randint(0, 3))]
    kind = rng.choice(("list", "tuple", "dict", "box"))
    if kind in ("list", "tuple"):
        return parts if kind == "list" else tuple(parts)
    names = rng.sample("dcba", len(parts))
    if kind == "dict":
        return dict(zip(names, parts, strict=True))
    box = Box()
    for name, part in zip(names, parts, strict=True):
        setattr(box, name, part)
    return box


def leaves(tree):
    """All leaves in order: by name in modules and dictionaries."""
    if isinstance(tree, Box):
        tree = vars(tree)
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def make_mask(rng, depth):
    """`(mask or filter, meaning)`: the meaning takes a class and attributes."""
    kind = rng.choice(("class", "class", "or", "and", "not", "has", "hasnot", "names", "union"))
    if depth == 0 or kind == "class":
        cls = rng.choice((*CLASSES, px.ParamCache, None))
        return pxu.M(cls), lambda c, _: cls is None or cls in ANCESTORS[c]
    if kind in ("union", "names"):
        classes = rng.sample((*CLASSES, px.ParamCache), rng.randint(2, 3))
        spec = tuple(classes) if kind == "names" else classes[0] | classes[1]
        classes = classes if kind == "names" else classes[:2]
        return pxu.M(spec), lambda c, _: bool(ANCESTORS[c] & {*classes})
    mask, meaning = make_mask(rng, depth - 1)
    if kind == "not":
        return ~mask, lambda c, a: not meaning(c, a)
    if kind in ("has", "hasnot"):
        names = rng.sample(list(ATTRIBUTES), rng.randint(1, 2))
        wanted = {n: rng.choice(ATTRIBUTES[n]) for n in names}
        missing = object()
        # True == 1 and False == 0 in Python, and so in masks
        match = lambda a: [a.get(n, missing) == v for n, v in wanted.items()]
        if kind == "has":
            return mask.has(**wanted), lambda c, a: meaning(c, a) and all(match(a))
        return mask.hasnot(**wanted), lambda c, a: meaning(c, a) and not any(match(a))
    other, further = make_mask(rng, depth - 1)
    if kind == "or":
        return mask | other, lambda c, a: meaning(c, a) or further(c, a)
    return mask & other, lambda c, a: meaning(c, a) and further(c, a)


def judge(seed):
    """One mask on one tree; what is wrong, or None."""
    rng = random.Random(seed)
    described: list[Any] = []
    tree = make_tree(rng, 3, described)
    mask, meaning = make_mask(rng, 3)
    there = leaves(tree)
    chosen = {id(p) for p, cls, attributes in described if meaning(cls, attributes)}
    expected = [leaf if id(leaf) in chosen else None for leaf in there]
    found = leaves(mask(tree))
    if not all(a is b for a, b in zip(found, expected, strict=True)):
        return f"{mask!r} on {tree!r} gives {found}"
    mapped = leaves(mask.to(("no", "yes"))(tree))
    if mapped != ["yes" if id(leaf) in chosen else "no" for leaf in there]:
        return f"{mask!r} on {tree!r} maps to {mapped}"
    if [mask.select(leaf) for leaf in there] != [id(leaf) in chosen for leaf in there]:
        return f"{mask!r}: select differs on {tree!r}"
    distinct = list({id(leaf): leaf for leaf in there if is_param(leaf)}.values())
    values = tuple(p.get() for p in distinct if id(p) in chosen)
    if tree_extract(tree, mask) != values:
        return f"tree_extract({tree!r}, {mask!r}) gives {tree_extract(tree, mask)}"
    through = jax.tree.unflatten(*reversed(jax.tree.flatten(tree)))  # what a transform rebuilds
    again = [id(leaf) in chosen for leaf in there]
    if [mask.select(leaf) for leaf in leaves(through)] != again:
        return f"{mask!r} selects others in a copy of {tree!r}"
    return None
