"""How clients, engines and the controller reach each other: one protocol, two implementations.

``ray`` makes each of them an actor in a process of its own; ``local`` puts all of them into this process, as threads.
``base`` says what both offer; what one of them cannot do is missing from its declared capabilities. ``connection`` is
what another process has to know to join in. The rest is about Ray:

    ray_runtime   the one module that imports Ray first, starts and stops it
    lean_start    without what an embedded cluster has no use for; ``ray_script`` and ``stand_in`` are parts of that
    private_folder, ray_folders   where an embedded Ray, and the processes of a cluster, keep files
    ray_joining   the way to a cluster that another process has started
    ray_line      calls to the controller, also while it is being brought back
    ray_presence  how the controller notices that a client's process has ended
    ray_death     why an actor died, in words
    ray_nodes     the nodes, and which actors are on them
    ray_store     the object store, as engines use it; ``ray_memory`` says how full it is
    ray_relays    a tree to many engines
    ray_keeper    the keeper of journals, on the head node
"""
