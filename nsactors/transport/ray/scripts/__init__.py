"""Programs that Ray's processes run.

::

    run_script   runs one of Ray's own scripts, and imports seldom-used libraries late
    zygote       imports Ray, nsactors and IPython, and forks workers
    worker_stub  lets the zygote fork a worker, or becomes the worker itself
    start_node   a lean ``ray start --block``, which ends with the process that started it
    agent_stub   replaces Ray's dashboard agent: lives as long as its raylet, and does nothing
"""
