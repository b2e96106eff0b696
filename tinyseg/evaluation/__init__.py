"""Scores of a run on images, next to trivial baselines.

A run, or the folds of a cross-validation, and a dataset come in; an `Evaluation` goes out
(`evaluate.evaluate`). `score.score` is the one loop from images to probabilities, masks and scores,
which validation, `evaluate`, cross-validation, `overfit`, the doctor and the report all read. It
must not know losses, optimizers or how a run was trained.
"""
