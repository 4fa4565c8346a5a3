"""Clusters: engines started and stopped together, here and on other machines.

::

    cluster       clusters: engines started and stopped together
    options       options of engines: their keywords, checks, and conversion into ``EngineOptions``
    ssh_hosts     hosts that ssh reaches: host lists, and nodes started on them
    batch         batch systems: their scripts, commands and answers
    batch_job     a cluster as a batch job: its process on the first node, and the state of continued jobs
    node          a node on another machine: ``python -m nsactors.cluster.node PLAN``, started by a batch system or
                  over ssh
    node_over_ssh the start of such a node on a host that need not have this package
    own_wheel     the package of this process as a wheel, for machines that lack it
    kernels       engines as kernels of Jupyter
    kernel_process
                  the process of such a kernel
    time_limits   the time that a batch job has left
    ray_launcher  clusters on machines that Ray's cluster launcher starts

The package exports nothing: the command needs only some of these modules, and not :mod:`cluster.cluster`, which imports
nearly all of nsactors.
"""
