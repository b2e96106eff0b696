"""Public faults, ported to segmentation; each with the list that it is taken from."""

from typing import Any

import numpy as np
from case import Case
from program import HEALTHY_PROGRAMS, Program, at, everywhere, mutated
from runs import finished
from tinygrad.nn.state import get_state_dict

from tinyseg.data import Sample
from tinyseg.device.tensors import copy_

DEEPCRIME = "DeepCrime (ISSTA 2021), operator "
CHECKER = "TheDeepChecker (TOSEM 2022), "
UMLAUT = "UMLAUT (CHI 2021), "
TRAINCHECK = "TrainCheck (OSDI 2025), "
DEEPFD = "DeepFD (ICSE 2022), fault type "
DEFECT4ML = "defect4ML (EMSE 2023), "

PLAIN = HEALTHY_PROGRAMS["no norm, ReLU, SGD"]
SOFTMAX = HEALTHY_PROGRAMS["softmax, cross-entropy"]
STOCK = HEALTHY_PROGRAMS["tinyseg's own"]


def fault(name: str, source: str, cause: str, remedy: str, **fields: Any) -> Case:
    program = mutated(fields.pop("of", Program()), **fields)
    return Case(name, program.project, cause, remedy, source)


# 1. Labels and data


def shuffled(samples: list[Sample]) -> list[Sample]:
    order = np.roll(np.arange(len(samples)), 1)
    return [Sample(s.name, s.image, samples[i].label) for s, i in zip(samples, order, strict=True)]


def of_noise(samples: list[Sample]) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(s.name, rng.integers(0, 256, s.image.shape).astype(s.image.dtype), s.label)
        for s in samples
    ]


def random_labels(samples: list[Sample]) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(s.name, s.image, (rng.random(s.label.shape) < 0.3).astype(s.label.dtype))
        for s in samples
    ]


def one_class(samples: list[Sample]) -> list[Sample]:
    return [Sample(s.name, s.image, s.label * 0) for s in samples]


def copies(samples: list[Sample]) -> list[Sample]:
    return [Sample(s.name, samples[0].image, samples[0].label) for s in samples]


# 2. Networks and updates


def set_all(value: float, part: str) -> Any:
    def prepare(model: Any) -> None:
        for name, tensor in get_state_dict(model).items():
            if part in name:
                copy_(tensor, np.full(tensor.shape, value, np.float32))

    return prepare


def wrong_statistics(model: Any) -> None:
    """As after an import that mixed up mean and variance of another data set."""
    for name, tensor in get_state_dict(model).items():
        if "running" in name:
            value = 40.0 if "mean" in name else 900.0
            copy_(tensor, np.full(tensor.shape, value, np.float32))


def shrink(step: Any) -> None:
    for tensor in step.optimizer.params:
        tensor.assign(tensor * 0.5).realize()


SIGMOIDS, NONE = ("sigmoid",) * 3, ("none",) * 3

PORTED: list[Case] = [
    fault(
        "labels of other images",
        DEEPCRIME + "TCL (change labels)",
        "shuffl|another|label|mask",
        "mask|label|name",
        labels=shuffled,
    ),
    fault(
        "random labels",
        CHECKER + "fitting of a few samples",
        "label|mask|noise",
        "label|mask",
        labels=random_labels,
    ),
    fault(
        "noise instead of images",
        DEEPCRIME + "TAN (add noise)",
        "image|noise|contrast|label",
        "image|mask|file",
        labels=of_noise,
    ),
    fault(
        "every mask empty",
        DEEPCRIME + "TUD (unbalance data)",
        "foreground|empty|background",
        "mask|label|class",
        labels=one_class,
    ),
    fault(
        "one image many times",
        DEEPCRIME + "TRD (remove data)",
        "identical|duplicate|one image",
        "files|script|cop",
        labels=copies,
    ),
    fault(
        "inputs divided by 255 twice",
        UMLAUT + "input normalization",
        "255|input|scale",
        "255|normali|divi|scale",
        change_input=lambda x: x / 255 / 255,
        norm="none",
    ),
    fault(
        "inputs of 0 to 255",
        UMLAUT + "input normalization",
        "input|scale|255|saturat",
        "255|normali|divi|scale",
        change_input=lambda x: x * 64 + 128,
        of=PLAIN,
    ),
    fault(
        "augmentation of the image alone",
        CHECKER + "augmentation",
        "label|mask|align",
        "same random|together|both",
        pipeline="image only",
    ),
    fault(
        "augmentation out of range",
        CHECKER + "distribution shift by augmentation",
        "range|values|bright|mean",
        "clip|range|augment|pipeline",
        pipeline="overflow",
    ),
    fault(
        "augmentation far too bright",
        CHECKER + "distribution shift by augmentation",
        "bright|mean|shift",
        "augment|pipeline|weak",
        pipeline="far too bright",
    ),
    fault(
        "augmentation without new draws",
        TRAINCHECK + "same random numbers in every worker",
        "same|new|each|random",
        "seed|random|generator",
        pipeline="frozen",
    ),
    fault(
        "augmentation that scales to 0..1",
        UMLAUT + "input range",
        "range|255|mean|scale",
        "255|range|scale",
        pipeline="to 0..1",
    ),
    # 3. activations
    fault(
        "no activations",
        DEEPCRIME + "ARM (remove activation)",
        "linear|activation",
        "activation|relu",
        activations=NONE,
    ),
    fault(
        "no activations, no norm",
        UMLAUT + "missing activations",
        "linear|activation",
        "activation|relu",
        activations=NONE,
        of=PLAIN,
    ),
    fault(
        "sigmoid in hidden layers",
        DEEPFD + "wrong activation",
        "sigmoid|saturat|vanish",
        "relu|activation",
        activations=SIGMOIDS,
        of=PLAIN,
    ),
    fault(
        "softmax in hidden layers",
        DEEPCRIME + "ACH (change activation)",
        "softmax",
        "relu|activation|remove",
        activations=("softmax",) * 3,
    ),
    fault(
        "softmax over pixels in the deepest layer",
        DEEPCRIME + "ACH (change activation)",
        "softmax",
        "relu|activation|remove",
        activations=("relu", "pixel softmax", "relu"),
    ),
    fault(
        "exponential activation",
        DEEPCRIME + "ACH (change activation)",
        "explod|exp|overflow|not finite|large",
        "activation|relu",
        activations=("exp",) * 3,
        of=PLAIN,
    ),
    fault(
        "sign activation",
        CHECKER + "gradients",
        "gradient",
        "sign|detach|activation|differ",
        activations=at(("relu",) * 3, 2, "sign"),
    ),
    fault(
        "ReLU at the end",
        DEFECT4ML + "activation of the last layer",
        "relu|negative|one-sided",
        "remove|last",
        final="relu",
    ),
    fault(
        "sigmoid at the end and in the loss",
        DEFECT4ML + "activation of the last layer",
        "sigmoid",
        "remove|sigmoid",
        final="sigmoid",
    ),
    fault(
        "tanh at the end",
        DEEPFD + "wrong activation",
        "tanh|bounded|range|saturat",
        "remove|last|tanh",
        final="tanh",
    ),
    fault(
        "softmax over one channel",
        UMLAUT + "last activation",
        "softmax|constant|same|channel",
        "sigmoid|softmax|channel",
        final="softmax",
    ),
    fault(
        "softmax at the end and in the loss",
        UMLAUT + "last activation",
        "softmax",
        "remove|softmax",
        final="softmax",
        of=SOFTMAX,
    ),
    # 4. initialization
    fault(
        "all weights zero",
        CHECKER + "initial weights",
        "equal|zero|symmetr|init",
        "init|random",
        init=everywhere("constant", 0.0),
    ),
    fault(
        "all weights one number",
        DEEPCRIME + "WCI (change initialization)",
        "equal|constant|symmetr|init",
        "init|random",
        init=everywhere("constant", 0.05),
    ),
    fault(
        "weights of std 1",
        CHECKER + "initial weights",
        "init|scale|large|explod|logits",
        "init|He",
        init=everywhere("normal", 1.0),
        of=PLAIN,
    ),
    fault(
        "weights of std 0.0001",
        CHECKER + "initial weights",
        "init|scale|small|vanish",
        "init|He",
        init=everywhere("normal", 1e-4),
        of=PLAIN,
    ),
    fault(
        "a last layer of std 30",
        CHECKER + "initial loss",
        "init|loss|large|logits|last layer",
        "init|last layer|smaller",
        init=at(everywhere("he"), 3, ("normal", 30.0)),
    ),
    fault(
        "biases of -20",
        CHECKER + "dead units",
        "dead|zero| 0 for",
        "bias|init",
        bias=-20.0,
        norm="none",
        optimizer="adam",
    ),
    # 5. loss
    fault("summed loss", CHECKER + "loss reduction", "sum", "mean", of=PLAIN, loss="sum"),
    fault(
        "loss summed over pixels",
        CHECKER + "loss reduction",
        "sum",
        "mean",
        of=PLAIN,
        loss="sum over pixels",
    ),
    fault(
        "cross-entropy over the batch axis",
        DEFECT4ML + "wrong axis",
        "axis|channel|batch|image",
        "axis|channel",
        of=SOFTMAX,
        loss="ce over the batch",
    ),
    fault(
        "cross-entropy over rows",
        DEFECT4ML + "wrong axis",
        "axis|channel",
        "axis|channel",
        of=SOFTMAX,
        loss="ce over rows",
    ),
    fault(
        "softmax before cross-entropy",
        DEFECT4ML + "loss from logits",
        "softmax|logits|probabilit",
        "softmax|logits|remove",
        of=SOFTMAX,
        loss="softmax before ce",
    ),
    fault(
        "squared error of logits",
        DEEPCRIME + "LCH (change loss)",
        "logits|regress|confident",
        "sigmoid|bce|cross|auto",
        loss="logit mse",
    ),
    fault(
        "Dice of logits",
        DEFECT4ML + "loss from logits",
        "logits|probabilit|wrong|correct",
        "sigmoid",
        loss="logit dice",
    ),
    fault(
        "log of a probability that reaches 0",
        DEEPFD + "wrong loss",
        "finite|nan|inf|log",
        "logits|log|clip|eps|soft",
        loss="log of probability",
    ),
    fault(
        "Dice maximized", DEEPFD + "wrong loss", "sign|wrong|correct", "sign", loss="dice as loss"
    ),
    fault(
        "a loss of the mean alone",
        DEEPCRIME + "LCH (change loss)",
        "pixel|mask|label|minim",
        "loss|pixel",
        loss="mean probability",
    ),
    fault(
        "labels one image on",
        CHECKER + "dependence on data",
        "other image|order|label|pixel",
        "shape|order|index|image",
        loss="next image",
    ),
    # 6. update
    fault(
        "learning rate far too high",
        DEEPFD + "learning rate",
        "learning rate|steps are too",
        "learning rate|lower",
        of=PLAIN,
        lr=300.0,
    ),
    fault(
        "learning rate far too low",
        DEEPCRIME + "HLR (learning rate)",
        "learning rate|small",
        "learning rate|raise",
        lr=1e-7,
    ),
    fault("Adam with eps 10", CHECKER + "parameters that hardly change", "eps", "eps", eps=10.0),
    fault(
        "weight decay of 20",
        DEEPCRIME + "RAW (add regularization)",
        "decay",
        "decay",
        of=STOCK,
        weight_decay=20.0,
    ),
    fault(
        "decoupled weight decay of 20",
        DEEPCRIME + "RAW (add regularization)",
        "decay",
        "decay",
        optimizer="adamw",
        weight_decay=20.0,
    ),
    fault(
        "gradients clipped to 1e-6",
        DEEPCRIME + "OCG (gradient clipping)",
        "clip",
        "clip",
        of=PLAIN,
        clip=1e-6,
    ),
    fault(
        "gradients clipped to 1e-7 (settings)",
        DEEPCRIME + "OCG (gradient clipping)",
        "clip",
        "clip",
        of=HEALTHY_PROGRAMS["tinyseg's own, SGD"],
        clip=1e-7,
    ),
    fault("dropout of 0.95", DEEPCRIME + "RCD (dropout rate)", "dropout", "dropout", dropout=0.95),
    fault(
        "gradients never zeroed",
        TRAINCHECK + "missing zero_grad",
        "gradient",
        "zero_grad",
        accumulates=True,
        jit=False,
    ),
    fault(
        "only the head is trained",
        TRAINCHECK + "optimizer without all parameters",
        "frozen|not change|no weight",
        "optimizer|parameters",
        trained=("head",),
    ),
    fault(
        "encoder without gradient",
        CHECKER + "untrained parameters",
        "gradient",
        "detach",
        block_detached=0,
    ),
    fault(
        "evaluation mode while training",
        TRAINCHECK + "wrong mode",
        "mode|BatchNorm|statistic",
        "training|mode",
        mode="eval",
    ),
    fault(
        "training mode while evaluating",
        DEFECT4ML + "wrong mode",
        "mode|BatchNorm",
        "training|mode",
        mode="train",
    ),
    fault(
        "weights halved after each step",
        TRAINCHECK + "state changed outside of the optimizer",
        "weight|decay|update|gradient",
        "weight|update|optimizer",
        change_update=shrink,
        jit=False,
    ),
    fault(
        "statistics of another network",
        TRAINCHECK + "state not restored",
        "statistic|running",
        "statistic|running|import|load",
        prepare=wrong_statistics,
    ),
    fault("eps of BatchNorm 100", DEFECT4ML + "layer arguments", "eps|norm", "eps", norm_eps=100.0),
    # 7. finished runs
    Case(
        "stopped by patience",
        finished("train.early_stopping=1", "train.epochs=40", "train.optimizer=adam(lr=0.001)"),
        "early|patience|stopped|epochs",
        "early_stopping|epochs|patience",
        DEEPCRIME + "RCP (change patience)",
    ),
    Case(
        "too few epochs",
        finished("train.epochs=2", "train.optimizer=adam(lr=0.001)"),
        "ended before|epochs|short|underfit",
        "epochs",
        DEEPCRIME + "HNE (number of epochs)",
    ),
    Case(
        "a schedule that ends too early",
        finished(
            "train.epochs=12",
            "train.schedule=plateau(factor=0.01,patience=0)",
            "train.optimizer=sgd(lr=0.02)",
        ),
        "schedule|learning rate",
        "schedule|patience|rate",
        TRAINCHECK + "wrong schedule",
    ),
]
"""All ported faults; a few have several equivalent remedies."""
