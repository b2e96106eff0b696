"""From a dataset to a trained run."""
