"""Check and measure datasets before training.

A dataset or its folder comes in; findings in words (`check`), numbers (`open_stats`) and the
distance of two datasets (`compare`) go out. Nothing here knows of networks, runs or drawing.
"""

from tinyseg.data.checks.check import Check, check
from tinyseg.data.checks.compare import Comparison, compare
from tinyseg.data.checks.stats import DatasetStats, open_stats

__all__ = ["Check", "Comparison", "DatasetStats", "check", "compare", "open_stats"]
