"""From images and labels to a trained run: `train`, its loop, and the step at its core.

`train.train` prepares a run folder, `trainer.Trainer` runs the epochs, `step.TrainStep` is one
compiled step over `state.TrainState`, which is all that a step changes and all that a checkpoint
holds. `cross_validation` trains a run for each fold; `overfit` asks whether a network can learn a
few images at all. In come datasets, settings and a user's own parts; out goes a run folder, which
the doctor and the report only read: this room knows neither.
"""
