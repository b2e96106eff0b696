"""Checks of the data, the parts of a training set-up, and a finished run."""
