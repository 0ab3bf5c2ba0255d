"""Statuses and rules: what a vode does when a value is set or asked for."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Tform = Callable[..., Any]


class STATUS:
    """The statuses that pcx itself uses; any other string is a status as well.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> vode = pxc.Vode((2,))
        >>> with pxu.step(vode, pxc.STATUS.INIT):
        ...     _ = vode(jnp.ones(2))  # the state becomes the prediction
        >>> vode(jnp.zeros(2)).tolist()  # in no status, it is kept
        [1.0, 1.0]
    """

    NONE = None
    ALL = ".*"
    INIT = "init"


DEFAULT_RULES: dict[str | None, tuple[str, ...]] = {STATUS.INIT: ("h, u <- u",)}

FORMS = """A rule is one of
  "target <- key"            when `key` is set, store it in `target` ("h, u <- u" stores it in both)
  "target <- key:f:g"        ... after the transformations `f`, then `g` (from `tforms`)
  "key -> target"            when `key` is asked for, return `target` instead
  "key -> target:f:g"        ... after the transformations `f`, then `g`"""

UNKNOWN_TFORM = """rule {rule!r} uses the transformation {name!r}, which is not in tforms (given: \
{known}). Add it: `Vode(..., tforms={{{name!r}: f}})` with `f(vode, key, value, rkg) -> value`."""

NO_MAPPING = """{what} must be a dict, such as {form}; got {got!r}."""
_RULES_FORM = "{pxc.STATUS.INIT: ('h, u <- u',)}"

_NAME = r"[A-Za-z_]\w*"
_TFORMS = rf"((?:\s*:\s*{_NAME})*)"
_SET = re.compile(rf"\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*<-\s*({_NAME}){_TFORMS}\s*")
_GET = re.compile(rf"\s*({_NAME})\s*->\s*({_NAME}){_TFORMS}\s*")


@dataclass(frozen=True)
class Rule:
    """One parsed rule.

    Attributes:
        key: the key that fires it.
        targets: where a set rule stores the value; the one key that a get rule reads.
        tforms: names of the transformations, applied left to right.
        on_set: whether it fires on `set(key)` (else on `get(key)`).
        text: the rule as written.

    Example:
        >>> import pcx.predictive_coding as pxc
        >>> [rule] = pxc.Vode().ruleset.on_set(pxc.STATUS.INIT, "u")  # forward initialisation
        >>> rule.text, rule.key, rule.targets
        ('h, u <- u', 'u', ('h', 'u'))
    """

    key: str
    targets: tuple[str, ...]
    tforms: tuple[str, ...]
    on_set: bool
    text: str


def parse_rule(text: Any) -> Rule:
    """Parse one rule.

    Raises:
        ValueError: `text` is no rule; the message lists the valid forms.

    Example:
        >>> parse_rule("h, u <- u:noise").targets
        ('h', 'u')
    """
    if isinstance(text, str):
        if match := _SET.fullmatch(text):
            targets, key, tforms = match.groups()
            return Rule(key, _split(targets, ","), _split(tforms, ":"), True, text)
        if match := _GET.fullmatch(text):
            key, target, tforms = match.groups()
            return Rule(key, (target,), _split(tforms, ":"), False, text)
    raise ValueError(f"{text!r} is not a rule.\n{FORMS}")


def _split(text: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def status_matches(pattern: str | None, status: str | None) -> bool:
    """Whether a status matches a pattern exactly; the pattern None matches the status None only."""
    if pattern is None:
        return status is None
    return re.fullmatch(pattern, status or "") is not None


@dataclass(frozen=True)
class Ruleset:
    """The rules of a vode, parsed once, by status pattern.

    Args:
        rules: `{status pattern: rules}`. An entry replaces the default one of the same status.
        tforms: `{name: f}` with `f(vode, key, value, rkg) -> value`.

    Raises:
        ValueError: a malformed rule or pattern, or a transformation that `tforms` does not have.
        TypeError: rules or tforms of the wrong type.

    Example:
        >>> import pcx.predictive_coding as pxc
        >>> double = lambda vode, key, value, rkg: 2 * value
        >>> vode = pxc.Vode(ruleset={"loud": "h -> h:double"}, tforms={"double": double})
        >>> vode.set("h", 3.0).status = "loud"
        >>> vode.h.get(), vode.get("h")  # what is stored, and what a reader gets
        (3.0, 6.0)
    """

    rules: tuple[tuple[str | None, tuple[Rule, ...]], ...]
    tforms: tuple[tuple[str, Tform], ...]
    _tforms: dict[str, Tform] = field(compare=False, repr=False)

    @classmethod
    def parse(
        cls, rules: Mapping[str | None, str | Iterable[str]], tforms: Mapping[str, Tform]
    ) -> "Ruleset":
        """Parse and check everything once."""
        if not isinstance(rules, Mapping):
            raise TypeError(NO_MAPPING.format(what="a ruleset", form=_RULES_FORM, got=rules))
        if not isinstance(tforms, Mapping):
            raise TypeError(NO_MAPPING.format(what="tforms", form='{"name": f}', got=tforms))
        for name, tform in tforms.items():
            if not callable(tform):
                raise TypeError(
                    f"the transformation {name!r} must be a function (vode, key, value, rkg) -> "
                    f"value; got {tform!r}"
                )
        parsed = []
        for status, texts in {**DEFAULT_RULES, **rules}.items():
            _check_pattern(status)
            group = tuple(map(parse_rule, [texts] if isinstance(texts, str) else texts))
            for rule in group:
                _check_tforms(rule, tforms)
            parsed.append((status, group))
        return cls(tuple(parsed), tuple(sorted(tforms.items())), dict(tforms))

    def on_set(self, status: str | None, key: str) -> list[Rule]:
        """Every rule that fires when `key` is set, in order."""
        return self._matching(status, key, True)

    def on_get(self, status: str | None, key: str) -> Rule | None:
        """The rule that fires when `key` is asked for; warns if there are several."""
        found = self._matching(status, key, False)
        if len(found) > 1:
            warnings.warn(
                f"{len(found)} rules fire when {key!r} is asked for in status {status!r}: "
                f"{[rule.text for rule in found]}; the first is used",
                stacklevel=3,
            )
        return found[0] if found else None

    def _matching(self, status: str | None, key: str, on_set: bool) -> list[Rule]:
        return [
            rule
            for pattern, group in self.rules
            if status_matches(pattern, status)
            for rule in group
            if rule.key == key and rule.on_set is on_set
        ]

    def transform(self, rule: Rule, vode: Any, key: str, value: Any, rkg: Any) -> Any:
        """Apply a rule's transformations, left to right."""
        for name in rule.tforms:
            value = self._tforms[name](vode, key, value, rkg)
        return value

    def knows(self, status: str | None) -> bool:
        """Whether any entry of the ruleset is for this status."""
        return any(status_matches(pattern, status) for pattern, _ in self.rules)

    @property
    def statuses(self) -> tuple[str | None, ...]:
        """The status patterns of the ruleset."""
        return tuple(pattern for pattern, _ in self.rules)


def _check_tforms(rule: Rule, tforms: Mapping[str, Tform]) -> None:
    for name in rule.tforms:
        if name not in tforms:
            known = ", ".join(map(repr, tforms)) or "none"
            raise ValueError(UNKNOWN_TFORM.format(rule=rule.text, name=name, known=known))


def _check_pattern(status: Any) -> None:
    if status is None:
        return
    if not isinstance(status, str):
        raise TypeError(f"a status is a string or None, got {status!r} in a ruleset")
    try:
        re.compile(status)
    except re.error as error:
        raise ValueError(f"the status {status!r} is not a valid pattern: {error}") from error
