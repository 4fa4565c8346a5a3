"""Decisions as pure code: no Ray, IPython, threads, files or clock; time is an argument.

What clients and engines say to each other:

    messages     requests, replies and what they hold           tasks        batches of tasks as they travel
    payload      values as bytes, buffers and references        functions    code of ``__main__`` on an engine
    wire         a message and its payload, encoded             carried      what a call takes along, and how large
    remote_value handles on values that stay where they are     cluster      what passes through the controller
    engines      what an engine is, and was asked for with      labels       conditions on what is written on things

Where work and data go:

    targets      which engines are meant                        partition    how sequences are cut and joined
    scheduling   which engine runs which task when              chunking     how many items make up a message
    depending    functions that run where a condition holds     placement    on which node an engine starts
    hosts        hosts, as people list them                     batch        what batch systems are told, and answer

Order and knowledge:

    stream       requests of many clients, in order, once       history      who ran what
    output       chunks of output, in order                     membership   who the engines are
    timeline     which engine did what when                     durations    how long it takes
    answers      what an engine has answered, kept for a while  memory       what engines and object stores hold
    kept_tasks   what has come of detached tasks, kept too

Clusters in the background:

    idleness     when nobody uses one any more                  versions     which of them a client may differ in

Namespaces that come back:

    journal      what made a namespace, in order                recovery     what is done with it, and told of it
    lineage      which entries made a name                      records      entries as bytes
    shipping     how a journal is copied to its keeper

Models of computation:

    machine      what a cluster hosts for all to call           mailboxes    letters between members, and meetings
    tuple_space  who waits for which tuple, and who gets it     tuples       tuples and templates, and what matches
    tuple_index  how they find each other                       digests      what equal values have in common
"""
