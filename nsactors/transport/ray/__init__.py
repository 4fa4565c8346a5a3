"""The transport on Ray: the controller and each engine are actors with processes of their own.

::

    transport           how clients reach the engines, and how a cluster starts
    controller_channel  how processes find the controller's actor, and call it
    controller_process  the controller's actor, which starts and watches the actors of engines
    engine_process      the actor of an engine, which runs requests
    named_actors        actors on the head node that clients find by name
    services            the host of services, and batches of one-way messages to it
    service_lines       a caller's connections to that host: calls to its actor, and messages by its socket
    direct_server       the UNIX socket of an engine, for clients on its host
    direct_lines        a client's end of these sockets
    relays              a tree of actors that forwards a client's requests to many engines
    object_store        Ray's object store: put and load payloads, check its room
    failures            failures of Ray as errors of this package, and waits that end with Ray's servers
    nodes               nodes of a Ray cluster, and placement of engines on them
    journal_replica     an actor on the head node with copies of journals
    runtime             imports Ray first, starts it, and stops what it started
    lean_start          starts Ray without the parts that an embedded cluster does not need
    private_names       the parts of Ray that are used beyond its documented interface
    zygote_process      a child of this process that forks the workers of an embedded Ray
    access              checks of a Ray cluster that another process started, by its address
    node_process        a node of a Ray cluster of several machines, as a child of this process
    servers             Ray's servers under this process, and a watchdog of their death
    scripts/            programs that Ray's processes run
"""
