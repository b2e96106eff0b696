"""From images to probabilities and masks.

`run.load_run` opens a trained network, `Run.predict` takes an image, `predict_files.predict` writes
masks of files. Inside, `predictor.Predictor` cuts images into tiles, runs the compiled `step`,
stitches, and `tta` averages; `postprocess` cleans class maps. It must not know losses, optimizers
or the training loop.
"""
