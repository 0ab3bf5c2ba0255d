"""Random rulesets of a vode and random sets and gets, against an interpreter of dictionaries."""

import random
import warnings

import pcx.predictive_coding as pxc

KEYS = ("h", "u", "x", "y")
STATUSES = (None, "init", "infer", "in", "")
# pattern -> the statuses that it is for; written down, not asked of `re`
PATTERNS = {
    None: {None},
    "init": {"init"},
    "in": {"in"},
    "in.*": {"init", "infer", "in"},
    ".*": {None, "init", "infer", "in", ""},
    "infer|init": {"init", "infer"},
}
TFORMS = {
    "double": lambda vode, key, value, rkg: 2 * value,
    "next": lambda vode, key, value, rkg: value + 1,
}


def make_rules(rng):
    """`(ruleset, meaning)`: a list of `(statuses, [(on_set, key, targets, tforms)])`."""
    texts, meaning = {}, {"init": [(True, "u", ["h", "u"], [])]}
    for pattern in rng.sample(list(PATTERNS), rng.randint(0, 4)):
        texts[pattern], meaning[pattern] = [], []
        for _ in range(rng.randint(0, 3)):
            on_set, key = rng.random() < 0.6, rng.choice(KEYS)
            targets = rng.sample(KEYS, rng.randint(1, 3) if on_set else 1)
            tforms = rng.choices(("double", "next"), k=rng.choice((0, 0, 1, 2)))
            gap = rng.choice(("", " "))
            through = "".join(f"{gap}:{gap}{name}" for name in tforms)
            left = f",{gap}".join(targets)
            text = f"{left} <- {key}{through}" if on_set else f"{key} -> {left}{through}"
            texts[pattern].append(text)
            meaning[pattern].append((on_set, key, targets, tforms))
    if len(texts) and rng.random() < 0.2:
        one = rng.choice(list(texts))
        if len(texts[one]) == 1:
            texts[one] = texts[one][0]
    return texts, [(PATTERNS[p], rules) for p, rules in meaning.items()]


class Node:
    """What a vode does, by its documentation."""

    def __init__(self, rules, frozen):
        self.rules, self.frozen = rules, frozen
        self.status, self.held, self.given = None, {}, False

    def firing(self, key, on_set):
        return [
            (targets, tforms)
            for statuses, rules in self.rules
            if self.status in statuses
            for fires_on_set, of, targets, tforms in rules
            if of == key and fires_on_set is on_set
        ]

    def through(self, tforms, value):
        for name in tforms:
            value = 2 * value if name == "double" else value + 1
        return value

    def set(self, key, value):
        if key == "h":
            # a target: frozen, set before the prediction that would overwrite it
            overwritten = any("h" in targets for targets, _ in self.firing("u", True))
            self.given = self.frozen and self.held.get("u") is None and overwritten
        firing = self.firing(key, True)
        for targets, tforms in firing or [([key], [])]:
            new = self.through(tforms, value)
            for target in targets:
                if not (target == "h" and key != "h" and self.given):
                    self.held[target] = new
        if key == "u":
            self.given = False

    def get(self, key):
        """The value, and whether several rules compete."""
        firing = self.firing(key, False)
        if not firing:
            return self.held.get(key), False
        (target,), tforms = firing[0]
        source = self.held.get(target)
        return None if source is None else self.through(tforms, source), len(firing) > 1

    def call(self, u):
        self.set("u", u)
        self.given = False
        return self.get("h")


def judge(seed):
    """One ruleset and up to 12 operations; what is wrong, or None."""
    rng = random.Random(seed)
    texts, rules = make_rules(rng)
    frozen = rng.random() < 0.3
    vode = pxc.Vode(energy_fn=None, ruleset=texts, tforms=TFORMS)
    if frozen:
        vode.h.frozen = True
    node, done = Node(rules, frozen), []
    for _ in range(rng.randint(3, 12)):
        kind, key, value = rng.choice("sssggcr"), rng.choice(KEYS), float(rng.randrange(1, 100))
        done.append((kind, key, value))
        if kind == "r":
            vode.status = node.status = rng.choice(STATUSES)
            done[-1] = vode.status
        elif kind == "s":
            vode.set(key, value)
            node.set(key, value)
        else:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = vode.get(key) if kind == "g" else vode(value)
            expected, competing = node.get(key) if kind == "g" else node.call(value)
            if found != expected or bool(caught) != competing:
                return f"{texts}, frozen={frozen}: {done} gives {found} instead of {expected}"
    for key in KEYS:
        found = vode.h.get() if key == "h" else vode.cache.get(key)
        if found != node.held.get(key):
            return (
                f"{texts}, frozen={frozen}: {done} leaves {key}={found}, not {node.held.get(key)}"
            )
    return None
