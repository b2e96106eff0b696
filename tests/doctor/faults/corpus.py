"""All planted faults and all healthy set-ups, for the tests and for bench/doctor.py."""

import planted_data
import planted_own
import planted_runs
import planted_training
from fault import Fault, Healthy
from healthy import HEALTHY as SIMULATED
from healthy import REAL

FAULTS: list[Fault] = [
    *planted_data.FAULTS,
    *planted_training.FAULTS,
    *planted_own.FAULTS,
    *planted_runs.FAULTS,
]
HEALTHY: list[Healthy] = [*SIMULATED, *planted_own.HEALTHY, *REAL]
