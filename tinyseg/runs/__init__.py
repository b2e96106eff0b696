"""The run folder: settings, facts, split, log and checkpoints on disk.

`run.RunFolder` opens or creates one, `checkpoint` reads and writes tensors, `metrics_log` the
numbers of every step and epoch. Training writes it; all other commands only read it. It must not
know networks, losses or how anything is trained or predicted.
"""
