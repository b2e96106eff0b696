"""Simulated images with exact labels."""
