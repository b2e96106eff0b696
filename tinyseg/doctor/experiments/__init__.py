"""Experiments that the checks share: each is made once."""
