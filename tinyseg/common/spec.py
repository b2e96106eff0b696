"""The small language of settings such as "0.7*focal(alpha=0.9,gamma=2)+0.3*bce".

sum   = term ("+" term)*          term = [number "*"] call
call  = name ["(" [name "=" value ("," name "=" value)*] ")"]
value = number | true | false | word | "[" number ("," number)* "]"
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tinyseg.errors import ConfigError

Value = float | bool | str | tuple[float, ...]

_TOKEN = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[A-Za-z_]\w*|\S)", re.ASCII)
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
    """Reads "adam(lr=0.001)" or "dice"; anything else raises ConfigError with the place."""
    reader = _Reader(text, example)
    call = reader.call()
    reader.end("the end")
    return call


def parse_sum(text: str, example: str = _EXAMPLE) -> list[tuple[float, Call]]:
    """Reads "0.7*focal(gamma=2)+bce" as weights (1 where none is written) and calls.

    The error for anything else shows the `example`.
    """
    reader = _Reader(text, example)
    terms = [reader.term()]
    while reader.take("+"):
        terms.append(reader.term())
    reader.end("'+' or the end")
    return terms


def fill(call: Call, defaults: Mapping[str, Value]) -> dict[str, Value]:
    """All arguments of a call: those written, checked by name and type, over the defaults.

    A default's type is the rule for its argument (a tuple's length is not compared).
    """
    for name, value in call.arguments.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ConfigError(f"{call}: unknown argument {name!r}; known for {call.name}: {known}")
        if type(value) is not type(defaults[name]):
            kind = _KINDS[type(defaults[name])]
            raise ConfigError(f"{call}: {name}={write_value(value)} cannot be used: give {kind}")
    return {**defaults, **call.arguments}


def check_name(call: Call, known: Collection[str], what: str) -> None:
    """Raises ConfigError unless the call's name is one of the known ones (of a loss, ...)."""
    if call.name not in known:
        raise ConfigError(f"unknown {what} {call.name!r}; known: {', '.join(known)}")


def write_value(value: Value) -> str:
    """A value as the text that reads back as the same value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(write_value(item) for item in value)}]"
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


class _Reader:
    """Tokens of a text with their places, read from left to right."""

    def __init__(self, text: str, example: str = _EXAMPLE) -> None:
        self.text, self.example = text, example
        self.tokens = [(match[1], match.start(1)) for match in _TOKEN.finditer(text)]
        self.tokens.append(("", len(text)))
        self.index = 0

    def peek(self) -> str:
        return self.tokens[self.index][0]

    def take(self, token: str) -> bool:
        found = self.peek() == token
        self.index += found
        return found

    def fail(self, expected: str) -> ConfigError:
        token, place = self.tokens[self.index]
        seen = repr(token) if token else "the end"
        return ConfigError(
            f"{self.text!r} cannot be read at character {place + 1}: "
            f"found {seen} where {expected} was expected; an example: {self.example}"
        )

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.fail(repr(token))

    def end(self, expected: str) -> None:
        if self.peek():
            raise self.fail(expected)

    def name(self, expected: str = "a name") -> str:
        token = self.peek()
        if not token.isidentifier():
            raise self.fail(expected)
        self.index += 1
        return token

    def number(self, expected: str = "a number") -> float:
        start, sign = self.index, -1.0 if self.take("-") else 1.0
        try:
            value = sign * float(self.peek())
        except ValueError:
            raise self.fail(expected) from None
        if not math.isfinite(value):
            self.index = start
            raise self.fail("a finite number")
        self.index += 1
        return value

    def term(self) -> tuple[float, Call]:
        if self.peek().isidentifier():
            return 1.0, self.call()
        weight = self.number("a name or a weight")
        self.expect("*")
        return weight, self.call()

    def call(self) -> Call:
        name, arguments = self.name(), dict[str, Value]()
        if self.take("(") and not self.take(")"):
            self.argument(arguments)
            while self.take(","):
                self.argument(arguments)
            if not self.take(")"):
                raise self.fail("',' or ')'")
        return Call(name, arguments)

    def argument(self, arguments: dict[str, Value]) -> None:
        if self.peek() in arguments:
            raise self.fail("an argument not given before")
        name = self.name("an argument such as name=value")
        self.expect("=")
        arguments[name] = self.value()

    def value(self) -> Value:
        if self.take("["):
            return self.numbers()
        token = self.peek()
        if not token.isidentifier():
            return self.number("a number, true, false, a word or a list")
        self.index += 1
        return {"true": True, "false": False}.get(token.lower(), token)

    def numbers(self) -> tuple[float, ...]:
        values = [self.number()]
        while self.take(","):
            values.append(self.number())
        if not self.take("]"):
            raise self.fail("',' or ']'")
        return tuple(values)
