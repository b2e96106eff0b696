"""The run folder: all that training leaves and that the other commands read.

config.toml   settings            split.json      which image trained, which validated
run.json      what the data is    metrics.jsonl   every number of every step and epoch
checkpoints/  best, last, previous                samples/  pictures of predictions
"""

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tinyseg.common.arrays import Array
from tinyseg.common.files import (
    LOCK,
    PARTIAL,
    native,
    portable,
    read_json,
    write_atomic,
    write_json,
)
from tinyseg.common.progress import Progress
from tinyseg.config import IGNORE, Config
from tinyseg.data import (
    Dataset,
    InputPipeline,
    InputScale,
    InputStatistics,
    Normalize,
    Ranges,
    Split,
    ranges_from_json,
)
from tinyseg.device.choose import backend
from tinyseg.device.environment import versions
from tinyseg.errors import RunError
from tinyseg.runs import checkpoint
from tinyseg.runs.metrics_log import history

FOLD = "fold-"
"""Beginning of the names of the runs of a cross-validation."""
MOST_CHANNELS = 1024
"""A run.json with more is damaged: the network would take gigabytes."""


@dataclass(frozen=True)
class RunFacts:
    """What a run knows about its data and its parts; run.json."""

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
    class_names: tuple[str, ...] = ()
    """Background first; older runs have none."""
    ranges: Ranges = field(default_factory=dict)
    """Stored pixel values that become 0 and 1; none where all are 8-bit, and in older runs."""
    custom: dict[str, str] = field(default_factory=dict)
    """The user's own parts, such as {"model": "MyNet"}: not in the folder, to be passed again."""

    def to_json(self) -> dict[str, Any]:
        """Return the facts with the machine and the versions that the numbers depend on."""
        made = {"made": time.strftime("%Y-%m-%d %H:%M:%S"), "versions": versions()}
        source = {"source": portable(self.source)}
        return {**asdict(self), **source, **made, "backend": asdict(backend())}

    @staticmethod
    def from_json(table: dict[str, Any]) -> "RunFacts":
        """Read what `to_json` wrote; KeyError, TypeError or ValueError when it is not that."""
        scale = table["scale"] and InputScale.from_json(table["scale"])
        statistics = table.get("input_statistics", table.get("contract"))  # the old name
        statistics = statistics and InputStatistics.from_json(statistics)
        channels, classes = int(table["channels"]), int(table["classes"])
        if not (1 <= channels <= MOST_CHANNELS and 2 <= classes <= IGNORE):
            raise ValueError(f"{channels} channels and {classes} classes cannot be")
        label_map = {int(value): int(class_id) for value, class_id in table["label_map"].items()}
        if set(label_map.values()) - {*range(classes), IGNORE}:
            raise ValueError("its label map names classes that do not exist")
        sizes = {len(scale.mean), len(scale.std)} if scale else set()
        sizes |= {len(statistics.channels)} if statistics else set()
        if sizes - {channels}:
            raise ValueError("numbers of other channels")
        return RunFacts(
            source=native(str(table["source"])),
            fingerprint=str(table["fingerprint"]),
            channels=channels,
            classes=classes,
            label_map=label_map,
            scale=scale,
            input_statistics=statistics,
            postprocess=str(table.get("postprocess", "")),
            class_names=_class_names(table.get("class_names", ()), classes),
            ranges=ranges_from_json(table.get("ranges", {})),
            custom={str(part): str(name) for part, name in table.get("custom", {}).items()},
        )


class RunFolder:
    """A run folder with its settings, split and facts; it knows no network, see `Run`."""

    def __init__(self, folder: Path, config: Config, facts: RunFacts, split: Split):
        self.folder, self.config, self.facts, self.split = folder, config, facts, split
        self.checkpoints = folder / "checkpoints"
        self.samples = folder / "samples"
        self.log = folder / "metrics.jsonl"

    @classmethod
    def create(
        cls,
        folder: Path,
        config: Config,
        dataset: Dataset,
        split: Split,
        scale: InputScale | None,
        custom: dict[str, str] | None = None,
    ) -> Self:
        """Make a new run folder; RunError when there is something in it already."""
        _refuse_used(folder)
        facts = RunFacts(
            dataset.source,
            dataset.fingerprint(),
            dataset.channels,
            dataset.classes,
            dataset.label_map,
            scale,
            class_names=dataset.class_names,
            ranges=dataset.ranges,
            custom=custom or {},
        )
        write_atomic(folder / "config.toml", config.to_toml())
        split.save(folder / "split.json")
        write_json(folder / "run.json", facts.to_json())
        return cls(folder, config, facts, split)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Open a run folder; RunError when it is none or damaged."""
        folder = Path(folder)
        if not (folder / "run.json").exists():
            raise RunError(f"{folder}: no run.json there; give a folder written by `tinyseg train`")
        table = read_json(folder / "run.json")
        try:
            facts = RunFacts.from_json(table)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RunError(f"{folder / 'run.json'}: damaged ({error}); train again") from None
        config = Config.load(folder / "config.toml", warn=False)
        if (facts.scale is None) != Normalize(config.data.normalize).by_image:
            raise RunError(
                f"{folder / 'run.json'}: its scale does not go with data.normalize="
                f"{config.data.normalize!r} in config.toml; restore them, or train again"
            )
        return cls(folder, config, facts, Split.load(folder / "split.json"))

    def open(self, data: "str | Path | Dataset | tuple[Any, Any]") -> Dataset:
        """Open a dataset as this run reads it: with its channels, ranges and label map."""
        with Progress("reading the images") as progress:
            return Dataset(
                data,
                self.config.data,
                label_map=self.facts.label_map,
                channels=self.facts.channels,
                class_names=self.facts.class_names,
                ranges=self.facts.ranges,
                progress=progress.update,
            )

    def update_facts(self, **facts: Any) -> None:
        """Replace some of the facts, such as `postprocess`, also in run.json."""
        self.facts = replace(self.facts, **facts)
        path, table = self.folder / "run.json", asdict(self.facts)
        write_json(path, {**read_json(path), **{name: table[name] for name in facts}})

    def set_config(self, config: Config) -> None:
        """Replace the settings, also in config.toml."""
        write_atomic(self.folder / "config.toml", config.to_toml())
        self.config = config

    @property
    def input_pipeline(self) -> InputPipeline:
        """How this run prepares its images."""
        return InputPipeline(self.config.data, self.facts.scale)

    @property
    def scores(self) -> dict[str, float]:
        """Validation Dice and IoU of the best epoch (pooled, foreground mean), and its number."""
        epochs = [epoch for epoch in history(self.log) if epoch["val_dice"] is not None]
        if not epochs:
            raise RunError(f"{self.folder}: no epoch has been completed yet; train it first")
        best = max(epochs, key=lambda epoch: float(epoch["val_dice"]))
        return {"dice": best["val_dice"], "iou": best["val_iou"], "epoch": best["epoch"]}

    def position(self) -> tuple[int, int]:
        """Return epochs and steps of the last checkpoint; zeros where there is none yet."""
        if not checkpoint.any_in(self.checkpoints):
            return 0, 0
        _, facts, path = checkpoint.load_latest(self.checkpoints)
        try:
            return int(facts["position"]["epoch"]), int(facts["position"]["step"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}: not a checkpoint of a training run ({error!r})") from None

    def load_checkpoint(self, best: bool = True) -> tuple[dict[str, Array], dict[str, Any], Path]:
        """Return tensors, facts and path of the best checkpoint, or the last where none is best."""
        path = self.checkpoints / "best.safetensors"
        if not best or not path.exists():
            return checkpoint.load_latest(self.checkpoints)
        try:
            return *checkpoint.load(path), path
        except RunError as error:
            raise RunError(f"{error}; remove it to use the last epoch's weights") from None


def _class_names(names: Any, classes: int) -> tuple[str, ...]:
    if names and len(names) != classes:
        raise ValueError(f"{len(names)} class names for {classes} classes")
    return tuple(map(str, names))


def run_folders(folder: str | Path) -> list[Path]:
    """Return the folder itself, or the folds that `tinyseg train --folds` made in it."""
    folder = Path(folder)
    if (folder / "run.json").exists() or not (folder / f"{FOLD}0").is_dir():
        return [folder]
    count = RunFolder.load(folder / f"{FOLD}0").config.data.folds
    return [folder / f"{FOLD}{fold}" for fold in range(count)]


def _refuse_used(folder: Path) -> None:
    if (folder / "run.json").exists():
        raise RunError(f"{folder} is not empty: give --resume to continue it, or another --out")
    # run.json is written last: what a killed process left before it may be written again
    begun = {"config.toml", "split.json", LOCK}
    is_file = folder.exists() and not folder.is_dir()
    there = list(folder.iterdir()) if folder.is_dir() else []
    if is_file or any(p.name not in begun and p.suffix != PARTIAL for p in there):
        raise RunError(f"{folder} is not empty and contains no run: give another --out")
