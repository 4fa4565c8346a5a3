"""The controller's decisions and store: members, history, event queues.

::

    members       the engines of the cluster, as a pure state machine
    history       the history of requests, and the engines that clients keep busy
    store         the state of a controller on disk, from which another process can continue
    event_queues  queues of commands for engines and of events for clients

"""
