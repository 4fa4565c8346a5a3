"""The connections between clients, engines and the controller: one interface, three implementations.

::

    base            the interface of a transport: connections to engines and the controller, and a cluster's end
    registry        clusters in the background, by name
    channel         messages between processes of one user, over UNIX sockets
    packets         messages in packets, which arrive whole or not at all
    service_socket  calls to services in packets, between their host and callers on its machine
    embedded        a program whose namespace is an engine: ``nsactors.embed()``
    embedded_server  passes messages of the clients of such a program on to its engine and controller
    embedded_client  a client's connection to such a program
    local           all parts in one process, without Ray: engines are threads, the controller runs on an event loop
    local_services  services of the local transport
    ray/            the transport on Ray: the controller and each engine are actors with processes of their own
"""
