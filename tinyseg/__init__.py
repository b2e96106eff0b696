"""A small, elegant image-segmentation trainer written purely on tinygrad."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyseg.common import VERSION

__version__ = VERSION

__all__ = [
    "Config",
    "Dataset",
    "PredictStep",
    "Run",
    "TinysegError",
    "TrainStep",
    "UNet",
    "accuracy",
    "confusion",
    "dice",
    "evaluate",
    "iou",
    "load_run",
    "losses",
    "metrics",
    "overfit",
    "precision",
    "predict",
    "recall",
    "train",
]

# A public name is imported when it is first used: importing tinygrad, SciPy and the rest takes
# more than a second, in which `tinyseg --help` would say nothing and Ctrl-C give a traceback.
if TYPE_CHECKING:
    from tinyseg import losses, metrics
    from tinyseg.config import Config
    from tinyseg.data import Dataset
    from tinyseg.errors import TinysegError
    from tinyseg.evaluation.evaluate import evaluate
    from tinyseg.inference.predict_files import predict
    from tinyseg.inference.run import Run, load_run
    from tinyseg.inference.step import PredictStep
    from tinyseg.metrics import accuracy, confusion, dice, iou, precision, recall
    from tinyseg.models import UNet
    from tinyseg.training.overfit import overfit
    from tinyseg.training.step import TrainStep
    from tinyseg.training.train import train
else:
    _MODULES = {
        "Config": "config",
        "Dataset": "data",
        "PredictStep": "inference.step",
        "Run": "inference.run",
        "TinysegError": "errors",
        "TrainStep": "training.step",
        "UNet": "models",
        **dict.fromkeys(("accuracy", "confusion", "dice", "iou", "precision", "recall"), "metrics"),
        "evaluate": "evaluation.evaluate",
        "load_run": "inference.run",
        "overfit": "training.overfit",
        "predict": "inference.predict_files",
        "train": "training.train",
    }

    def __getattr__(name: str) -> Any:
        if name in ("losses", "metrics"):
            return import_module(f"tinyseg.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module 'tinyseg' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"tinyseg.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
