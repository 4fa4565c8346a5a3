"""Operations measured on several systems, in turns.

::

    catalogue   the operations, and how often each is measured
    workload    the code and the data that all systems get
    work        functions that are mapped, which process pools send by name
    process     the process of one system, seen from its parent
    worker      the process of one system itself
    turns       a turn: the same operation a few times, timed
    rounds      interleaved rounds of turns
    stats       summaries and paired ratios of timings
    report      tables and JSON
    plot        cost against the number of engines, as a picture
"""
