"""A jitted function of explicit state: guarded on every call, proven once, kept on disk.

In come a function of Tensors and the state that it changes; out comes the same function, compiled
(`guarded.GuardedJit`), whose compiled form the next process finds again by its `key`. It knows
nothing of networks, losses or images.
"""
