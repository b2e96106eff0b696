"""The checks of the doctor, by what they examine.

In: a `Project`. Out: a list of findings, empty if there is nothing to say. Each check says in its
docstring what holds when all is well. A check only judges: what takes work is measured once, by an
experiment that checks share. No check knows another one.
"""
