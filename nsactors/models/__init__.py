"""Models of parallel computing on the engines of a cluster, each an adapter over views and hosted services.

::

    communicator   message passing, with mpi4py's lower-case methods
    bsp            bulk-synchronous parallel programs, after BSPlib
    stencil        arrays in bands of rows with halos, on a communicator
    tuple_space    coordination through tuples that nobody owns, after Linda
    map_reduce     MapReduce, with pairs that go from engine to engine; its records come from
                   ``inputs``, and ``pairs`` is what its engines do

None of them knows how engines or the controller work. How one more is written is told in
``docs/how-to/write-a-model.md``.
"""
