"""Where and by which compiler everything is computed, and all that depends on tinygrad's version.

Arrays come in and become Tensors with buffers of their own; a function comes in and is captured,
compiled and replayed. `private.py` lists each private part of tinygrad that is touched. Nothing
here knows images, networks or steps.
"""
