"""Measurements of nsactors.

::

    systems      the systems that are compared: nsactors, bare Ray, ipyparallel, Dask, pools of processes, a plain loop
    operations   the operations that are measured on each system, in turns, and their reports: ``python -m benchmarks``
    studies      programs with one subject each: layers of a call, growth of memory, tasks that wait, MPI, the house
"""
