"""Load balancing: a scheduler as a pure state machine, its driver, and a scheduler that outlives clients.

::

    messages            the scheduler's values: tasks, engines, events and effects
    scheduler_state     the decisions about which engine runs which task when: takes events, and returns effects
    records             records of the scheduler: tasks, dependencies and engines
    task_table          the table of tasks, and the queues of the tasks that are ready
    batching            the size of batches
    policies            users' policies: the order of tasks, and the choice among free engines
    driver              the driver of a scheduler: carries out its decisions on engines
    scheduler           the interface by which views submit tasks, and a client's own scheduler on its thread
    results             task specifications, and delivery of the outcomes that engines report
    detached_scheduler  the scheduler of detached tasks, which is itself a client of the cluster
    detached_results    results of detached tasks: their store, its limits, and the messages about them
    detached_client     the client's side of a detached scheduler

"""
