"""Runs as one HTML file that needs no server and no network: scores, curves, every image."""

from tinyseg.report.collect import collect
from tinyseg.report.diagnosis import diagnosis_page
from tinyseg.report.page import build_page
from tinyseg.report.write import report

__all__ = ["build_page", "collect", "diagnosis_page", "report"]
