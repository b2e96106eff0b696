"""Which images are scored, and which runs predict each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from tinyseg.data import Dataset, DriftMonitor
from tinyseg.errors import DataError
from tinyseg.evaluation.score import Scored, load_samples, score
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.run import Run
from tinyseg.inference.tta import PredictFunction, combine_runs

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Group:
    """Images that the same runs predict."""

    names: tuple[str, ...]
    runs: tuple[Run, ...]
    """Whose probabilities are averaged."""
    network: PredictFunction
    threshold: float
    postprocess: Postprocess

    def score(
        self,
        dataset: Dataset,
        names: Sequence[str] | None = None,
        monitor: DriftMonitor | None = None,
        surface: bool = False,
    ) -> Iterator[Scored]:
        """Yield the scores of the group's images, or of those with these names."""
        return score(
            lambda images: self.network(images, monitor),
            load_samples(dataset, self.names if names is None else names),
            self.runs[0].facts.classes,
            self.threshold,
            self.postprocess,
            surface,
        )

    def trained_on(self, dataset: Dataset) -> set[str]:
        """Return the images that one of the runs was trained on."""
        known = dataset.fingerprint()
        trained = [set(run.split.train) for run in self.runs if run.facts.fingerprint == known]
        return set(self.names).intersection(set().union(*trained))


def as_runs(run: Run | Sequence[Run]) -> list[Run]:
    """Return a run, or the folds of a cross-validation, as a list."""
    return [run] if isinstance(run, Run) else list(run)


def group_images(
    run: Run | Sequence[Run],
    split: str,
    names: Sequence[str],
    threshold: float | None = None,
    others: Sequence[Run] = (),
    tta: str = "",
    postprocess: str | None = None,
) -> list[Group]:
    """Return the images by who predicts them: all runs together, but see below.

    Of a cross-validation each image of `val` is predicted by the fold that did not train on it.
    """
    runs = as_runs(run)
    members = [(tuple(names), runs)]
    if split == "val" and len(runs) > 1:
        members = [(tuple(n for n in names if n in {*one.split.val}), [one]) for one in runs]
    groups = []
    for group_names, own in members:
        averaged = (*own, *others)
        used = fmean(one.threshold_or(threshold) for one in averaged)
        network = combine_runs(averaged, tta)
        groups.append(Group(group_names, averaged, network, used, own[0].postprocess(postprocess)))
    return groups


def split_names(run: Run | Sequence[Run], dataset: Dataset, split: str) -> Sequence[str]:
    """Return the images of a run's split; DataError when it is empty, or the dataset lacks some.

    Of the folds of a cross-validation: the validation images of all, or the first one's split.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    if split == "all":
        return dataset.names
    runs = as_runs(run)
    folds = runs if split == "val" else runs[:1]
    names = tuple(name for fold in folds for name in getattr(fold.split, split))
    missing = set(names) - set(dataset.names)
    if missing:
        raise DataError(
            f"{dataset.source}: {len(missing)} of the run's {split} images are missing, e.g. "
            f"{min(missing)!r}; for data that the run was not trained on, use --split all"
        )
    if not names:
        raise DataError(f"{runs[0].folder}: the {split} split is empty; use another --split")
    return names
