"""The experiments of the doctor: measurements that checks share, each made once per project.

In: a `Project`, or arrays and scores. Out: frozen dataclasses of numbers; an experiment that trains
restores the initial state. `memorization_failure` alone returns findings: it tests one reason after
the other.
"""
