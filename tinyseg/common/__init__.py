"""What every room may use and what knows nothing of images or networks.

Files that are whole or not there, the user's private cache folder, progress bars, findings of
checks, texts of settings such as "focal(alpha=0.9)", work in threads. tinygrad is not imported.
"""

VERSION = "0.1.0"
"""Of tinyseg; the same as in pyproject.toml."""
