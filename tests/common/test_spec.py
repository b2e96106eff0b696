import pytest

from tinyseg.common.spec import Call, check_name, fill, parse_call, parse_sum
from tinyseg.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("dice", Call("dice")),
        ("constant()", Call("constant")),
        (" adam ( lr = 1e-3 ) ", Call("adam", {"lr": 0.001})),
        ("sgd(lr=.1,nesterov=true)", Call("sgd", {"lr": 0.1, "nesterov": True})),
        ("f(a=-2,b=False,c=mean)", Call("f", {"a": -2.0, "b": False, "c": "mean"})),
        ("ce(weights=[1, 2.5,5])", Call("ce", {"weights": (1.0, 2.5, 5.0)})),
    ],
)
def test_a_call_is_read_and_written_back(text: str, call: Call) -> None:
    assert parse_call(text) == call
    assert parse_call(str(call)) == call
    kinds = [type(value) for value in parse_call(text).arguments.values()]
    assert kinds == [type(value) for value in call.arguments.values()]


def test_a_call_is_written_without_needless_digits() -> None:
    assert str(parse_call("sgd(lr=0.10,decay=1E-4,nesterov=TRUE)")) == (
        "sgd(lr=0.1,decay=0.0001,nesterov=true)"
    )


def test_a_sum_is_weights_and_calls() -> None:
    focal = Call("focal", {"alpha": 0.9, "gamma": 2.0})
    assert parse_sum("0.7*focal(alpha=0.9,gamma=2)+0.3*bce") == [(0.7, focal), (0.3, Call("bce"))]
    assert parse_sum("bce + 1e+1 * dice") == [(1.0, Call("bce")), (10.0, Call("dice"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: found the end where a name"),
        ("focal(alpha=0.9", "character 16: found the end where ',' or '"),
        ("focal(alpha)", "character 12: found '\\)' where '='"),
        ("focal(alpha=)", "character 13: found '\\)' where a number, true"),
        ("focal(0.9)", "character 7: found '0.9' where an argument"),
        ("focal(alpha=1,alpha=2)", "character 15: found 'alpha' where an argument not given"),
        ("focal(alpha=1e999)", "character 13: found '1e999' where a finite number"),
        ("ce(weights=[])", "character 13: found '\\]' where a number"),
        ("ce(weights=[1;2])", "character 14: found ';' where ',' or '\\]'"),
        ("adam lr=1", "character 6: found 'lr' where the end"),
        ("__import__('os')", 'character 12: found "\'" where an argument'),
    ],
)
def test_what_cannot_be_read_names_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_call(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bce+", "character 5: found the end where a name or a weight"),
        ("bce-dice", "character 4: found '-' where '\\+' or the end"),
        ("0.5bce", "character 4: found 'bce' where '\\*'"),
        ("0.5*", "character 5: found the end where a name"),
        ("bce dice", "character 5: found 'dice' where '\\+' or the end"),
    ],
)
def test_a_bad_sum_names_the_place_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_sum(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fill_puts_written_arguments_over_defaults() -> None:
    defaults = {"lr": 0.1, "nesterov": False, "weights": (1.0,)}
    filled = fill(parse_call("sgd(nesterov=true,weights=[1,2])"), defaults)
    assert filled == {"lr": 0.1, "nesterov": True, "weights": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sgd(speed=1)", "unknown argument 'speed'; known for sgd: lr, nesterov"),
        ("sgd(lr=fast)", "lr=fast cannot be used: give a number"),
        ("sgd(lr=true)", "lr=true cannot be used: give a number"),
        ("sgd(lr=[1,2])", r"lr=\[1,2\] cannot be used: give a number"),
        ("sgd(nesterov=1)", "nesterov=1 cannot be used: give true or false"),
    ],
)
def test_fill_refuses_unknown_and_wrong_typed_arguments(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fill(parse_call(text), {"lr": 0.1, "nesterov": False})


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    check_name(Call("adam"), ["sgd", "adam"], "optimizer")
    with pytest.raises(ConfigError, match="unknown optimizer 'lion'; known: sgd, adam"):
        check_name(Call("lion"), ["sgd", "adam"], "optimizer")
