"""Helpers that know nothing of images or networks: files, caches, progress, findings, specs."""
