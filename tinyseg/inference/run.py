"""The run folder: all that training leaves and that the other commands read.

config.toml   settings            split.json      which image trained, which validated
run.json      what the data is    metrics.jsonl   every number of every step and epoch
checkpoints/  best, last, previous                samples/  pictures of predictions
"""

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinygrad import dtypes

from tinyseg.common.arrays import Array
from tinyseg.common.files import LOCK, PARTIAL, read_json, write_atomic, write_json
from tinyseg.common.progress import Progress
from tinyseg.config import Config
from tinyseg.data import (
    Dataset,
    InputPipeline,
    InputScale,
    InputStatistics,
    Normalize,
    Split,
)
from tinyseg.device.choose import backend
from tinyseg.device.environment import versions
from tinyseg.device.tensors import copy_
from tinyseg.errors import ConfigError, RunError
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.predictor import Predictor, to_classes
from tinyseg.metrics.best_threshold import stored_threshold
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.models import UNet, build, head_channels
from tinyseg.runs import checkpoint
from tinyseg.runs.phases import phases_of

FOLD = "fold-"
"""Beginning of the names of the runs of a cross-validation."""


@dataclass(frozen=True)
class RunFacts:
    """What a run learned about its data; run.json."""

    source: str
    """What the dataset was opened from."""
    fingerprint: str
    """Digest of the dataset; `--resume` refuses another one."""
    channels: int
    classes: int
    label_map: dict[int, int]
    """Value in the mask files to class id."""
    scale: InputScale | None
    """Mean and standard deviation applied to every image; None where each has its own."""
    input_statistics: InputStatistics | None = None
    """The network input of the training images; older runs have none."""
    postprocess: str = ""
    """What train.postprocess=auto chose."""

    def to_json(self) -> dict[str, Any]:
        """With the machine and the versions that the numbers depend on."""
        made = {"made": time.strftime("%Y-%m-%d %H:%M:%S"), "versions": versions()}
        return {**asdict(self), **made, "backend": asdict(backend())}

    @staticmethod
    def from_json(table: dict[str, Any]) -> "RunFacts":
        """Reads what `to_json` wrote; KeyError, TypeError or ValueError when it is not that."""
        scale = table["scale"] and InputScale.from_json(table["scale"])
        statistics = table.get("input_statistics", table.get("contract"))  # the old name
        statistics = statistics and InputStatistics.from_json(statistics)
        label_map = {int(value): int(kind) for value, kind in table["label_map"].items()}
        texts = (str(table["source"]), str(table["fingerprint"]))
        counts = (int(table["channels"]), int(table["classes"]))
        sizes = {len(scale.mean), len(scale.std)} if scale else set()
        sizes |= {len(statistics.channels)} if statistics else set()
        if sizes - {counts[0]}:
            raise ValueError("numbers of other channels")
        tidy = Postprocess(str(table.get("postprocess", ""))).text
        return RunFacts(*texts, *counts, label_map, scale, statistics, tidy)


class Run:
    """A run folder with its settings, split and facts; the model is loaded when it is asked for."""

    def __init__(self, folder: Path, config: Config, facts: RunFacts, split: Split):
        self.folder, self.config, self.facts, self.split = folder, config, facts, split
        self.checkpoints = folder / "checkpoints"
        self.samples = folder / "samples"
        self.log = folder / "metrics.jsonl"
        self._predictor: Predictor | None = None
        self._learned: float | None = None
        self._last = False
        """Whether it predicts with the last epoch, not the best."""

    @staticmethod
    def create(
        folder: Path, config: Config, dataset: Dataset, split: Split, scale: InputScale | None
    ) -> "Run":
        """Makes the folder; RunError when there is something in it already."""
        _refuse_used(folder)
        shape = (dataset.channels, dataset.classes, dataset.label_map)
        facts = RunFacts(dataset.source, dataset.fingerprint(), *shape, scale)
        write_atomic(folder / "config.toml", config.to_toml())
        split.save(folder / "split.json")
        write_json(folder / "run.json", facts.to_json())
        return Run(folder, config, facts, split)

    def open(self, data: str | Path) -> Dataset:
        """Opens a dataset as this run understands it: with its channels and its label map."""
        with Progress(f"reading {data}") as progress:
            return Dataset(
                data,
                self.config.data,
                label_map=self.facts.label_map,
                channels=self.facts.channels,
                progress=progress.update,
            )

    def build(self) -> UNet:
        """The untrained network of this run."""
        shape, train = (self.facts.channels, self.facts.classes), self.config.train
        return build(self.config.model, *shape, train.seed, train.precision)

    def remember(self, **facts: Any) -> None:
        """Adds what was learned of the data to run.json: input_statistics, postprocess."""
        self.facts = replace(self.facts, **facts)
        path, table = self.folder / "run.json", asdict(self.facts)
        write_json(path, {**read_json(path), **{name: table[name] for name in facts}})

    def set_config(self, config: Config) -> None:
        """Replaces the settings, also in config.toml."""
        write_atomic(self.folder / "config.toml", config.to_toml())
        self.config = config

    def position(self) -> tuple[int, int]:
        """Epochs and steps of the last checkpoint; zeros where there is none yet."""
        if not checkpoint.any_in(self.checkpoints):
            return 0, 0
        _, facts, path = checkpoint.load_latest(self.checkpoints)
        try:
            return int(facts["position"]["epoch"]), int(facts["position"]["step"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}: not a checkpoint of a training run ({error!r})") from None

    @property
    def input_pipeline(self) -> InputPipeline:
        """How this run prepares its images."""
        return InputPipeline(self.config.data, self.facts.scale)

    def make_predictor(self, model: Any) -> Predictor:
        """A model's path from images to probabilities, as this run prepares its images."""
        return Predictor(model, self.input_pipeline, self.config.train.batch_size)

    @property
    def predictor(self) -> Predictor:
        """The trained network (the best checkpoint, or the last when there is no best)."""
        if self._predictor is None:
            model = self.build()
            assign(model.state_dict(), self._load(), "model.", str(self.checkpoints))
            self._predictor = self.make_predictor(model)
        return self._predictor

    @property
    def key(self) -> str:
        """Digest of all that shapes its predictions: settings, facts and weights."""
        facts = replace(self.facts, source="", input_statistics=None)
        whole = hashlib.sha256(f"{self.config.to_toml()} {facts}".encode(errors="surrogateescape"))
        for name, array in sorted(self._load().items()):
            whole.update(name.encode() + array.tobytes())
        return whole.hexdigest()

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is foreground: the set one, else the validation's best.

        It is in the checkpoint that `predictor` uses; older ones have none: 0.5.
        """
        if self.config.train.threshold:
            return self.config.train.threshold
        if self._learned is None:
            self._load()
        assert self._learned is not None
        return self._learned

    def threshold_or(self, given: float | None) -> float:
        """The given threshold, the run's for None; ConfigError for one that cannot be used."""
        if given is None:
            return self.threshold
        if not 0 < given < 1:
            raise ConfigError(f"threshold {given} cannot be used: it must be between 0 and 1")
        if head_channels(self.config.model, self.facts.classes) > 1:
            raise ConfigError(
                f"threshold {given} has no meaning for {self.folder}: its softmax head takes the "
                "most probable class; leave it away"
            )
        return given

    def postprocess(self, text: str | None = None) -> Postprocess:
        """The post-processing of class maps: a given one, the run's for None."""
        if text is not None:
            return Postprocess(text)
        own = self.config.train.postprocess
        return Postprocess(self.facts.postprocess if own == "auto" else own)

    @property
    def chosen(self) -> tuple[str, ...]:
        """What was chosen on the validation images, which flatters the scores on these."""
        train, several = self.config.train, head_channels(self.config.model, self.facts.classes) > 1
        found = {
            "epoch": not self._last,
            "threshold": not (train.threshold or several),
            "post-processing": train.postprocess == "auto",
            "train.early_stopping": train.early_stopping > 0,
            "train.schedule=plateau": train.schedule.startswith("plateau"),
            "train.phases (from best)": any(phase.from_best for phase in phases_of(train)),
        }
        return tuple(name for name, there in found.items() if there)

    def unchosen(self) -> "Run":
        """The run with its last epoch, threshold 0.5 and no post-processing, but what was set.

        Nothing in it was chosen on the validation images, except what trained it: see `chosen`.
        """
        train = self.config.train
        kept = "none" if train.postprocess == "auto" else train.postprocess
        train = replace(train, threshold=train.threshold or HALF, postprocess=kept)
        run = Run(self.folder, replace(self.config, train=train), self.facts, self.split)
        run._last = True
        return run

    def _load(self) -> dict[str, Array]:
        """The tensors of the checkpoint to predict with; remembers its threshold."""
        path = self.checkpoints / "best.safetensors"
        if path.exists() and not self._last:
            try:
                arrays, facts = checkpoint.load(path)
            except RunError as error:
                raise RunError(f"{error}; remove it to use the last epoch's weights") from None
        else:
            arrays, facts, path = checkpoint.load_latest(self.checkpoints)
        try:
            self._learned = stored_threshold(facts)
        except ValueError as error:
            raise RunError(f"{path}: {error}; set train.threshold in config.toml") from None
        return arrays

    def probabilities(self, image: Array) -> Array:
        """Image (H, W, C), uint8 or float32 in [0, 1], to probabilities (K, H, W)."""
        return next(self.predictor([image]))

    def predict(self, image: Array) -> Array:
        """Image (H, W, C) to class ids (H, W) uint8, at the run's threshold, post-processed."""
        return self.postprocess()(to_classes(self.probabilities(image), self.threshold))


def load_runs(folder: str | Path) -> list[Run]:
    """The run in a folder, or those of all folds that `tinyseg train --folds` made there."""
    folder = Path(folder)
    if (folder / "run.json").exists() or not (folder / f"{FOLD}0").is_dir():
        return [load_run(folder)]
    count = load_run(folder / f"{FOLD}0").config.data.folds
    return [load_run(folder / f"{FOLD}{fold}") for fold in range(count)]


def load_run(folder: str | Path) -> Run:
    """Opens a run folder; RunError when it is none or damaged."""
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise RunError(f"{folder}: no run.json there; give a folder that `tinyseg train` made")
    table = read_json(folder / "run.json")
    try:
        facts = RunFacts.from_json(table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder / 'run.json'}: damaged ({error!r}); train anew") from None
    config = Config.load(folder / "config.toml", warn=False)
    if (facts.scale is None) != Normalize(config.data.normalize).by_image:
        raise RunError(
            f"{folder / 'run.json'}: its scale does not go with data.normalize="
            f"{config.data.normalize!r} in config.toml; restore them, or train anew"
        )
    return Run(folder, config, facts, Split.load(folder / "split.json"))


def _refuse_used(folder: Path) -> None:
    if (folder / "run.json").exists():
        raise RunError(f"{folder} is not empty: give --resume to continue it, or another --out")
    # run.json is written last: what a killed process left before it may be written again
    begun = {"config.toml", "split.json", LOCK}
    is_file = folder.exists() and not folder.is_dir()
    there = list(folder.iterdir()) if folder.is_dir() else []
    if is_file or any(p.name not in begun and p.suffix != PARTIAL for p in there):
        raise RunError(f"{folder} is not empty and holds no run: give another --out")


def assign(state: dict[str, Any], arrays: dict[str, Array], prefix: str, where: str) -> None:
    """Copies arrays into the Tensors of the same name; RunError when one is missing or unlike.

    A number of another width is converted, such as a counter of PyTorch (int64) into an int32.
    """
    for name, tensor in state.items():
        array = arrays.get(prefix + name)
        if array is None or array.shape != tuple(tensor.shape):
            seen = "missing" if array is None else f"of shape {array.shape}"
            raise RunError(f"{where}: {prefix}{name} is {seen}, the model needs {tensor.shape}")
        if (array.dtype.kind == "f") != dtypes.is_float(tensor.dtype):
            raise RunError(
                f"{where}: {prefix}{name} is {array.dtype}, the model needs {tensor.dtype}"
            )
    for name, tensor in state.items():
        copy_(tensor, arrays[prefix + name])
