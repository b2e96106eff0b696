"""Images of any size to probabilities and masks; knows neither losses nor optimizers."""
