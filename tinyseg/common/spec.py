"""The small language of settings such as "0.7*focal(alpha=0.9,gamma=2)+0.3*bce".

It is a part of Python's own language, read by `ast.parse` and never evaluated:

sum   = term ("+" term)*          term = [number "*"] call
call  = name ["(" [name "=" value ("," name "=" value)*] ")"]
value = number | true | false | word | "[" number ("," number)* "]"
"""

import ast
import difflib
import math
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tinyseg.errors import ConfigError

Value = float | bool | str | tuple[float, ...]

LONGEST = 2000
"""Characters of a text; one that is longer was not written by a person."""
_EXAMPLE = "0.7*focal(gamma=2)+0.3*bce"
_KINDS: dict[type, str] = {
    float: "a number",
    bool: "true or false",
    str: "a word",
    tuple: "a list of numbers, e.g. [1,2]",
}


@dataclass(frozen=True)
class Call:
    """A name with named arguments; `str(call)` is text that `parse_call` reads back equal."""

    name: str
    arguments: dict[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ",".join(f"{key}={write_value(value)}" for key, value in self.arguments.items())
        return f"{self.name}({inside})" if inside else self.name


def parse_call(text: str, example: str = _EXAMPLE) -> Call:
    """Read "adam(lr=0.001)" or "dice"; ConfigError, with the place and the example, otherwise."""
    reader = _Reader(text, example)
    return reader.call(reader.tree())


def parse_sum(text: str, example: str = _EXAMPLE) -> list[tuple[float, Call]]:
    """Read "0.7*focal(gamma=2)+bce" as weights (1 where none is written) and calls."""
    reader = _Reader(text, example)
    return reader.sum(reader.tree())


def fill(call: Call, defaults: Mapping[str, Value]) -> dict[str, Value]:
    """Return all arguments of a call: those written, checked by name and type, or the defaults.

    A default's type is the rule for its argument (a tuple's length is not compared).
    """
    for name, value in call.arguments.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ConfigError(
                f"{call}: unknown argument {name!r}; known for {call.name}: {known}"
                + did_you_mean(name, defaults)
            )
        if type(value) is not type(defaults[name]):
            kind = _KINDS[type(defaults[name])]
            raise ConfigError(f"{call}: {name}={write_value(value)} cannot be used: give {kind}")
    return {**defaults, **call.arguments}


def check_name(call: Call, known: Collection[str], what: str) -> None:
    """Raise ConfigError unless the call's name is one of the known ones (of a loss, ...)."""
    if call.name not in known:
        close = did_you_mean(call.name, known)
        raise ConfigError(f"unknown {what} {call.name!r}; known: {', '.join(known)}{close}")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the end of an error's line that asks for the most similar name, if there is one."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def write_value(value: Value) -> str:
    """Return a value as the text that reads back as the same value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(write_value(item) for item in value)}]"
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


class _Reader:
    """Walks over the syntax tree of a text; all but the few allowed nodes is an error."""

    def __init__(self, text: str, example: str) -> None:
        self.text, self.example = text, example
        line = re.sub(r"\s", " ", text)  # a line break means nothing, brackets or not
        self.source = line.strip()
        self.indent = len(line) - len(line.lstrip())

    def tree(self) -> ast.expr:
        """Return the text as an expression of Python, not evaluated."""
        if len(self.text) > LONGEST:
            raise ConfigError(
                f"{self.text[:40]!r}... has {len(self.text)} characters: at most {LONGEST} are read"
            )
        if "#" in self.source:  # Python would take it and what follows for a comment
            raise self._error(self.source.index("#"), "no '#'")
        try:
            with warnings.catch_warnings(action="ignore"):
                return ast.parse(self.source, mode="eval").body
        except SyntaxError as error:
            closed = "closed" not in error.msg
            wanted = "name(argument=value)" if closed else "a bracket that closes it"
            raise self._error((error.offset or 0) - 1, wanted) from None
        except (ValueError, RecursionError, MemoryError):  # zero bytes, brackets without end
            raise self._error(0, "name(argument=value)") from None

    def sum(self, node: ast.expr) -> list[tuple[float, Call]]:
        nodes = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            nodes.append(node.right)
            node = node.left
        return [self._term(each) for each in (node, *reversed(nodes))]

    def _term(self, node: ast.expr) -> tuple[float, Call]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return self._number(node.left, "one weight before '*'"), self.call(node.right)
        return 1.0, self.call(node, "'+' or the end")

    def call(self, node: ast.expr, after: str = "the end") -> Call:
        if isinstance(node, ast.Name):
            return Call(node.id)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise self._refuse(node, after if isinstance(node, ast.BinOp) else "a name")
        arguments: dict[str, Value] = {}
        for positional in node.args:
            raise self._refuse(positional, "an argument such as name=value")
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in arguments:
                raise self._refuse(keyword, "an argument such as name=value, each name once")
            arguments[keyword.arg] = self._value(keyword.value)
        return Call(node.func.id, arguments)

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.List):
            if not node.elts:
                raise self._refuse(node, "a list of numbers, e.g. [1,2]")
            return tuple(self._number(item, "a number") for item in node.elts)
        if isinstance(node, ast.Name):
            return {"true": True, "false": False}.get(node.id.lower(), node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return node.value
        return self._number(node, "a number, true, false, a word or a list")

    def _number(self, node: ast.expr, wanted: str) -> float:
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        digits = node.operand if isinstance(node, ast.UnaryOp) and negative else node
        value = digits.value if isinstance(digits, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refuse(node, wanted)
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self._refuse(node, "a finite number")
        return -value if negative else value

    def _refuse(self, node: ast.expr | ast.keyword, wanted: str) -> ConfigError:
        column = node.left.end_col_offset if isinstance(node, ast.BinOp) else node.col_offset
        before = self.source.encode()[:column].decode()  # columns are counted in bytes
        gap = len(self.source[len(before) :]) - len(self.source[len(before) :].lstrip())
        return self._error(len(before) + gap, wanted)

    def _error(self, place: int, wanted: str) -> ConfigError:
        place = place if place >= 0 else len(self.source)
        token = re.match(r"\w[\w.]*|\S|", self.source[place:])
        seen = repr(token[0]) if token and token[0] else "the end"
        return ConfigError(
            f"{self.text!r} cannot be read at character {self.indent + place + 1}: found {seen}, "
            f"expected {wanted}; an example: {self.example}"
        )
