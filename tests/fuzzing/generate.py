"""Random programs: a tree of params, and statements on it under nested transforms.

A program is data, a small syntax tree that `tracked.py` runs with pcx and `plain.py` with JAX alone.
Expressions and statements are tuples that begin with their name.

    node    ("module", {name: node}) | ("dict", ...) | ("list", [node]) | ("tuple", ...) | ("param", id)
    path    keys from the root of a keyword argument to a param
    ref     ("ref", keyword, path)
"""

import copy
import dataclasses
import random
from typing import Any

SHAPES = ((), (3,), (2,), (3, 2))
UNARY = ("sin", "cos", "tanh", "neg")
BINARY = ("+", "-", "*")


@dataclasses.dataclass
class Param:
    """What is known of a param before the program runs.

    Attributes:
        kind: "A" and "B" are classes of float params, "N" counts in ints, "K" is a generator's key.
        shape: None while it has no value yet.
    """

    kind: str
    shape: tuple[int, ...] | None
    value: Any
    frozen: bool = False


@dataclasses.dataclass
class Function:
    """A body: keyword arguments by name, positional ones first among its locals."""

    body: list[tuple]
    result: Any


@dataclasses.dataclass
class Program:
    """One program; `traced` says whether JAX compiles (or runs loops and branches in Python)."""

    params: list[Param]
    tree: Any
    inputs: list[Any]
    body: list[tuple]
    traced: bool


@dataclasses.dataclass
class Scope:
    """What a body sees.

    Attributes:
        roots: keyword -> node.
        shapes: id of a param -> its shape here; None while it has no value.
        local: the shapes of the local values.
        outer: the shapes of the local values of the body around this one.
        writable: ids of the params that may get any value: no enclosing `vmap` leaves them unmapped.
        inside: the transforms around, outermost first.
    """

    roots: dict[str, Any]
    shapes: dict[int, Any]
    local: list[Any]
    outer: list[Any]
    writable: set[int]
    inside: tuple[str, ...] = ()
    axis: str | None = None
    first_mapped: bool = False


def nodes(node, path=()):
    """Every node below (and with) this one, and its path."""
    yield path, node
    if node[0] != "param":
        below = node[1].items() if isinstance(node[1], dict) else enumerate(node[1])
        for key, child in below:
            yield from nodes(child, (*path, key))


def params_below(node):
    """`(path, id)` of every param below a node."""
    return [(path, n[1]) for path, n in nodes(node) if n[0] == "param"]


def swap(tree, first, second):
    """Exchange two nodes of a tree."""
    (a, i), (b, j) = [(below(tree, path[:-1])[1], path[-1]) for path in (first, second)]
    a[i], b[j] = b[j], a[i]


def below(node, path):
    """The node at a path."""
    for key in path:
        node = node[1][key]
    return node


class Generator:
    """Writes one program from a seed."""

    def __init__(self, seed, traced=0.03):
        self.rng = random.Random(seed)
        self.params: list[Param] = []
        self.traced = self.rng.random() < traced
        self.axes = 0

    def chance(self, p):
        return self.rng.random() < p

    def number(self):
        return round(self.rng.uniform(-1, 1), 3)

    def array(self, shape):
        if not shape:
            return self.number()
        return [self.array(shape[1:]) for _ in range(shape[0])]

    # the tree

    def param(self):
        if self.params and self.chance(0.2):  # shared
            return ("param", self.rng.randrange(len(self.params)))
        kind = self.rng.choices("ABNK", (5, 4, 1, 0.7))[0]
        frozen = self.chance(0.2)
        if kind == "K":
            self.params.append(Param(kind, (), self.rng.randrange(100)))
        elif kind == "N":
            self.params.append(Param(kind, (), self.rng.randrange(3), frozen))
        elif self.chance(0.05):
            self.params.append(Param(kind, None, None, frozen))
        else:
            shape = self.rng.choice(SHAPES)
            self.params.append(Param(kind, shape, self.array(shape), frozen))
        return ("param", len(self.params) - 1)

    def tree(self, depth):
        if depth == 0 or self.chance(0.3):
            return self.param()
        kind = self.rng.choice(("module", "module", "list", "dict", "tuple"))
        below = [self.tree(depth - 1) for _ in range(self.rng.randint(1, 3))]
        if kind in ("module", "dict"):
            below = dict(zip(self.rng.sample("abcd", len(below)), below, strict=True))
        return (kind, below)

    def program(self):
        below = [self.tree(2) for _ in range(self.rng.randint(1, 3))]
        tree = ("module", dict(zip(self.rng.sample("uvwxyz", len(below)), below, strict=True)))
        inputs = [self.array(shape) for shape in SHAPES]
        initial = copy.deepcopy((self.params, tree))  # swapping edits the tree
        scope = Scope(
            {"model": tree},
            {i: p.shape for i, p in enumerate(self.params)},
            list(SHAPES),
            [],
            set(range(len(self.params))),
        )
        body = self.body(scope, self.rng.randint(1, 2))
        if not any(statement[0] == "call" for statement in body):
            body += self.statement(scope, "call")
        return Program(*initial, inputs, body, self.traced)

    # expressions

    def refs(self, scope, accept):
        return [
            ("ref", name, path)
            for name, root in scope.roots.items()
            for path, i in params_below(root)
            if accept(i)
        ]

    def values(self, scope, shape):
        """Leaves of an expression of this shape."""
        found = [("local", i) for i, s in enumerate(scope.local) if s == shape]
        found += [("outer", i) for i, s in enumerate(scope.outer) if s == shape][:2]
        found += 2 * self.refs(
            scope, lambda i: scope.shapes[i] == shape and self.params[i].kind in "AB"
        )
        return found

    def expression(self, scope, shape, depth=2):
        kind = self.rng.random()
        if depth and kind < 0.3:
            return ("unary", self.rng.choice(UNARY), self.expression(scope, shape, depth - 1))
        if depth and kind < 0.65:
            both = [shape, self.rng.choice((shape, ()))]
            self.rng.shuffle(both)
            pair = [self.expression(scope, s, depth - 1) for s in both]
            return ("binary", self.rng.choice(BINARY), *pair)
        if depth and kind < 0.7:
            parts = [self.expression(scope, s, depth - 1) for s in ((), shape, shape)]
            return ("where", *parts)
        if depth and kind < 0.78 and shape == ():
            return ("sum", self.expression(scope, self.rng.choice(SHAPES[1:]), depth - 1))
        if kind < 0.84 and shape == ():
            special = []
            if self.may_draw(scope) and self.chance(0.4):
                special += [("draw", None)]
                special += [("draw", r) for r in self.refs(scope, lambda i: self.is_key(i))]
            special += self.refs(scope, lambda i: self.params[i].kind == "N")
            special += [
                ("static", name, path)
                for name, root in scope.roots.items()
                for path, node in nodes(root)
                if node[0] == "module"
            ]
            if special:  # ints among them
                return ("binary", "*", ("constant", 1.0), self.rng.choice(special))
        found = self.values(scope, shape)
        return (
            self.rng.choice(found)
            if found and self.chance(0.9)
            else ("constant", self.array(shape))
        )

    def is_key(self, i):
        return self.params[i].kind == "K"

    def may_draw(self, scope):
        # which branches and iterations run decides, under `vmap`, whether its key counts as drawn
        return not ({"cond", "switch", "while"} & {*scope.inside}) or "vmap" not in scope.inside

    def bounded(self, scope, shape):
        return ("unary", self.rng.choice(("sin", "tanh")), self.expression(scope, shape))

    # statements

    def body(self, scope, length):
        out = []
        for _ in range(length):
            out += self.statement(scope)
        return out

    def statement(self, scope, kind=None):
        depth = len(scope.inside)
        weights = {"let": 1, "set": 3, "augment": 3, "item": 1, "call": (0, 4, 2.5, 0)[depth]}
        if depth == 0:
            weights |= {"call": 12, "static": 1, "freeze": 0.6, "swap": 0.6}
        elif self.chance(0.02):
            weights = {"leak": 1, "replace": 1, "misshape": 1}
        kind = kind or self.rng.choices(list(weights), list(weights.values()))[0]
        return list(getattr(self, f"_{kind}")(scope))

    def _let(self, scope):
        shape = self.rng.choice(SHAPES)
        expression = self.expression(scope, shape)
        scope.local.append(shape)
        yield ("let", expression)

    def target(self, scope, accept=lambda i: True):
        anywhere = self.chance(0.03)
        found = self.refs(
            scope,
            lambda i: (anywhere or i in scope.writable) and not self.is_key(i) and accept(i),
        )
        return self.rng.choice(found) if found else None

    def id_of(self, scope, ref):
        return dict(params_below(scope.roots[ref[1]]))[ref[2]]

    def _set(self, scope):
        # loops and branches keep the form of what they carry
        may_begin = not {"scan", "while", "cond", "switch"} & {*scope.inside}
        ref = self.target(scope, lambda i: may_begin or scope.shapes[i] is not None)
        if ref is None:
            return
        i = self.id_of(scope, ref)
        if self.params[i].kind == "N":
            yield ("augment", ref, "+", ("count", 1))
            return
        new = scope.shapes[i]
        if new is None:
            new = ()
        value = self.bounded(scope, new)
        scope.shapes[i] = new
        yield ("set", ref, value)

    def _augment(self, scope):
        ref = self.target(scope, lambda i: scope.shapes[i] is not None)
        if ref is None:
            return
        i = self.id_of(scope, ref)
        if self.params[i].kind == "N":
            yield ("augment", ref, "+", ("count", 1))
            return
        shape = self.rng.choice((scope.shapes[i], ()))
        yield ("augment", ref, self.rng.choice(BINARY), self.bounded(scope, shape))

    def _item(self, scope):
        ref = self.target(scope, lambda i: scope.shapes[i] in ((3,), (2,)))
        if ref is not None:
            yield ("item", ref, self.rng.randrange(-2, 2), self.bounded(scope, ()))

    def _static(self, scope):
        paths = [path for path, node in nodes(scope.roots["model"]) if node[0] == "module"]
        yield ("assign", self.rng.choice(paths), self.rng.randrange(1, 4))

    def _freeze(self, scope):
        ref = self.target(scope)
        if ref is not None:
            flag = self.params[self.id_of(scope, ref)].frozen = self.chance(0.5)
            yield ("freeze", ref, flag)

    def _swap(self, scope):
        """Two params of one kind and shape change places."""
        alike: dict[Any, list[Any]] = {}
        for path, node in nodes(scope.roots["model"]):
            below = node[1] if node[0] in ("module", "dict", "list") else ()
            for key in below if isinstance(below, dict) else range(len(below)):
                if below[key][0] == "param":
                    i = below[key][1]
                    form = self.params[i].kind, scope.shapes[i]
                    alike.setdefault(form, []).append((*path, key))
        alike = {form: paths for form, paths in alike.items() if len(paths) > 1 and form[0] != "K"}
        if alike:
            pair = self.rng.sample(self.rng.choice(list(alike.values())), 2)
            swap(scope.roots["model"], *pair)
            yield ("swap", *pair)

    def _leak(self, scope):
        if scope.inside[-1] == "vmap" and scope.first_mapped:
            yield ("leak",)

    def _replace(self, scope):
        counts: dict[int, int] = {}
        for root in scope.roots.values():
            for _, i in params_below(root):
                counts[i] = counts.get(i, 0) + 1
        found = [
            ("ref", name, (*path, key))
            for name, root in scope.roots.items()
            for path, node in nodes(root)
            if node[0] in ("module", "dict", "list")
            for key in (node[1] if isinstance(node[1], dict) else range(len(node[1])))
            if node[1][key][0] == "param"
            and counts[node[1][key][1]] == 1
            and scope.shapes[node[1][key][1]] is not None
        ]
        if found and not {"cond", "switch", "while"} & {*scope.inside}:
            yield ("replace", self.rng.choice(found))

    def _misshape(self, scope):
        ref = self.target(scope, lambda i: scope.shapes[i] == (3,))
        if scope.inside[-1] == "scan" and ref is not None:
            yield ("misshape", ref)

    # calls of transforms

    def _call(self, scope):
        loops = {"while"} if "grad" not in scope.inside else set()  # no reverse mode
        names = ["grad", "grad", "scan", "cond", "switch", "checkpoint", "jit", *loops]
        names += ["vmap", "vmap"] if scope.inside.count("vmap") < 2 else []
        name = self.rng.choice(names)
        kwargs, roots = self.kwargs(scope)
        ids = {i for root in roots.values() for _, i in params_below(root)}
        inner = Scope(
            roots,
            {i: scope.shapes[i] for i in ids},
            [],
            list(scope.local),
            scope.writable & ids,
            (*scope.inside, name),
            scope.axis,
        )
        yield from getattr(self, f"_call_{name}")(scope, inner, kwargs)

    def kwargs(self, scope):
        places = [
            (name, path, node) for name, root in scope.roots.items() for path, node in nodes(root)
        ]
        chosen = self.rng.choices(
            places, [3 if not p else 1 for _, p, _ in places], k=self.rng.choice((1, 1, 2, 3))
        )
        names = self.rng.sample("pqrs", len(chosen))
        kwargs = {n: (name, path) for n, (name, path, _) in zip(names, chosen, strict=True)}
        return kwargs, {n: node for n, (_, _, node) in zip(names, chosen, strict=True)}

    def after(self, scope, inner, results):
        """Params that got their first value inside have it outside."""
        for i, shape in inner.shapes.items():
            if scope.shapes[i] is None:
                scope.shapes[i] = shape
        scope.local += results

    def arguments(self, scope, inner, shapes):
        expressions = [self.expression(scope, shape, 1) for shape in shapes]
        inner.local[:] = shapes
        return expressions

    def repeats(self, scope, changes=("augment", "static", "freeze", "swap")):
        """What changes before each further call of the same transform: a list of statements."""
        if scope.inside or self.chance(0.6):
            return []
        times = self.rng.randint(1, 2)
        return [self.statement(scope, self.rng.choice(changes)) for _ in range(times)]

    def simple(self, scope, inner, kwargs, name, options):
        shapes = self.rng.sample(SHAPES, self.rng.randint(0, 2))
        args = self.arguments(scope, inner, shapes)
        body = self.body(inner, self.rng.randint(1, 2))
        shape = self.rng.choice(SHAPES)
        function = Function(body, self.expression(inner, shape))
        repeats = self.repeats(scope)
        self.after(scope, inner, [shape])
        yield ("call", name, options, [function], kwargs, args, repeats)

    def _call_jit(self, scope, inner, kwargs):
        return self.simple(scope, inner, kwargs, "jit", {"donate": self.chance(0.3)})

    def _call_checkpoint(self, scope, inner, kwargs):
        return self.simple(scope, inner, kwargs, "checkpoint", {})

    def _call_cond(self, scope, inner, kwargs):
        return self.branches(scope, inner, kwargs, "cond", 2, self.expression(scope, (), 1))

    def _call_switch(self, scope, inner, kwargs):
        counts = self.refs(scope, lambda i: self.params[i].kind == "N")
        index = self.rng.choice(counts) if counts else ("count", self.rng.randrange(-1, 4))
        return self.branches(scope, inner, kwargs, "switch", 3, index)

    def branches(self, scope, inner, kwargs, name, number, chooser):
        shapes = self.rng.sample(SHAPES, self.rng.randint(0, 2))
        args = self.arguments(scope, inner, shapes)
        shape = self.rng.choice(SHAPES)
        functions = []
        for _ in range(number):
            own = dataclasses.replace(inner, local=list(shapes), shapes=dict(inner.shapes))
            functions.append(
                Function(self.body(own, self.rng.randint(0, 2)), self.floats(own, shape))
            )
        self.after(scope, inner, [shape])
        yield ("call", name, {"chooser": chooser}, functions, kwargs, args, [])

    def floats(self, scope, shape):
        # branches and loops return arrays of one dtype, whatever the expression holds
        return ("binary", "*", ("constant", 1.0), self.bounded(scope, shape))

    def _call_scan(self, scope, inner, kwargs):
        shapes = self.rng.sample(SHAPES, self.rng.randint(0, 2))
        length = self.rng.choice((3, 2))
        xs = None
        local = list(shapes)
        if self.chance(0.6):
            full, each = (
                self.rng.choice((((3,), ()), ((3, 2), (2,)))) if length == 3 else ((2,), ())
            )
            xs, local = self.expression(scope, full, 1), [each, *shapes]
        args = [self.floats(scope, shape) for shape in shapes]
        inner.local[:] = local
        body = self.body(inner, self.rng.randint(1, 2))
        y = self.rng.choice(((), ()) if length == 2 else ((), (2,)))
        result = [self.floats(inner, s) for s in shapes], self.expression(inner, y)
        options = {"length": length, "xs": xs, "reverse": self.chance(0.2)}
        self.after(scope, inner, [*shapes, (length, *y)])
        yield ("call", "scan", options, [Function(body, result)], kwargs, args, [])

    def _call_while(self, scope, inner, kwargs):
        shapes = self.rng.sample(SHAPES, self.rng.randint(0, 2))
        args = [("count", self.rng.randrange(3)), *[self.floats(scope, s) for s in shapes]]
        inner.local[:] = ["count", *shapes]
        more = (
            None
            if self.chance(0.4)
            else self.expression(dataclasses.replace(inner, inside=(*inner.inside, "vmap")), (), 1)
        )
        body = self.body(inner, self.rng.randint(1, 2))
        result = [("next", 0), *[self.floats(inner, s) for s in shapes]]
        self.after(scope, inner, ["count", *shapes])
        yield ("call", "while", {"more": more}, [Function(body, result)], kwargs, args, [])

    def _call_grad(self, scope, inner, kwargs):
        shapes = self.rng.sample(SHAPES, self.rng.randint(0, 2))
        mask = self.selection()
        if not any(
            selected(mask, self.params[i]) and s is not None for i, s in inner.shapes.items()
        ):
            if not shapes and self.chance(0.9):
                shapes = [()]
            argnums = 0 if shapes else None
        else:
            argnums = self.rng.randrange(len(shapes)) if shapes and self.chance(0.4) else None
        args = self.arguments(scope, inner, shapes)
        body = self.body(inner, self.rng.randint(1, 2))
        form = self.rng.choice(("whole", "dict", "tree"))
        options = {"mask": mask, "form": form, "argnums": argnums, "step": self.chance(0.4)}
        function = Function(body, self.expression(inner, (), 3))
        more = [] if argnums is None else [shapes[argnums]]
        repeats = self.repeats(scope)
        self.after(scope, inner, [(), (), *more])
        yield ("call", "grad", options, [function], kwargs, args, repeats)

    def selection(self):
        kind = self.rng.choice(("A", "B", "A|B", "A|B", "thawed", "not", "any"))
        if kind == "thawed":
            return ("thawed", self.rng.choice((("A",), ("B",), ("A|B",))))
        if kind == "not":
            return (
                "and",
                ("A|B",),
                ("not", self.rng.choice((("A",), ("B",), ("thawed", ("any",))))),
            )
        if kind == "any" and self.chance(0.8):
            return ("A|B",)
        return (kind,)

    def _call_vmap(self, scope, inner, kwargs):
        size = self.rng.choice((3, 2))
        options = {"form": "tree", "size": size}
        axes = self.by_selection(inner, size, options) if self.chance(0.5) else None
        if axes is None:
            options["form"] = "tree"
            axes = {
                i: self.axis(s, size) if self.chance(0.7) else None for i, s in inner.shapes.items()
            }
            for i in axes:
                if self.is_key(i):
                    axes[i] = self.rng.choice((0, None))
                elif inner.shapes[i] is None:
                    axes[i] = 0
        options["axes"] = axes
        shapes, in_axes, inner_shapes = [], [], []
        for shape in self.rng.sample(SHAPES, self.rng.randint(0, 2)):
            axis = self.axis(shape, size) if self.chance(0.8) else None
            shapes.append(shape)
            in_axes.append(axis)
            inner_shapes.append(_without(shape, axis))
        some = any(a is not None for a in in_axes) or any(
            a is not None and not self.is_key(i) and inner.shapes[i] for i, a in axes.items()
        )
        if not some and self.chance(0.95):
            shapes, in_axes, inner_shapes = [(size,)], [0], [()]
        args = [self.expression(scope, s, 1) for s in shapes]
        inner.local[:] = inner_shapes
        inner.shapes = {
            i: s if self.is_key(i) or s is None else _without(s, axes[i])
            for i, s in inner.shapes.items()
        }
        empty = {i for i, s in inner.shapes.items() if s is None}
        inner.writable = {i for i in inner.writable if axes[i] is not None}
        self.axes += 1
        inner.axis = f"axis{self.axes}"
        inner.first_mapped = bool(in_axes) and in_axes[0] is not None
        reduced = self.chance(0.4)
        body = self.body(inner, self.rng.randint(1, 2))
        shape = () if reduced else self.rng.choice(((), (2,) if size == 3 else (3,)))
        result = self.expression(inner, shape, 2)
        out = 0
        if reduced:
            result, out = ("psum", inner.axis, result), None
        elif shape:
            out = 0 if size == 3 else 1
        options |= {"in_axes": in_axes, "out": out, "axis": inner.axis}
        for i in empty:
            if inner.shapes[i] is not None and axes[i] is not None:
                inner.shapes[i] = (size,)
        results = [shape if reduced else (size,) if not shape else (3, 2)]
        # other changes might change what is mapped
        repeats = self.repeats(scope, ("augment", "static"))
        self.after(scope, inner, results)
        yield ("call", "vmap", options, [Function(body, result)], kwargs, args, repeats)

    def axis(self, shape, size):
        if shape is None or size not in shape:
            return None
        axis = shape.index(size)
        return axis - len(shape) if self.chance(0.3) else axis

    def by_selection(self, inner, size, options):
        mask, axis = self.selection(), self.rng.choice((0, 0, -1))
        chosen = {i for i, _ in ((i, 0) for i in inner.shapes) if selected(mask, self.params[i])}
        fits = all(
            s is None or (s and s[axis] == size) for i, s in inner.shapes.items() if i in chosen
        )
        if not fits or any(self.is_key(i) for i in chosen):
            return None
        options |= {"form": self.rng.choice(("whole", "dict")), "mask": mask, "value": axis}
        return {i: axis if i in chosen else None for i in inner.shapes}


def _without(shape, axis):
    if axis is None:
        return shape
    rest = list(shape)
    del rest[axis]
    return tuple(rest)


def selected(mask, param):
    """Whether a selection takes a param, by its description."""
    kind, *rest = mask
    if kind == "thawed":
        return selected(rest[0], param) and not param.frozen
    if kind == "not":
        return not selected(rest[0], param)
    if kind == "and":
        return all(selected(part, param) for part in rest)
    return kind == "any" or param.kind in kind.split("|")
