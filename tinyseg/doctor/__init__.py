"""The doctor: why a network does not learn, in plain words, with the remedy."""

from tinyseg.doctor.diagnosis import STAGES, Diagnosis, diagnose
from tinyseg.doctor.project import Project

__all__ = ["STAGES", "Diagnosis", "Project", "diagnose"]
