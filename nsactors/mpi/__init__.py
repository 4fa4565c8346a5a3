"""MPI: engines as the ranks of one world, at any time after their start.

A :class:`World` lets engines initialise MPI together through a PMI server in the client's process; if a rank dies, the
world ends the calls of the others. Some libraries, such as Open MPI, need the launcher of their site: the launcher
starts ranks, and engines take the places of these ranks::

    world        MPI worlds of engines: form, break and form again
    engine_side  functions that join an engine to a world
    library      the MPI library that mpi4py has loaded
    pmi          the PMI-1 wire protocol that MPICH speaks to its process manager
    pmi_server   the PMI server of a world, and processes that ranks start
    launcher     the launcher of a site's MPI, such as ``mpiexec`` or ``srun``
    placeholder  a rank that a launcher has started, whose place an engine takes
"""

from nsactors.mpi.library import Library
from nsactors.mpi.world import World, WorldState

__all__ = ["Library", "World", "WorldState"]
