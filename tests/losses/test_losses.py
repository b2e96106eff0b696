from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor, TinyJit

from tinyseg.errors import ConfigError, StepError
from tinyseg.jit.key import NotCacheable, describe
from tinyseg.losses import LOSSES, Loss, bce, ce, continuous_dice, dice, focal, prepare
from tinyseg.losses.functions import _probability

Array = NDArray[Any]
EPSILON = 1e-5

# The oracle: the formulas in float64 NumPy, pixel lists in place of masks.


def oracle(name: str, z: Array, y: Array, **arguments: Any) -> float:
    z, kinds = np.moveaxis(z.astype(np.float64), 1, -1), z.shape[1]
    onehot = (y[..., None] == (np.arange(kinds) if kinds > 1 else 1)).astype(np.float64)
    seen = y != 255
    if name in ("bce", "ce", "focal"):
        rows = {"bce": bce_rows, "ce": ce_rows, "focal": focal_rows}[name]
        return rows(z[seen], onehot[seen], **arguments) if seen.any() else 0.0
    background, batch = arguments.pop("background", False), arguments.pop("batch", True)
    groups = [seen] if batch else [seen & (np.arange(len(y)) == b)[:, None, None] for b in (0, 1)]
    classes = range(0 if background or kinds == 1 else 1, kinds)
    p = probability(z)
    return float(
        np.mean(
            [
                OVERLAPS[name](p[g][:, k], onehot[g][:, k], **arguments)
                for g in groups
                for k in classes
            ]
        )
    )


def probability(z: Array) -> Array:
    if z.shape[-1] == 1:
        return np.exp(-np.logaddexp(0, -z))
    return np.exp(log_softmax(z))


def log_softmax(z: Array) -> Array:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def bce_rows(z: Array, t: Array, pos_weight: float = 1, smoothing: float = 0) -> float:
    t = t * (1 - smoothing) + smoothing / 2
    return float(np.mean(pos_weight * t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)))


def ce_rows(z: Array, t: Array, weights: Any = None, smoothing: float = 0) -> float:
    w = np.ones(z.shape[-1]) if weights is None else np.array(weights, np.float64)
    smooth = (1 - smoothing) * t + smoothing / z.shape[-1]
    return float(-(w * smooth * log_softmax(z)).sum() / (w * t).sum())


def focal_rows(z: Array, t: Array, alpha: float = 0.25, gamma: float = 2) -> float:
    if z.shape[-1] == 1:
        z, t = np.concatenate([0 * z, z], -1), np.concatenate([1 - t, t], -1)
    log_p = (log_softmax(z) * t).sum(-1)
    wrong = (np.exp(log_softmax(z)) * (1 - t)).sum(-1)
    weight = np.where(t[:, 0] == 1, 1 - alpha, alpha)
    return float(np.mean(-weight * wrong**gamma * log_p))


def ratio(miss: float, whole: float, p: Array, t: Array) -> float:
    return miss / (whole + EPSILON) if t.any() else p.sum() / (len(p) + EPSILON)


def dice_of(p: Array, t: Array, squared: bool = False) -> float:
    size = (p**2 + t**2).sum() if squared else (p + t).sum()
    if squared and not t.any():
        return float((p**2).sum() / (len(p) + EPSILON))
    return ratio(size - 2 * (p * t).sum(), size, p, t)


def jaccard_of(p: Array, t: Array) -> float:
    both = (p * t).sum()
    return ratio((p + t).sum() - 2 * both, (p + t).sum() - both, p, t)


def tversky_of(p: Array, t: Array, alpha: float = 0.3, beta: float = 0.7) -> float:
    miss = alpha * (p * (1 - t)).sum() + beta * ((1 - p) * t).sum()
    return ratio(miss, miss + (p * t).sum(), p, t)


def focal_tversky_of(p: Array, t: Array, gamma: float = 0.75, **arguments: float) -> float:
    return float(tversky_of(p, t, **arguments) ** gamma)


def continuous_dice_of(p: Array, t: Array, c: float | None = None) -> float:
    if c is None:
        c = (p * t).sum() / (np.sign(p) * t).sum() if (p * t).any() else 1
    size = c * t.sum() + p.sum()
    return ratio(size - 2 * (p * t).sum(), size, p, t)


OVERLAPS: Any = {
    "dice": dice_of,
    "jaccard": jaccard_of,
    "tversky": tversky_of,
    "focal_tversky": focal_tversky_of,
    "continuous_dice": continuous_dice_of,
}


def oracle_gradient(name: str, z: Array, y: Array, **arguments: Any) -> Array:
    """Central differences: error about 1e-9 of the value."""
    gradient, step = np.zeros(z.shape), 1e-5
    for place in np.ndindex(z.shape):
        values = []
        for sign in (1, -1):
            moved = z.astype(np.float64)
            moved[place] += sign * step
            values.append(oracle(name, moved, y, **arguments))
        gradient[place] = (values[0] - values[1]) / (2 * step)
    return gradient


def example(channels: int, seed: int = 0) -> tuple[Array, Array]:
    """Logits (2,K,5,7), some of them tied at 0, and a label with ignored pixels."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 2, (2, channels, 5, 7)).astype(np.float32)
    z[0, :, 1, 1:3] = 0
    y = random.integers(0, max(channels, 2), (2, 5, 7)).astype(np.uint8)
    y[0, 0, :4] = y[1, 3:, 2] = 255
    return z, y


def runner(loss: Any, **arguments: Any) -> Callable[[Array, Array], tuple[float, Array]]:
    """A jitted function of logits and label (call 3 and later are quick): value and gradient."""

    @TinyJit
    def step(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        value = loss(logits, label, **arguments)
        gradient = value.gradient(logits)[0].contiguous()
        Tensor.realize(value, gradient)
        return value, gradient

    def call(z: Array, y: Array) -> tuple[float, Array]:
        value, gradient = step(Tensor(z).realize(), Tensor(y).realize())
        return float(value.item()), gradient.numpy()

    return call


def run(loss: Any, z: Array, y: Array, **arguments: Any) -> tuple[float, Array]:
    return runner(loss, **arguments)(z, y)


HEADS = [(name, k) for name in LOSSES for k in (1, 3) if (name, k) != ("ce", 1)]
CASES: list[tuple[str, int, dict[str, Any]]] = [
    *((name, k, {}) for name, k in HEADS),
    ("bce", 1, {"pos_weight": 3.0, "smoothing": 0.1}),
    ("ce", 2, {"weights": [1.0, 4.0]}),
    ("ce", 3, {"weights": [1.0, 2.0, 5.0], "smoothing": 0.1}),
    ("focal", 1, {"alpha": 0.9, "gamma": 0.5}),
    ("focal", 3, {"alpha": 0.9, "gamma": 0.0}),
    ("dice", 1, {"squared": True, "batch": False}),
    ("dice", 3, {"background": True, "batch": False}),
    ("jaccard", 3, {"background": True}),
    ("tversky", 1, {"alpha": 0.9, "beta": 0.2}),
    ("focal_tversky", 1, {"alpha": 0.2, "beta": 0.6, "gamma": 2.0}),
    ("continuous_dice", 3, {"background": True, "batch": False}),
]


MORE_CASES = [pytest.param(*case, marks=pytest.mark.slow) for case in CASES[14:]]


@pytest.mark.parametrize(("name", "channels", "arguments"), [*CASES[:14], *MORE_CASES])
def test_value_and_gradient_are_those_of_the_oracle(
    name: str, channels: int, arguments: dict[str, Any]
) -> None:
    z, y = example(channels)
    value, gradient = run(LOSSES[name], z, y, **arguments)
    assert value == pytest.approx(oracle(name, z, y, **arguments), rel=2e-6)
    wanted = oracle_gradient(name, z, y, **arguments)
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=2e-7)
    assert (gradient[np.broadcast_to((y == 255)[:, None], z.shape)] == 0).all()


def test_held_continuous_dice_has_the_value_but_takes_c_as_a_constant() -> None:
    z, y = example(1)
    c = (1 / (1 + np.exp(-z.astype(np.float64)[:, 0])))[y == 1].mean()
    value, gradient = run(continuous_dice, z, y, hold=True)
    assert value == pytest.approx(oracle("continuous_dice", z, y), rel=2e-6)
    np.testing.assert_allclose(
        gradient, oracle_gradient("continuous_dice", z, y, c=c), rtol=1e-4, atol=2e-7
    )


@pytest.mark.parametrize(("name", "channels"), HEADS)
def test_extreme_logits_and_labels_stay_finite_and_true(name: str, channels: int) -> None:
    z, y = example(channels)
    extreme = np.where(z > 0, 1e4, -1e4).astype(np.float32)
    step = runner(LOSSES[name])
    for logits in (z, extreme, np.full_like(z, 1e4), np.full_like(z, -1e4)):
        for label in (y, 0 * y, np.full_like(y, channels - 1 or 1)):
            value, gradient = step(logits, label)
            assert value == pytest.approx(oracle(name, logits, label), rel=1e-5, abs=1e-6)
            assert np.isfinite(gradient).all()
        value, gradient = step(logits, np.full_like(y, 255))
        assert value == 0
        assert (gradient == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bce", "ce", "focal", "dice"])
def test_ignoring_pixels_is_the_same_as_cutting_them_off(name: str) -> None:
    z, y = example(2)
    y = np.where(y == 255, 0, y)
    ignored = y.copy()
    ignored[:, :, 4:] = 255
    cut = run(LOSSES[name], z[..., :4].copy(), y[..., :4].copy())[0]
    assert run(LOSSES[name], z, ignored)[0] == pytest.approx(cut, rel=1e-6)
    assert run(LOSSES[name], z, y)[0] != pytest.approx(cut, rel=1e-3)


# Numbers by hand: target on the first two of four pixels, TP 1.4, FP 0.5, FN 0.6.
P = np.array([0.9, 0.5, 0.3, 0.2])
BY_HAND = [
    ("bce", {}, -np.log(0.9 * 0.5 * 0.7 * 0.8) / 4),
    ("bce", {"pos_weight": 2.0}, -np.log(0.9**2 * 0.5**2 * 0.7 * 0.8) / 4),
    ("focal", {"alpha": 0.5, "gamma": 0.0}, -np.log(0.9 * 0.5 * 0.7 * 0.8) / 8),
    ("dice", {}, 1 - 2.8 / 3.9),
    ("dice", {"squared": True}, 1 - 2.8 / (0.81 + 0.25 + 0.09 + 0.04 + 2)),
    ("jaccard", {}, 1 - 1.4 / 2.5),
    ("tversky", {"alpha": 0.3, "beta": 0.7}, 1 - 1.4 / (1.4 + 0.15 + 0.42)),
    ("tversky", {"alpha": 0.5, "beta": 0.5}, 1 - 2.8 / 3.9),
    ("tversky", {"alpha": 1.0, "beta": 1.0}, 1 - 1.4 / 2.5),
    ("focal_tversky", {"alpha": 0.3, "beta": 0.7}, (0.57 / 1.97) ** 0.75),
    ("continuous_dice", {}, 1 - 2.8 / (0.7 * 2 + 1.9)),
]


@pytest.mark.parametrize(("name", "arguments", "wanted"), BY_HAND)
def test_numbers_by_hand(name: str, arguments: dict[str, float], wanted: float) -> None:
    z = np.log(P / (1 - P)).reshape(1, 1, 2, 2).astype(np.float32)
    y = np.array([[[1, 1], [0, 0]]], np.uint8)
    assert LOSSES[name](Tensor(z), Tensor(y), **arguments).item() == pytest.approx(wanted, abs=1e-5)


def test_focal_is_a_hundred_times_below_cross_entropy_at_p_09_as_in_the_paper() -> None:
    z, y = Tensor([[[[np.log(9.0)]]]]), Tensor([[[1]]])
    assert bce(z, y).item() / focal(z, y, alpha=1.0).item() == pytest.approx(100, rel=1e-4)


@pytest.mark.slow
def test_a_two_channel_head_has_the_values_of_the_one_channel_head() -> None:
    z, y = example(1)
    two = np.concatenate([0 * z, z], 1)
    assert ce(Tensor(two), Tensor(y)).item() == pytest.approx(bce(Tensor(z), Tensor(y)).item())
    for name in LOSSES:
        if name not in ("bce", "ce"):
            one = LOSSES[name](Tensor(z), Tensor(y)).item()
            assert LOSSES[name](Tensor(two), Tensor(y)).item() == pytest.approx(one, rel=1e-5)
    with_background = dice(Tensor(two), Tensor(y), background=True).item()
    assert with_background != pytest.approx(dice(Tensor(z), Tensor(y)).item(), rel=1e-3)


def test_an_empty_label_costs_the_share_of_false_positives() -> None:
    z, y = example(1)
    y = np.zeros_like(y)
    for name in ("dice", "jaccard", "tversky", "continuous_dice"):
        value, gradient = run(LOSSES[name], z, y)
        assert value == pytest.approx(np.mean(1 / (1 + np.exp(-z))), rel=1e-5)
        assert (gradient > 0).all()
    assert run(dice, np.full_like(z, -30), y)[0] == pytest.approx(0, abs=1e-6)


def test_continuous_dice_leaves_target_pixels_of_no_probability_out_of_c() -> None:
    z = np.array([1e4, -1e4, 0, -1e4], np.float32).reshape(1, 1, 2, 2)
    y = np.array([[[1, 1], [1, 0]]], np.uint8)
    c, both = 1.5 / 2, 1.5
    value, _ = run(continuous_dice, z, y)
    assert value == pytest.approx(1 - 2 * both / (c * 3 + 1.5), abs=1e-5)


def test_the_exponential_inside_the_sigmoid_does_not_overflow() -> None:
    z = Tensor([[[[-1e4, -100.0, 1e4]]]])
    p = _probability(z, Tensor([[[1, 1, 1]]]), background=False).logits.numpy().ravel()
    assert (p > 0).all()
    np.testing.assert_allclose(p, [0, 0, 1], atol=1e-25)


def test_all_kinds_of_label_are_one() -> None:
    z, y = example(1)
    wanted = bce(Tensor(z), Tensor(y)).item()
    for kind in (np.int32, np.int64, np.float32):
        assert bce(Tensor(z), Tensor(y.astype(kind))).item() == wanted
        assert bce(Tensor(z), Tensor(y.astype(kind)[:, None])).item() == wanted
    targets = prepare(Tensor(z).half(), Tensor(y == 1))
    assert targets.target.shape == targets.valid.shape == z.shape
    np.testing.assert_array_equal(targets.target.numpy()[:, 0], y == 1)
    assert targets.valid.numpy().all()
    assert targets.logits.dtype == targets.target.dtype == Tensor(z).dtype


def test_shapes_that_do_not_fit_are_refused() -> None:
    z, y = (Tensor(array) for array in example(2))
    with pytest.raises(StepError, match=r"label has shape \(2, 7, 5\), logits \(2, 2, 5, 7\)"):
        ce(z, y.permute(0, 2, 1))
    with pytest.raises(StepError, match=r"logits have shape \(2, 5, 7\)"):
        ce(z[:, 0], y)
    with pytest.raises(StepError, match="use bce"):
        ce(z[:, :1], y)
    with pytest.raises(StepError, match="3 class weights for 2 classes"):
        ce(z, y, weights=[1, 2, 3])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sum_returns_itself_and_its_terms(channels: int) -> None:
    first = "bce(pos_weight=2)" if channels == 1 else "ce(weights=[1,2,5])"
    arguments: Any = {"pos_weight": 2} if channels == 1 else {"weights": [1, 2, 5]}
    z, y = example(channels)
    loss = Loss.parse(f"0.5*{first}+0.2*focal(alpha=0.9,gamma=0.5)+3*dice(squared=true)", channels)
    values = {name: value.item() for name, value in loss(Tensor(z), Tensor(y)).items()}
    name = first[: first.index("(")]
    wanted = {
        name: oracle(name, z, y, **arguments),
        "focal": oracle("focal", z, y, alpha=0.9, gamma=0.5),
        "dice": oracle("dice", z, y, squared=True),
    }
    wanted["loss"] = 0.5 * wanted[name] + 0.2 * wanted["focal"] + 3 * wanted["dice"]
    assert loss.terms == (name, "focal", "dice")
    assert values == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
def test_every_loss_takes_its_numbers_as_tensors() -> None:
    z, y = example(3)
    for name in LOSSES:
        value = Loss.parse(name, 3)(Tensor(z), Tensor(y))[name].item()
        assert value == pytest.approx(oracle(name, z, y), rel=1e-5)


def test_numbers_change_in_a_captured_step_without_a_new_graph() -> None:
    loss = Loss.parse("focal(alpha=0.9,gamma=2)+tversky(alpha=0.2)", 1)

    @TinyJit
    def step(logits: Tensor, label: Tensor, state: dict[str, Tensor]) -> Tensor:
        return loss(logits, label)["loss"].realize()

    z, y = example(1)
    logits, label = Tensor(z).realize(), Tensor(y).realize()
    for alpha, gamma, weight in ((0.9, 2, 1), (0.5, 1, 1), (0.1, 0, 2), (0.7, 3, 0.5)):
        loss.assign("focal.alpha", alpha)
        loss.assign("focal.gamma", gamma)
        loss.assign("tversky.weight", weight)
        part = oracle("focal", z, y, alpha=alpha, gamma=gamma)
        wanted = part + weight * oracle("tversky", z, y, alpha=0.2)
        assert step(logits, label, loss.state).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["focal", "focal_tversky"])
@pytest.mark.parametrize("channels", [1, 2])
def test_exponents_as_tensors_keep_the_gradient_finite_where_nothing_is_wrong(
    text: str, channels: int
) -> None:
    loss, y = Loss.parse(text, channels), np.ones((1, 2, 2), np.uint8)
    step = runner(lambda logits, label: loss(logits, label)["loss"])
    for gamma in (0.001, 0.5, 2):
        loss.assign(f"{text}.gamma", gamma)
        for size in (0, 30, 200):
            z = np.full((1, channels, 2, 2), size, np.float32)
            z[:, : channels - 1] *= -1
            value, gradient = step(z, y)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()
    assert value == 0


def test_the_text_is_canonical_and_follows_the_numbers() -> None:
    text = "0.7*focal(alpha=0.9)+0.3*bce+dice(batch=false)+2*dice"
    loss = Loss.parse(
        " 0.7 * focal(gamma=2,alpha=.9) + 3e-1*bce(smoothing=0)+dice(batch=False)+2*dice", 1
    )
    assert loss.text == text
    assert Loss.parse(text, 1).text == text
    assert loss.terms == ("focal", "bce", "dice", "dice_2")
    loss.assign("focal.alpha", 0.25)
    loss.assign("dice_2.weight", 1)
    assert loss.text == "0.7*focal+0.3*bce+dice(batch=false)+dice"
    assert Loss.parse("ce(weights=[1,2,0.1])", 3).text == "ce(weights=[1,2,0.1])"
    assert Loss.parse("auto", 1).text == "0.5*bce+0.5*dice"
    assert Loss.parse("auto", 3).text == "0.5*ce+0.5*dice"


def test_the_graph_is_named_by_what_shapes_it() -> None:
    def graph(text: str) -> str:
        loss = Loss.parse(text, 1)
        return describe(loss, loss.state)

    one = Loss.parse("focal+dice", 1)
    assert graph("focal+dice") == graph("2*focal(alpha=0.9)+dice")
    assert graph("focal+dice") != graph("focal+dice(squared=true)")
    assert graph("focal+dice") != graph("focal")
    assert list(one.state) == [
        "loss.focal.weight",
        "loss.focal.alpha",
        "loss.focal.gamma",
        "loss.dice.weight",
    ]


def test_a_plain_function_is_a_loss() -> None:
    def brightness(logits: Tensor, label: Tensor) -> Tensor:
        return logits.mean()

    z, y = example(1)
    loss = Loss.of(brightness, 1)
    values = loss(Tensor(z), Tensor(y))
    assert (loss.terms, loss.text) == (("brightness",), "brightness")
    assert values["loss"].item() == values["brightness"].item() == pytest.approx(z.mean(), rel=1e-5)
    assert Loss.of(lambda logits, label: logits.mean(), 1).terms == ("custom",)
    assert Loss.of(loss, 1) is loss
    with pytest.raises(NotCacheable, match=r"brightness is code outside tinyseg, which may change"):
        describe(loss, loss.state)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda logits, label: logits, r"loss custom has shape \(2, 1, 5, 7\)"),
        (lambda logits, label: 0.5, "loss custom gives a float: it must return a Tensor"),
        (lambda logits, label: (logits > 0).sum(), "loss custom is of dtypes.int, .* no gradient"),
    ],
)
def test_a_function_that_is_no_loss_is_told(function: Any, message: str) -> None:
    z, y = example(1)
    with pytest.raises(StepError, match=message):
        Loss.of(function, 1)(Tensor(z), Tensor(y))


def test_functions_and_texts_can_be_summed() -> None:
    def gradient_norm(logits: Tensor, label: Tensor, power: int = 2) -> Tensor:
        """Has a name that the step uses."""
        return (logits**power).mean()

    def dice(logits: Tensor, label: Tensor) -> Tensor:
        return logits.abs().mean()

    z, y = example(1)
    parts = [(0.5, "bce+2*dice(squared=true)"), (0.25, gradient_norm), (2, dice)]
    loss = Loss.of(parts, 1)
    assert loss.terms == ("bce", "dice", "custom", "dice_2")
    assert loss.text == "0.5*bce+dice(squared=true)+0.25*custom+2*dice"
    values = {name: value.item() for name, value in loss(Tensor(z), Tensor(y)).items()}
    assert values["custom"] == pytest.approx(np.square(z).mean(), rel=1e-5)
    assert values["dice_2"] == pytest.approx(np.abs(z).mean(), rel=1e-5)
    one = {
        n: v.item()
        for n, v in Loss.parse("bce+dice(squared=true)", 1)(Tensor(z), Tensor(y)).items()
    }
    assert (values["bce"], values["dice"]) == (one["bce"], one["dice"])
    total = 0.5 * one["bce"] + one["dice"] + 0.25 * values["custom"] + 2 * values["dice_2"]
    assert values["loss"] == pytest.approx(total, rel=1e-6)
    loss.assign("dice_2.weight", 0)
    assert Loss.of("auto", 3).text == "0.5*ce+0.5*dice"


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ([], r"loss=\[\] cannot be used: give a text, a function f\(logits, label\) or a list"),
        (None, "loss=None cannot be used"),
        (["bce", "dice"], "cannot be used"),
        ([(0.5, "bce"), (0.5, None)], "cannot be used"),
        ([("half", "bce")], "cannot be used"),
        ([(-1, "bce")], "bce.weight=-1.0 cannot be used: it must be 0 or more"),
        ([(1, "bce(foo=1)")], "unknown argument 'foo'; known for bce: pos_weight, smoothing"),
    ],
)
def test_what_is_no_loss_is_one_clear_error(loss: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Loss.of(loss, 1)


def test_a_loss_added_to_the_table_may_have_arguments_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mine(logits: Tensor, label: Tensor, theta: float = 1.5, power: int = 2) -> Tensor:
        return (logits * theta).mean() * power

    def needs(logits: Tensor, label: Tensor, theta: Any) -> Tensor:
        return logits.mean()

    monkeypatch.setitem(LOSSES, "mine", mine)
    monkeypatch.setitem(LOSSES, "needs", needs)
    z, y = example(1)
    loss = Loss.parse("mine(theta=-2)", 1)
    assert loss(Tensor(z), Tensor(y))["mine"].item() == pytest.approx(-4 * z.mean(), rel=1e-5)
    assert loss.text == "mine(theta=-2)"
    with pytest.raises(ConfigError, match="unknown argument 'alpha'; known for mine: theta, power"):
        Loss.parse("mine(alpha=1)", 1)
    with pytest.raises(ConfigError, match="the argument theta of the loss needs needs a default"):
        Loss.parse("needs", 1)


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        ("dise", 1, "unknown loss 'dise'; known: bce, ce, focal, dice, continuous_dice"),
        ("focal(beta=1)", 1, "unknown argument 'beta'; known for focal: alpha, gamma"),
        ("focal(alpha=1.5)", 1, "focal.alpha=1.5 cannot be used: it must be from 0 to 1"),
        ("focal(gamma=-1)", 1, "focal.gamma=-1.0 cannot be used: it must be 0 or more"),
        ("focal_tversky(gamma=0)", 1, "it must be above 0"),
        ("tversky(alpha=-0.1)", 1, "tversky.alpha=-0.1 cannot be used: it must be 0 or more"),
        ("-1*dice", 1, "dice.weight=-1.0 cannot be used: it must be 0 or more"),
        ("dice(squared=2)", 1, "squared=2 cannot be used: give true or false"),
        ("bce(smoothing=1)", 1, "it must be a fraction below 1"),
        ("bce(pos_weight=0)", 1, "it must be above 0"),
        ("ce", 1, "ce needs a head of 2 or more channels; use bce"),
        ("ce(weights=[1,2])", 3, "give one number per class in weights, 3 in all"),
        ("ce(weights=[1,-2])", 2, "it must be 0 or more each"),
        ("bce dice", 1, "found 'dice'"),
    ],
)
def test_a_text_that_breaks_a_rule_is_refused(text: str, channels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Loss.parse(text, channels)
    assert "\n" not in str(caught.value)


def test_assign_refuses_what_the_text_would() -> None:
    loss = Loss.parse("focal+ce", 3)
    with pytest.raises(
        ConfigError, match=r"unknown number 'focal.beta' of loss focal\+ce; known: "
    ):
        loss.assign("focal.beta", 1)
    with pytest.raises(ConfigError, match=r"focal\.gamma=-1 cannot be used"):
        loss.assign("focal.gamma", -1)
    with pytest.raises(ConfigError, match=r"ce\.weights=1 cannot be used: its shape is \(3,\)"):
        loss.assign("ce.weights", 1)
    loss.assign("ce.weights", (1, 2, 3))
    assert loss.text == "focal+ce(weights=[1,2,3])"
