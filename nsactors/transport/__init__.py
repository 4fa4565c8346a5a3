"""How clients, engines and the controller reach each other: one protocol, two implementations.

``ray`` makes each of them an actor in a process of its own; ``local`` puts all of them into this process, as threads.
``base`` says what both offer; what one of them cannot do is missing from its declared capabilities. ``connection`` is
what another process has to know to join in. ``hosting`` calls state machines that the cluster hosts, in this process
(``local_hosting``) or in one of its own (``ray_hosting``; ``ray_outbox`` saves messages). ``residents`` are objects of
the cluster's own, which outlive the clients that call them.

What clusters in the background need, without Ray:

    registry      how they are reached, by name           private_files     such files as it reads and writes
    access        whether one would let us in             versions          what is compared with what it has
    leftovers     what a dead one has left running        process_identity  whether its owner lives
    certificates  for those who want what is sent encrypted

The rest is about Ray:

    ray_runtime   the one module that imports Ray first, starts and stops it
    lean_start    without what an embedded cluster has no use for; ``ray_script`` and ``stand_in`` are parts of that
    private_folder, ray_folders   where an embedded Ray, and the processes of a cluster, keep files
    ray_joining   the way to a cluster that another process has started
    ray_entry     the way into a Ray that is known by address alone
    ray_node      a node of a Ray of several machines; ``ray_start`` is its process
    ray_line      calls to the controller, also while it is being brought back
    ray_presence  how the controller notices that a client's process has ended
    ray_death     why an actor died, in words
    ray_nodes     the nodes, and which actors are on them
    ray_store     the object store, as engines use it; ``ray_memory`` says how full it is
    ray_relays    a tree to many engines
    ray_keeper    the keeper of journals, on the head node
    ray_residents what else lives there and outlives clients
"""
