"""Pictures and plots; no tinygrad."""
