"""MPI: engines as the ranks of one world, without ``mpiexec``, at any time after they have started.

::

    world      a world, what becomes of it when a member dies, and how it is made anew
    forming    making one; ending what engines do for one that is over
    joining    what is called on the engines
    server     where they meet: sockets around ``pmi``
    spawning   processes that ranks start themselves
    pmi        what MPICH asks its process manager for

MPI itself is mpi4py's and MPICH's, from the extra ``mpi``; nothing here imports them but on engines.
"""

from nsactors.mpi.world import World, WorldState

__all__ = ["World", "WorldState"]
