"""An engine's process: namespace, shells, output, tasks, snapshots and journal.

An engine has one :class:`Namespace` and runs one operation after another in it; the other modules are the parts around
it, from the capture of output to recovery::

    namespace          names, and the operations on them
    plain_shell        cells in plain Python; the interface of shells; sources of cells for tracebacks
    ipython_shell      cells in a full IPython, for a namespace with a process of its own
    interrupts         interrupts and time limits, the border between user code and machinery, failures
    output             output of user code by request, and its capture
    debuggers          skip debuggers and refuse input: an engine has no keyboard
    control            replies to queries while the engine is busy
    reply_cache        replies by request, so that a repeated request runs once
    task_runner        batches of tasks, item by item, and their results
    seeded_call        the function of a seeded map
    host               the process or thread of an engine, and its graceful end
    startup            the first cell of an engine, and the ``on_error`` function
    memory             memory of names, values and this process
    last_request       the request that was begun last, in a file that outlives the process
    module_versions    the clients' modules, each in the version that its client has imported
    programs           the code shown in histories for a request
    mpi_guard          which requests use MPI, and how it is kept out
    snapshot           a namespace as bytes and back; which names are the user's
    components         how a namespace is divided into parts that can be pickled separately
    clean_interpreter  test that a snapshot loads in another process
    forking            a small process that forks others on request, in milliseconds
    code_uses          clocks, files and other uses of code that no replay or snapshot repeats
    mentions           the names in code, resolved to values without running it
    process_state      state of a process beside its names: random generators, environment, folder
    process_settings   settings of Python, the system and libraries, for snapshots
    entropy            repeatable entropy for NumPy, and hooks on imports
    journal_recorder   record requests in the journal, take snapshots, recover from them
"""

from nsactors.namespace.namespace import Namespace

__all__ = ["Namespace"]
