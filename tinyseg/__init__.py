"""A small, elegant image-segmentation trainer written purely on tinygrad."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tinyseg import losses, metrics
    from tinyseg.config import Config
    from tinyseg.errors import TinysegError
    from tinyseg.evaluate import evaluate
    from tinyseg.masks import predict
    from tinyseg.models import UNet
    from tinyseg.overfit import overfit
    from tinyseg.run import Run, load_run
    from tinyseg.step import PredictStep, TrainStep
    from tinyseg.train import train

# tinygrad is only imported when something of it is asked for: `tinyseg simulate` starts at once
_PLACES = {
    "Config": "config",
    "PredictStep": "step",
    "Run": "run",
    "TinysegError": "errors",
    "TrainStep": "step",
    "UNet": "models",
    "evaluate": "evaluate",
    "load_run": "run",
    "losses": "",
    "metrics": "",
    "overfit": "overfit",
    "predict": "masks",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'tinyseg' has no attribute {name!r}")
    place = _PLACES[name]
    value = (
        getattr(importlib.import_module(f"tinyseg.{place}"), name)
        if place
        else importlib.import_module(f"tinyseg.{name}")
    )
    globals()[name] = value
    return value


__all__ = [
    "Config",
    "PredictStep",
    "Run",
    "TinysegError",
    "TrainStep",
    "UNet",
    "evaluate",
    "load_run",
    "losses",
    "metrics",
    "overfit",
    "predict",
    "train",
]
