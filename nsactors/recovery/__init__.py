"""Event sourcing of namespaces: the journal, its storage and copies, and replay.

::

    journal      the journal of a namespace: its requests in order, from which it can be restored
    encoding     encoding of journal entries as bytes
    storage      a journal on disk: append, cut, read; and its replica on another machine
    unjournaled  a mark on disk for requests that are in no journal, because the disk was full
    replication  replication of a journal: batches in order, acknowledged
    replay       replay of a journal: the plan, the report, and slices that recreate a name

"""
