"""Decoded and prepared images on disk."""
