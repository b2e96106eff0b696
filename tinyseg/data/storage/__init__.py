"""Decoded and prepared images on disk: kept for the next start, or exported as a folder.

`Store` keeps arrays by a key of all that shapes them (`digest`), in records that prove themselves
undamaged. `write_pairs` writes samples as images/ and masks/. This room knows no layouts, no
labels and no networks.
"""
