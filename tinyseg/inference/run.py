"""A trained network with the run folder that it came from."""

import copy
import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.config import Config
from tinyseg.data import Split, load_image, to_channels, to_image
from tinyseg.errors import ConfigError, RunError
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.predictor import Predictor, to_classes
from tinyseg.metrics.best_threshold import stored_threshold
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.models import build, head_channels
from tinyseg.nn import output_channels, state_dict
from tinyseg.runs.checkpoint import assign
from tinyseg.runs.run import RunFacts, RunFolder, run_folders


class Run(RunFolder):
    """A run folder and its network, whose weights are loaded when they are first needed."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        facts: RunFacts,
        split: Split,
        model: Any = None,
        best: bool = True,
    ):
        """Take the parts of a folder; see `load_run`.

        Args:
            folder: The run folder.
            config: Its settings.
            facts: What it knows about its data.
            split: Which images trained, and which validated.
            model: The user's own network that the run was trained with; it is left as it is, as
                predictions are made by a copy.
            best: Whether it predicts with the best epoch, not the last.
        """
        super().__init__(folder, config, facts, split)
        self.model, self.best = model, best
        self._stored_threshold: float | None = None

    # 1. Predicting

    def predict(self, image: Array | str | Path) -> Array:
        """Return class ids (H, W) uint8 of an image, at the run's threshold and post-processed.

        Args:
            image: A file, or an array (H, W) or (H, W, C): uint8, uint16, or floats in [0, 1].
        """
        return self.postprocess()(to_classes(self.probabilities(image), self.threshold))

    def probabilities(self, image: Array | str | Path) -> Array:
        """Return the probabilities (K, H, W) of an image; see `predict`.

        K = 1 is the foreground of two classes (sigmoid), K >= 2 are all classes (softmax).
        """
        if isinstance(image, str | Path):
            pixels = self.load_image(Path(image))
        else:
            pixels = to_image("the image", np.asarray(image), self.facts.ranges)
            pixels = to_channels(pixels, self.facts.channels)
        return next(self.predictor([pixels]))

    def load_image(self, path: Path, page: int | None = None) -> Array:
        """Read an image as this run read those that it was trained on; see `load_image`."""
        stacked = self.config.data.pages == "channels"
        return load_image(path, self.facts.channels, page, stacked, self.facts.ranges)

    @cached_property
    def predictor(self) -> Predictor:
        """The trained network: the best checkpoint, or the last when there is no best."""
        model = self.build() if self.model is None else _copy_of(self.model)
        assign(state_dict(model), self._load(), "model.", str(self.checkpoints))
        return self.make_predictor(model)

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is foreground: the one in the settings, or the stored one.

        The latter, in the checkpoint that `predictor` uses, is the best on the validation images
        where it clearly gains over 0.5, see `stored_threshold`; else 0.5.
        """
        if self.config.train.threshold:
            return self.config.train.threshold
        if self._stored_threshold is None:
            self._load()
        assert self._stored_threshold is not None
        return self._stored_threshold

    def threshold_or(self, threshold: float | None) -> float:
        """Return this threshold, the run's for None; ConfigError for one that cannot be used."""
        if threshold is None:
            return self.threshold
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold {threshold} cannot be used: it must be between 0 and 1")
        if self.softmax:
            raise ConfigError(
                f"threshold {threshold} has no meaning for {self.folder}: its softmax head takes "
                "the most probable class; omit it"
            )
        return threshold

    def postprocess(self, text: str | None = None) -> Postprocess:
        """Return the post-processing of class maps that the text names, the run's for None."""
        if text is not None:
            return Postprocess(text)
        own = self.config.train.postprocess
        return Postprocess(self.facts.postprocess if own == "auto" else own)

    # 2. The network

    @property
    def softmax(self) -> bool:
        """Whether the network has a channel for each class, not one for the foreground."""
        if self.model is not None:
            return output_channels(self.model, self.facts.channels) > 1
        return head_channels(self.config.model, self.facts.classes) > 1

    def build(self) -> Any:
        """Return the untrained network of this run, or the user's own."""
        if self.model is not None:
            return self.model
        shape, train = (self.facts.channels, self.facts.classes), self.config.train
        return build(self.config.model, *shape, train.seed, train.precision)

    def make_predictor(self, model: Any) -> Predictor:
        """Return a model's path from images to probabilities, with this run's input pipeline."""
        return Predictor(model, self.input_pipeline, self.config.train.batch_size)

    @property
    def key(self) -> str:
        """Digest of all that shapes its predictions: settings, facts and weights."""
        facts = replace(self.facts, source="", input_statistics=None)
        whole = hashlib.sha256(f"{self.config.to_toml()} {facts}".encode(errors="surrogateescape"))
        for name, array in sorted(self._load().items()):
            whole.update(name.encode() + array.tobytes())
        return whole.hexdigest()

    def _load(self) -> dict[str, Array]:
        """Return the tensors of the checkpoint to predict with, and keep its threshold."""
        arrays, facts, path = self.load_checkpoint(self.best)
        try:
            self._stored_threshold = stored_threshold(facts)
        except ValueError as error:
            raise RunError(f"{path}: {error}; set train.threshold in config.toml") from None
        return arrays

    # 3. What was chosen on the validation images

    @property
    def chosen(self) -> tuple[str, ...]:
        """What was chosen on the validation images, which flatters the scores on these."""
        train = self.config.train
        choices = {
            "epoch": self.best,
            "threshold": not (train.threshold or self.softmax) and self.threshold != HALF,
            "post-processing": train.postprocess == "auto",
            "train.early_stopping": train.early_stopping > 0,
            "train.schedule=plateau": train.schedule.startswith("plateau"),
            "train.phases (from best)": "from best" in " ".join(train.phases.split()),
        }
        return tuple(name for name, was_chosen in choices.items() if was_chosen)

    def last_epoch(self) -> "Run":
        """Return the run at its last epoch, with threshold 0.5 and no post-processing unless set.

        Nothing in it was chosen on the validation images, except what trained it: see `chosen`.
        """
        train = self.config.train
        kept = "none" if train.postprocess == "auto" else train.postprocess
        train = replace(train, threshold=train.threshold or HALF, postprocess=kept)
        config = replace(self.config, train=train)
        return Run(self.folder, config, self.facts, self.split, self.model, best=False)


def load_run(folder: str | Path, model: Any = None) -> Run:
    """Open a run folder to predict with it; RunError when it is none or damaged.

    Args:
        folder: The run folder.
        model: The network, such as MyNet(), of a run that was trained with a user's own; its
            weights do not matter. Code is never loaded from a run folder.
    """
    run = Run.load(folder)
    path, own = run.folder / "run.json", run.facts.custom.get("model")
    if own and model is None:
        raise RunError(
            f"{folder} was trained with the network {own}, which is not in the folder: pass it "
            f"again, as load_run(..., model={own}()) or --model FILE.py:{own}"
        )
    if model is not None and not own:
        raise RunError(f"{folder} was trained with a network of tinyseg: omit model")
    try:
        Postprocess(run.facts.postprocess)
    except ConfigError as error:
        raise RunError(f"{path}: damaged ({error}); train again") from None
    run.model = model
    return run


def load_runs(folder: str | Path, model: Any = None) -> list[Run]:
    """Open the run in a folder, or those of all folds that `tinyseg train --folds` made there."""
    return [load_run(one, model) for one in run_folders(folder)]


def _copy_of(model: Any) -> Any:
    """Return a copy of a network with Tensors of its own, which hold nothing yet."""
    tensors = state_dict(model).values()
    fresh = {id(t): Tensor.empty(*t.shape, dtype=t.dtype, device=t.device) for t in tensors}
    return copy.deepcopy(model, fresh)
