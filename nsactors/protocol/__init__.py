"""The values that clients, engines and the controller send each other, and their bytes.

::

    messages        requests, replies and output
    control         commands and queries to engines, reports from them, events for clients
    inspection      queries that look inside an engine, and their replies
    engine_info     descriptions of engines: identity, labels, versions, memory, recovery
    serialize       serialisation of values: pickles with out-of-band buffers, handles on stored values
    salvage         values pickled together, unpickled one by one if some cannot be unpickled
    reducers        reducers for definitions of ``__main__`` that pickle would store by name only
    functions       functions and classes of ``__main__``, rebuilt inside an engine's namespace
    classes         classes of ``__main__`` on engines: one object per namespace and definition
    definitions     digests of definitions: the same class statement has the same digest in every process
    wire            messages and payloads as bytes
    output          the output of one request: chunks in order, sent ahead of its reply or in the reply's tail
    sequencing      sequencing of requests: in order per client, each once
    tasks           batches of tasks, and results of map items
    targets         targets of a call, resolved to engine ids
    partition       partitioning of sequences over engines: rules, and kinds of sequences
    arguments       arguments of public calls, checked before anything is sent
    read_only       advice for code that writes to a read-only view of shared memory
    client_modules  the modules of a client's program, and the modules that an engine must load for it
    map_functions   functions of maps: arguments by name, random numbers per item
    stored_replies  the replies that an engine stores, within limits
    process         the process of a client, and the libraries that it has imported

"""
