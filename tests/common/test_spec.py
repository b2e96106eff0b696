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
    assert str(parse_call("sgd(lr=0.10,weight_decay=1E-4,nesterov=TRUE)")) == (
        "sgd(lr=0.1,weight_decay=0.0001,nesterov=true)"
    )


def test_a_sum_is_weights_and_calls() -> None:
    focal = Call("focal", {"alpha": 0.9, "gamma": 2.0})
    assert parse_sum("0.7*focal(alpha=0.9,gamma=2)+0.3*bce") == [(0.7, focal), (0.3, Call("bce"))]
    assert parse_sum("bce + 1e+1 * dice") == [(1.0, Call("bce")), (10.0, Call("dice"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: found the end, expected name"),
        ("focal(alpha=0.9", r"character 6: found '\(', expected a bracket that closes it"),
        ("focal(alpha)", "character 7: found 'alpha', expected an argument such as name=value"),
        ("focal(alpha=)", r"character 13: found '\)', expected"),
        ("focal(0.9)", "character 7: found '0.9', expected an argument"),
        ("focal(alpha=1,alpha=2)", "character 15: found 'alpha', expected .* each name once"),
        ("focal(**x)", r"character 7: found '\*', expected an argument"),
        ("focal(alpha=1e999)", "character 13: found '1e999', expected a finite number"),
        (f"focal(alpha={'9' * 400})", "character 13: found '9+', expected a finite number"),
        ("focal(alpha=1j)", "character 13: found '1j', expected a number, true"),
        ("focal(alpha=x.y)", "character 13: found 'x.y', expected a number, true"),
        ("ce(weights=[])", r"character 12: found '\[', expected a list of numbers"),
        ("ce(weights=[1;2])", "character 14: found ';', expected"),
        ("ce(weights=[1,x])", "character 15: found 'x', expected a number"),
        ("adam lr=1", "character 6: found 'lr', expected"),
        ("dice+bce", r"character 5: found '\+', expected the end"),
        ("dice # best", "character 6: found '#', expected no '#'"),
        ("  é(x=ü.a)", "character 7: found 'ü.a', expected a number, true"),
        ("__import__('os')", 'character 12: found "\'", expected an argument'),
        ("a.b(x=1)", "character 1: found 'a.b', expected a name"),
        ("lambda: 1", "character 1: found 'lambda', expected a name"),
        ("a\0b", "cannot be read"),
        ("(" * 1000, "cannot be read"),
        ("-" * 1900 + "1", "cannot be read"),
        ("a" * 2001, r"a'\.\.\. has 2001 characters: at most 2000 are read"),
    ],
)
def test_what_cannot_be_read_names_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_call(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bce+", "character 5: found the end, expected name"),
        ("bce-dice", r"character 4: found '-', expected '\+' or the end"),
        ("bce - dice", r"character 5: found '-', expected '\+' or the end"),
        ("0.5bce", "cannot be read at character"),
        ("0.5*", "character 5: found the end, expected name"),
        ("2*3*bce", r"character 2: found '\*', expected one weight before"),
        ("bce*2", "character 1: found 'bce', expected one weight before"),
        ("0.5", "character 1: found '0.5', expected a name"),
        ("bce dice", "character 5: found 'dice', expected"),
        ("bce+0.5*(dice+ce)", r"character 14: found '\+', expected the end"),
    ],
)
def test_a_bad_sum_names_the_place_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_sum(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sum_may_be_long_and_go_over_several_lines() -> None:
    assert len(parse_sum("+".join(["bce"] * 400))) == 400
    assert parse_sum("bce\n +\t2*dice") == [(1.0, Call("bce")), (2.0, Call("dice"))]


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
    with pytest.raises(ConfigError, match=r"known: sgd, adam; did you mean adam\?"):
        check_name(Call("Adan"), ["sgd", "adam"], "optimizer")
    with pytest.raises(ConfigError, match=r"'momentun'; known for sgd: momentum; did you mean mom"):
        fill(Call("sgd", {"momentun": 1.0}), {"momentum": 0.9})
