"""Runs a program with pcx: objects, in-place operators, the transforms of `pcx.functional`."""

import copy
import operator

import jax
import jax.numpy as jnp
import numpy as np

import pcx as px
import pcx.functional as pxf
import pcx.utils as pxu
from tests.fuzzing.generate import below, params_below, swap

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
IN_PLACE = {"+": operator.iadd, "-": operator.isub, "*": operator.imul}
UNARY = {"sin": jnp.sin, "cos": jnp.cos, "tanh": jnp.tanh, "neg": operator.neg}


class A(px.Param):
    pass


class B(px.Param):
    pass


class N(px.Param):
    pass


class Box(px.BaseModule):
    def __init__(self, below):
        self.n = 2
        for name, child in below.items():
            setattr(self, name, child)


class ModeBox(px.Module):
    __init__ = Box.__init__


def resolve(obj, path):
    for key in path:
        obj = getattr(obj, key) if isinstance(obj, px.BaseModule) else obj[key]
    return obj


def store(obj, key, value):
    if isinstance(obj, px.BaseModule):
        setattr(obj, key, value)
    else:
        obj[key] = value


def param_at(obj, path):
    found = resolve(obj, path)
    return found.key if isinstance(found, px.RandomKeyGenerator) else found


class Env:
    """One body's keyword arguments (with their description) and local values."""

    def __init__(self, roots, described, local, outer=None):
        self.roots, self.described, self.local, self.outer = roots, described, local, outer

    def at(self, ref):
        return resolve(self.roots[ref[1]], ref[2])

    def nodes(self, kwargs):
        return {n: below(self.described[name], path) for n, (name, path) in kwargs.items()}


class Tracked:
    """See the module; `observed()` is what a program left behind."""

    def __init__(self, program):
        self.program = program
        px.RKG.seed(7)
        self.objects = [self.make(i, p) for i, p in enumerate(program.params)]
        self.tree = copy.deepcopy(program.tree)
        self.model = self.build(self.tree)
        self.outsider = px.Param(0.0)
        self.error = None
        self.env = Env(
            {"model": self.model}, {"model": self.tree}, list(map(jnp.asarray, program.inputs))
        )

    def make(self, i, description):
        if description.kind == "K":
            return px.RandomKeyGenerator(description.value)
        value = description.value
        if value is not None and i % 4:  # some stay numbers of Python
            value = np.asarray(value) if i % 4 == 1 else jnp.asarray(value)
        elif value is not None and description.shape:
            value = jnp.asarray(value)
        param = {"A": A, "B": B, "N": N}[description.kind](value)
        if description.frozen:
            param.frozen = True
        return param

    def build(self, node):
        kind, parts = node
        if kind == "param":
            return self.objects[parts]
        if kind in ("module", "dict"):
            built = {name: self.build(part) for name, part in parts.items()}
            return built if kind == "dict" else (ModeBox if "a" in parts else Box)(built)
        return (list if kind == "list" else tuple)(map(self.build, parts))

    def run(self):
        """Run it all; the number of the statement that failed, or None."""
        with jax.disable_jit(not self.program.traced):
            for number, statement in enumerate(self.program.body):
                try:
                    self.execute(statement, self.env)
                except Exception as error:
                    self.error = error
                    return number
        return None

    def value(self, expression, env):
        return px.get(self.evaluate(expression, env))

    def evaluate(self, expression, env):
        kind, *rest = expression
        if kind == "local":
            return env.local[rest[0]]
        if kind == "outer":
            return env.outer.local[rest[0]]
        if kind == "ref":
            return env.at(expression)
        if kind == "constant":
            return jnp.asarray(rest[0]) if isinstance(rest[0], list) else rest[0]
        if kind == "count":
            return rest[0]
        if kind == "next":
            return env.local[0] + 1
        if kind == "static":
            return resolve(env.roots[rest[0]], rest[1]).n
        if kind == "draw":
            generator = px.RKG if rest[0] is None else env.at(rest[0])
            return generator()[1].astype(float) / 2**32
        if kind == "psum":
            return jax.lax.psum(self.value(rest[1], env), rest[0])
        if kind == "unary":
            return UNARY[rest[0]](self.evaluate(rest[1], env))
        if kind == "binary":
            left, right = (self.evaluate(part, env) for part in rest[1:])
            return OPERATORS[rest[0]](left, right)
        if kind == "where":
            chooser, left, right = (self.evaluate(part, env) for part in rest)
            return jnp.where(chooser > 0, left, right)
        assert kind == "sum"
        value = self.evaluate(rest[0], env)
        return value.sum() if isinstance(value, px.Param) else jnp.sum(value)

    def execute(self, statement, env):
        kind, *rest = statement
        if kind == "let":
            env.local.append(self.value(rest[0], env))
        elif kind == "set":
            env.at(rest[0]).set(self.evaluate(rest[1], env))
        elif kind == "augment":
            IN_PLACE[rest[1]](env.at(rest[0]), self.evaluate(rest[2], env))
        elif kind == "item":
            env.at(rest[0])[rest[1]] = self.evaluate(rest[2], env)
        elif kind == "assign":
            resolve(self.model, rest[0]).n = rest[1]
        elif kind == "freeze":
            env.at(rest[0]).frozen = rest[1]
        elif kind == "swap":
            swap(self.tree, *rest)
            (a, i), (b, j) = [(resolve(self.model, path[:-1]), path[-1]) for path in rest]
            first, second = resolve(a, (i,)), resolve(b, (j,))
            store(a, i, second)
            store(b, j, first)
        elif kind == "leak":
            self.outsider.set(env.local[0])
        elif kind == "replace":
            _, name, path = rest[0]
            array = jnp.asarray(param_at(env.roots[name], path)) + 1
            store(resolve(env.roots[name], path[:-1]), path[-1], array)
        elif kind == "misshape":
            env.at(rest[0]).set(jnp.zeros(2))
        else:
            self.call(env, *rest)

    def function(self, function, env, kwargs, scans=False):
        def body(*args, **given):
            if scans is None:  # nothing to scan over
                args = args[1:]
            inner = Env(given, env.nodes(kwargs), list(args), env)
            for statement in function.body:
                self.execute(statement, inner)
            result = function.result
            if scans is not False:
                new, y = result
                return tuple(self.value(e, inner) for e in new), self.value(y, inner)
            if isinstance(result, list):
                return tuple(self.value(e, inner) for e in result)
            return self.value(result, inner)

        return body

    def call(self, env, name, options, functions, kwargs, args, repeats):
        transform = getattr(self, f"_{name}")(env, options, functions, kwargs)
        for changes in [(), *repeats]:
            for change in changes:
                self.execute(change, env)
            given = {n: resolve(env.roots[root], path) for n, (root, path) in kwargs.items()}
            results = transform([self.value(a, env) for a in args], given)
        env.local += results

    def _jit(self, env, options, functions, kwargs):
        jitted = pxf.jit(donate_params=options["donate"])(self.function(functions[0], env, kwargs))
        return lambda args, given: [jitted(*args, **given)]

    def _checkpoint(self, env, options, functions, kwargs):
        checkpointed = pxf.checkpoint()(self.function(functions[0], env, kwargs))
        return lambda args, given: [checkpointed(*args, **given)]

    def _cond(self, env, options, functions, kwargs):
        choose = pxf.cond(*(self.function(f, env, kwargs) for f in functions))
        chooser = options["chooser"]
        return lambda args, given: [choose(self.value(chooser, env) > 0, *args, **given)]

    def _switch(self, env, options, functions, kwargs):
        choose = pxf.switch([self.function(f, env, kwargs) for f in functions])
        chooser = options["chooser"]
        return lambda args, given: [choose(self.evaluate(chooser, env), *args, **given)]

    def _scan(self, env, options, functions, kwargs):
        xs = options["xs"] and self.value(options["xs"], env)
        body = self.function(functions[0], env, kwargs, None if xs is None else True)
        length = options["length"] if xs is None else None
        scan = pxf.scan(body, xs, length, options["reverse"])

        def run(args, given):
            new, ys = scan(*args, **given)
            return [*new, ys]

        return run

    def _while(self, env, options, functions, kwargs):
        def proceed(count, *args, **given):
            if options["more"] is None:
                return count < 3
            inner = Env(given, env.nodes(kwargs), [count, *args], env)
            return jnp.logical_and(count < 3, self.evaluate(options["more"], inner) > 0)

        loop = pxf.while_loop(self.function(functions[0], env, kwargs), proceed)
        return lambda args, given: list(loop(*args, **given))

    def _vmap(self, env, options, functions, kwargs):
        if options["form"] == "tree":
            mask = {n: self.axes(env, options["axes"], *at) for n, at in kwargs.items()}
        else:
            mask = make_mask(options["mask"]).to((None, options["value"]))
            mask = mask if options["form"] == "whole" else dict.fromkeys(kwargs, mask)
        mapped = pxf.vmap(
            mask,
            in_axes=tuple(options["in_axes"]),
            out_axes=options["out"],
            axis_name=options["axis"],
        )(self.function(functions[0], env, kwargs))
        return lambda args, given: [mapped(*args, **given)]

    def axes(self, env, axes, name, path):
        """A mask tree: an axis in place of each param."""
        obj, node = resolve(env.roots[name], path), below(env.described[name], path)
        by_object = {id(param_at(obj, p)): axes[i] for p, i in params_below(node)}
        return jax.tree.map(lambda x: by_object.get(id(x)), obj, is_leaf=px.core.is_param)

    def _grad(self, env, options, functions, kwargs):
        mask = make_mask(options["mask"])
        if options["form"] == "dict":
            mask = dict.fromkeys(kwargs, mask)
        elif options["form"] == "tree":
            objects = {n: resolve(env.roots[root], path) for n, (root, path) in kwargs.items()}
            mask = {n: mask.to((False, True))(obj) for n, obj in objects.items()}
        argnums = () if options["argnums"] is None else options["argnums"]
        differentiated = pxf.value_and_grad(mask, argnums)(self.function(functions[0], env, kwargs))

        def run(args, given):
            value, grads = differentiated(*args, **given)
            more = []
            if argnums != ():
                positional, grads = grads
                more = [positional]
            total, done = 0.0, set()
            places = [
                (n, *at) for n, node in env.nodes(kwargs).items() for at in params_below(node)
            ]
            for weight, (n, path, i) in enumerate(places):
                grad = px.get(param_at(grads[n], path))
                if grad is None:
                    continue
                total += (weight + 1) * jnp.sum(grad)
                if options["step"] and i not in done:
                    done.add(i)
                    param = param_at(given[n], path)
                    param -= 0.1 * grad
            return [value, total, *more]

        return run

    def observed(self):
        """Values of all params and of the keys, local values, and what must be as it was."""
        values = {
            i: (o.key if isinstance(o, px.RandomKeyGenerator) else o).get()
            for i, o in enumerate(self.objects)
        }
        for path, i in params_below(self.tree):
            assert resolve(self.model, path) is self.objects[i], "another object took its place"
        return values | {-1: px.RKG.key.get()}, self.env.local


def make_mask(selection):
    kind, *rest = selection
    if kind == "thawed":
        return make_mask(rest[0]).hasnot(frozen=True)
    if kind == "not":
        return ~make_mask(rest[0])
    if kind == "and":
        return make_mask(rest[0]) & make_mask(rest[1])
    return pxu.M({"A": A, "B": B, "A|B": A | B, "any": None}[kind])
