"""State machines hosted by the cluster, for all its clients and engines to call.

::

    state_machine  the state machine of a service, and the inbox that passes calls to it
    service        a hosted service, as its callers see it
    mailboxes      mailboxes and collectives: messages between numbered members, and operations of all members
    tuple_space    tuple spaces: which waiting call gets which tuple
    tuple_index    tuples, templates and the index that matches them
    keys           canonical values of keys: equal for equal keys, in every process

"""
