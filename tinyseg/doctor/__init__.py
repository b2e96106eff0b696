"""The doctor: why does a network not learn? It examines a project and says what to change.

In: a `Project`, which is a dataset with settings, a finished run, or a user's own network, step,
loss, pipeline or predictor. Out: a `Diagnosis`, which is a list of findings with remedies; the
project, its files and its runs stay as they were. `checks/` has the questions in the order of
`STAGES`, `experiments/` the measurements that they share. The command line and the report read the
diagnosis; training knows nothing of it.
"""

from tinyseg.doctor.checks.run import EvaluatedRun, check_run
from tinyseg.doctor.diagnosis import QUICK, STAGES, Diagnosis, diagnose
from tinyseg.doctor.project import Project

__all__ = ["QUICK", "STAGES", "Diagnosis", "EvaluatedRun", "Project", "check_run", "diagnose"]
