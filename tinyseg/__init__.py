"""A small, elegant image-segmentation trainer written purely on tinygrad."""

# These modules have functions of their own name: importing all of them here, once, makes
# `tinyseg.train` the function wherever it is asked for.
from tinyseg import losses, metrics
from tinyseg.config import Config
from tinyseg.data import Dataset
from tinyseg.errors import TinysegError
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.inference.predict_files import predict
from tinyseg.inference.run import Run, load_run
from tinyseg.inference.step import PredictStep
from tinyseg.models import UNet
from tinyseg.training.overfit import overfit
from tinyseg.training.step import TrainStep
from tinyseg.training.train import train

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Dataset",
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
