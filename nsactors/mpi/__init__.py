"""MPI: engines as the ranks of one world, without ``mpiexec``, at any time after their start.

A :class:`World` lets engines initialise MPI together through a PMI server in the client's process; if a rank dies, the
world ends the calls of the others::

    world        MPI worlds of engines: form, break and form again
    engine_side  functions that join an engine to a world
    pmi          the PMI-1 wire protocol that MPICH speaks to its process manager
    pmi_server   the PMI server of a world, and processes that ranks start
"""

from nsactors.mpi.world import World, WorldState

__all__ = ["World", "WorldState"]
