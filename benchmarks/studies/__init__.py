"""Studies of nsactors alone. Each is a separate program: ``python -m benchmarks.studies.NAME --help``.

::

    layers                 the time of a small call, layer by layer
    tracing                timers around functions of a running program, for `layers`
    growth                 memory that grows with use
    queued                 memory of a client whose tasks wait
    small_calls            small calls through sockets, compared with calls through Ray alone
    services               calls to services through a socket, compared with calls through Ray alone
    mpi_ping_pong          messages of MPI between engines, compared with ``mpiexec``
    mpi_suite              mpi4py's own tests on a world of engines
    ipyparallel_examples   the examples of ipyparallel's documentation, by alias
    ipyparallel_programs   programs that take an executor, a view or a client of ipyparallel
    house                  measures of the source code, and of a traced call
    traced_call            a picture of the path of a traced call through the modules
"""
