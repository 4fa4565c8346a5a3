"""Look inside engines while they work: stacks, values, profiles, the debugger.

The engine's half replies to queries from its control thread or from a thread of its own; the client's half shows the
replies::

    inspector   the engine's replies to queries that look inside it
    frames      stacks of threads of this process
    processes   stacks of other processes of this machine, whose Python does not reply
    peeks       expressions that are evaluated beside a running request
    profilers   profilers of an engine: a sampler of stacks, and Python's own profiler of calls
    allocations  a profiler of memory
    profiles    profiles of engines, as a client asks for them, shows and saves them
    flames      flame graphs, as pictures and as files of other tools
    session     a client's session, as far as looks into engines use it
    values      values of engines that work, as a client peeks at them: expressions and variables
    stacks      stacks of a cluster's engines, as its client asks for them and shows them
    debug_conversation  lines of a client for a debugger on an engine, and the text that it writes
    debug_commands      Python's debugger, with a client in place of a keyboard
    debug_session       failures that are kept, requests that stop, and sessions of clients with both
    debug_console       the client's half: one prompt for the debuggers of several engines
"""
