"""Prepare images and labels for the network, and bring its output back to the image's size.

Images (H, W, C) and labels (H, W) of any size come in; tiles, and network input (B, C, S, S) of
them, go out: preprocessed, resized or tiled, normalized. The input pipeline is the same in training
and prediction. Nothing here knows of networks, losses or runs.
"""
