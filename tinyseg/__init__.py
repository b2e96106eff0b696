"""Train, evaluate and use networks for image segmentation, and find out why one does not learn.

    import tinyseg as ts

    run = ts.train("cells/", "runs/first", epochs=20, size=256, augment="medium")
    print(run.scores)                         # {"dice": ..., "iou": ..., "epoch": ...}
    mask = run.predict("cells/images/1.png")  # class ids (H, W)

`cells/` has a folder `images` and a folder `masks` with files of the same names; arrays do as well:
`ts.train((images, masks), "runs/second")`. Each part can be your own:

    ts.train("cells/", "runs/own", model=MyNet(), loss=my_loss, optimizer=my_optimizer)
    ts.load_run("runs/own", model=MyNet()).predict(image)

- Data: `Dataset` reads folders and arrays, and gives samples and batches.
- Training: `train` makes a run folder; `overfit` is the quick test whether a network can learn at
  all; `TrainStep` is one training step, for a loop of your own.
- Afterwards: `load_run`, `Run`, `predict` for folders of images, `evaluate`, `PredictStep`.
- Scores of arrays: `dice`, `iou`, `precision`, `recall`, `accuracy`, `confusion`.
- Settings: `Config` with its sections `DataConfig`, `ModelConfig`, `TrainConfig`.
- Errors: all are `TinysegError`, in one line that says what to do.

`tinyseg --help` lists the commands, the doctor and the report among them.
"""

from importlib import import_module

from tinyseg.common import VERSION

TYPE_CHECKING = False  # as in `typing`, whose import would be a further moment without Ctrl-C
__version__ = VERSION

__all__ = [
    "Config",
    "DataConfig",
    "Dataset",
    "ModelConfig",
    "PredictStep",
    "Run",
    "TinysegError",
    "TrainConfig",
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
    from typing import Any

    from tinyseg import losses, metrics
    from tinyseg.config import Config, DataConfig, ModelConfig, TrainConfig
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
        **dict.fromkeys(("Config", "DataConfig", "ModelConfig", "TrainConfig"), "config"),
        **dict.fromkeys(("accuracy", "confusion", "dice", "iou", "precision", "recall"), "metrics"),
        "Dataset": "data",
        "PredictStep": "inference.step",
        "Run": "inference.run",
        "TinysegError": "errors",
        "TrainStep": "training.step",
        "UNet": "models",
        "evaluate": "evaluation.evaluate",
        "load_run": "inference.run",
        "overfit": "training.overfit",
        "predict": "inference.predict_files",
        "train": "training.train",
    }

    def __getattr__(name: str) -> "Any":
        if name in ("losses", "metrics"):
            return import_module(f"tinyseg.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module 'tinyseg' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"tinyseg.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
