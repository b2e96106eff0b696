"""Scores of a run on images, next to trivial baselines."""
