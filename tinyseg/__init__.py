"""A small, elegant image-segmentation trainer written purely on tinygrad."""

# These modules have functions of their own name: importing all of them here, once, makes
# `tinyseg.train` the function wherever it is asked for.
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

__version__ = "0.1.0"

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
