"""Models of parallel computing on the engines of a cluster, over views and hosted services.

::

    communicator  message passing between the namespaces of engines, without MPI: mpi4py's lower-case methods over
                  mailboxes
    bsp           bulk-synchronous parallel programs: supersteps of local work and communication, each ended by a
                  barrier
    tuple_space   tuple spaces: processes that coordinate through tuples which none of them owns
    stencil       stencil computations: an array in bands of rows, each of which sees some rows of its neighbours
    map_reduce    MapReduce, with pairs that go from engine to engine
    inputs        sources of the records of MapReduce jobs

"""
