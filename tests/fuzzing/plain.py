"""Runs a program with JAX alone: a dictionary of arrays that goes in and out of pure functions.

Loops and branches are loops of Python and `where`; `jax.vmap` and `jax.value_and_grad` are JAX's.
"""

import copy
import dataclasses

import jax
import jax.numpy as jnp

from tests.fuzzing.generate import below, nodes, params_below, selected, swap

UNARY = {"sin": jnp.sin, "cos": jnp.cos, "tanh": jnp.tanh, "neg": jnp.negative}
BINARY = {"+": jnp.add, "-": jnp.subtract, "*": jnp.multiply}
# how often a loop runs further, until what depends on a mapped value does so in each iteration
FURTHER = 6


class Meaningless(Exception):
    """The generator made a program that says nothing of some param."""


class Illegal(Exception):
    """The program has no meaning; what pcx must say."""


class Env:
    """One body's state and local values."""

    def __init__(self, roots, state, local, outer=None):
        self.roots, self.state, self.local, self.outer = roots, state, local, outer

    def id_of(self, ref):
        return below(self.roots[ref[1]], ref[2])[1]


def is_traced(x):
    return isinstance(x, jax.core.Tracer)


class Plain:
    """See the module.

    Args:
        program: what to run.
        joined: every branch counts and every loop is followed to its end, as where JAX compiles:
            a value that depends on a mapped one in any of them does so after it.
    """

    def __init__(self, program, joined=False):
        self.program, self.joined = program, joined
        self.params = [dataclasses.replace(p) for p in program.params]
        self.tree = copy.deepcopy(program.tree)
        self.statics = {path: 2 for path, node in nodes(self.tree) if node[0] == "module"}
        # a module keeps its number when the tree around it changes: only params change places
        self.number_of = {id(n): path for path, n in nodes(self.tree) if n[0] == "module"}
        self.error = None
        state = {i: self.first(p) for i, p in enumerate(self.params)}
        state[-1] = jax.random.PRNGKey(7)
        local = list(map(jnp.asarray, program.inputs))
        self.env = Env({"model": self.tree}, state, local)

    def first(self, param):
        if param.kind == "K":
            return jax.random.PRNGKey(param.value)
        return None if param.value is None else jnp.asarray(param.value)

    def run(self):
        """Run it all; the number of the statement that failed, or None."""
        with jax.disable_jit():
            for number, statement in enumerate(self.program.body):
                try:
                    self.execute(statement, self.env)
                except Illegal as error:
                    self.error = error
                    return number
        return None

    def evaluate(self, expression, env):
        kind, *rest = expression
        if kind == "local":
            return env.local[rest[0]]
        if kind == "outer":
            return env.outer.local[rest[0]]
        if kind == "ref":
            return env.state[env.id_of(expression)]
        if kind in ("constant", "count"):
            return jnp.asarray(rest[0])
        if kind == "next":
            return env.local[0] + 1
        if kind == "static":
            return jnp.asarray(self.statics[self.number_of[id(below(env.roots[rest[0]], rest[1]))]])
        if kind == "draw":
            i = -1 if rest[0] is None else env.id_of(rest[0])
            keys = jax.random.split(env.state[i], 2)
            env.state[i] = keys[0]
            return keys[1][1].astype(float) / 2**32
        if kind == "psum":
            return jax.lax.psum(self.evaluate(rest[1], env), rest[0])
        parts = [self.evaluate(part, env) for part in rest if isinstance(part, tuple)]
        if kind == "unary":
            return UNARY[rest[0]](*parts)
        if kind == "binary":
            return BINARY[rest[0]](*parts)
        if kind == "where":
            return jnp.where(parts[0] > 0, *parts[1:])
        return jnp.sum(*parts)

    def execute(self, statement, env):
        kind, *rest = statement
        state = env.state
        if kind == "let":
            env.local.append(self.evaluate(rest[0], env))
        elif kind == "set":
            state[env.id_of(rest[0])] = self.evaluate(rest[1], env)
        elif kind == "augment":
            i = env.id_of(rest[0])
            value = self.evaluate(rest[2], env)
            state[i] = BINARY[rest[1]](state[i], value)
        elif kind == "item":
            i = env.id_of(rest[0])
            value = self.evaluate(rest[2], env)
            state[i] = jnp.asarray(state[i]).at[rest[1]].set(value)
        elif kind == "assign":
            self.statics[rest[0]] = rest[1]
        elif kind == "freeze":
            self.params[env.id_of(rest[0])].frozen = rest[1]
        elif kind == "swap":
            swap(self.tree, *rest)
        elif kind in ("leak", "replace", "misshape"):
            raise Illegal(kind)
        else:
            self.call(env, *rest)

    def body(self, function, env, kwargs, state, local):
        """One run of a body; its result and the state after it."""
        inner = Env(self.roots(env, kwargs), dict(state), list(local), env)
        for statement in function.body:
            self.execute(statement, inner)
        value = lambda e: self.evaluate(e, inner)
        result = function.result
        if isinstance(result, list):
            return list(map(value, result)), inner.state
        if isinstance(result[0], list):
            return (list(map(value, result[0])), value(result[1])), inner.state
        return value(result), inner.state

    def roots(self, env, kwargs):
        return {n: below(env.roots[name], path) for n, (name, path) in kwargs.items()}

    def call(self, env, name, options, functions, kwargs, args, repeats):
        options = dict(options)
        if name == "scan" and options["xs"]:
            options["xs"] = self.evaluate(options["xs"], env)
        if name == "grad" and options["form"] == "tree":
            options["chosen"] = self.chosen(env, options, kwargs, by_path=True)
        for changes in [(), *repeats]:
            for change in changes:
                self.execute(change, env)
            local = [self.evaluate(a, env) for a in args]
            ids = {
                i: None for root in self.roots(env, kwargs).values() for _, i in params_below(root)
            }
            state = {i: env.state[i] for i in (*ids, -1)}
            run = getattr(self, f"_{name}")
            results, new = run(env, options, functions, kwargs, state, local)
            env.state.update((i, v) for i, v in new.items() if v is not state[i])
            if name == "grad" and options["step"]:
                for i, grad in results.pop().items():
                    env.state[i] = env.state[i] - 0.1 * grad
            elif name == "grad":
                results.pop()
        env.local += results

    def _jit(self, env, options, functions, kwargs, state, local):
        result, state = self.body(functions[0], env, kwargs, state, local)
        return [result], state

    _checkpoint = _jit

    def choose(self, which, first, second):
        """`first` where `which` is true, else `second`: pairs of a result and a state."""

        def pick(a, b):
            if a is b:
                return a
            if a is not None and b is not None and jnp.shape(a) != jnp.shape(b):
                raise Illegal("other shapes from two branches")
            return jnp.where(which, a, b)

        results = jax.tree.map(pick, first[0], second[0])
        return results, {i: pick(v, second[1][i]) for i, v in first[1].items()}

    def _cond(self, env, options, functions, kwargs, state, local):
        which = self.evaluate(options["chooser"], env) > 0
        # the chooser may have drawn
        state = {i: env.state[i] for i in state}
        runs = [lambda f=f: self.body(f, env, kwargs, state, local) for f in functions]
        if not (is_traced(which) or self.joined):
            result, new = runs[0 if which else 1]()
        else:
            result, new = self.choose(which, *[run() for run in runs])
        return [result], new

    def _switch(self, env, options, functions, kwargs, state, local):
        index = jnp.clip(self.evaluate(options["chooser"], env), 0, len(functions) - 1)
        runs = [lambda f=f: self.body(f, env, kwargs, state, local) for f in functions]
        if not (is_traced(index) or self.joined):
            result, new = runs[int(index)]()
        else:
            result, new = runs[-1]()
            for n in reversed(range(len(runs) - 1)):
                result, new = self.choose(index == n, runs[n](), (result, new))
        return [result], new

    def join(self, values, further):
        """The same numbers, that depend on what `further` depends on."""
        return jax.tree.map(
            lambda a, b: a if a is b else a + (0 * b).astype(a.dtype), values, further
        )

    def _scan(self, env, options, functions, kwargs, state, local):
        xs, before = options["xs"], state
        ys = []

        def step(n, state, local):
            given = local if xs is None else [xs[n], *local]
            return self.body(functions[0], env, kwargs, state, given)

        order = range(options["length"])
        for n in reversed(order) if options["reverse"] else order:
            (local, y), state = step(n, state, local)
            ys.append(y)
        if self.joined:
            further, after, y = local, state, ys[-1]
            for _ in range(FURTHER):
                (further, y), after = step(0, after, further)
            local, state = self.join(local, further), self.join(state, after)
            state = {i: before[i] if after[i] is before[i] else v for i, v in state.items()}
            ys = [self.join(one, y) for one in ys]
        return [*local, jnp.stack(ys[::-1] if options["reverse"] else ys)], state

    def _while(self, env, options, functions, kwargs, state, local):
        def proceed(state, local):
            going = local[0] < 3
            if options["more"] is not None:
                inner = Env(self.roots(env, kwargs), dict(state), list(local), env)
                going = jnp.logical_and(going, self.evaluate(options["more"], inner) > 0)
            return going

        for _ in range(3 + FURTHER * self.joined):
            going = proceed(state, local)
            if not (is_traced(going) or self.joined or going):
                break
            new = self.body(functions[0], env, kwargs, state, local)
            if is_traced(going) or self.joined:
                new = self.choose(going, new, (local, state))
            local, state = new
        return local, state

    def _vmap(self, env, options, functions, kwargs, state, local):
        size, axes = options["size"], dict.fromkeys(state)
        if options["form"] == "tree":
            if not set(state) <= {*options["axes"], -1}:
                raise Meaningless("a swap between two calls brings a param that has no axis")
            axes |= {i: options["axes"][i] for i in state if i != -1}
        else:
            for i in state:
                if i != -1 and selected(options["mask"], self.params[i]):
                    axes[i] = options["value"]
        in_axes = options["in_axes"]
        mapped = any(a is not None for a in in_axes) or any(
            axis is not None and state[i] is not None and not self.is_key(i)
            for i, axis in axes.items()
        )
        if not mapped:
            raise Illegal("nothing is mapped")
        for i, axis in axes.items():
            if axis is None or state[i] is None or self.is_key(i):
                continue
            if jnp.shape(state[i])[axis : (axis + 1) or None] != (size,):
                # another param, or one more, by what changed between two calls
                raise Illegal("an axis that a param has not")
        own = [i for i, a in axes.items() if i == -1 or (self.is_key(i) and a is not None)]
        given = dict(state)
        for i in own:
            axes[i], given[i] = 0, jax.random.split(state[i], size)
        changed = set()

        def one(given, local):
            result, new = self.body(functions[0], env, kwargs, given, local)
            changed.update(i for i, v in new.items() if v is not given[i])
            return result, new

        try:
            result, new = jax.vmap(
                one,
                in_axes=(axes, in_axes),
                out_axes=(options["out"], axes),
                axis_name=options["axis"],
                axis_size=size,
            )(given, local)
        except ValueError as error:
            if "out_axes" not in str(error):
                raise
            raise Illegal("a value that differs for each element") from error
        new |= {i: new[i][0] for i in own}
        return [result], {i: new[i] if i in changed else v for i, v in state.items()}

    def is_key(self, i):
        return i == -1 or self.params[i].kind == "K"

    def chosen(self, env, options, kwargs, by_path=False):
        """The params that the mask selects: by id, or by place for a mask that was applied once."""
        places = [
            (n, path, i)
            for n, root in self.roots(env, kwargs).items()
            for path, i in params_below(root)
        ]
        hit = [place for place in places if selected(options["mask"], self.params[place[2]])]
        return {(n, path) for n, path, _ in hit} if by_path else {i for _, _, i in hit}

    def _grad(self, env, options, functions, kwargs, state, local):
        places = [
            (n, path, i)
            for n, root in self.roots(env, kwargs).items()
            for path, i in params_below(root)
        ]
        if "chosen" in options:
            marked = {}
            for n, path, i in places:
                if marked.setdefault(i, (n, path) in options["chosen"]) != (
                    (n, path) in options["chosen"]
                ):
                    raise Illegal("a shared param with two values of the mask")
            chosen = {i for i, mark in marked.items() if mark}
        else:
            chosen = self.chosen(env, options, kwargs)
        chosen = {i for i in chosen if state[i] is not None}
        argnum = options["argnums"]
        if not chosen and argnum is None:
            raise Illegal("nothing to differentiate")
        if any(not jnp.issubdtype(state[i].dtype, jnp.floating) for i in chosen):
            raise Illegal("not floating point")

        def scalar(values, positional):
            given = list(local)
            if argnum is not None:
                given[argnum] = positional
            return self.body(functions[0], env, kwargs, state | values, given)

        def with_changes(values, positional):
            value, new = scalar(values, positional)
            before = state | values
            # what the body leaves alone stays what it was, outside of the gradient's reach
            new = {i: v for i, v in new.items() if v is not before[i]}
            return value, new

        positional = 0.0 if argnum is None else local[argnum]
        (value, new), (grads, by_position) = jax.value_and_grad(
            with_changes, argnums=(0, 1), has_aux=True
        )({i: state[i] for i in chosen}, positional)
        total = 0.0
        for weight, (_, _, i) in enumerate(places):
            if i in chosen:
                total = total + (weight + 1) * jnp.sum(grads[i])
        more = [] if argnum is None else [by_position]
        return [value, total, *more, grads], state | new

    def observed(self):
        """Values of all params and of the keys, and local values."""
        return dict(self.env.state), self.env.local
