"""Look inside engines while they work: stacks, values, profiles, the debugger.

The engine's half replies to queries from its control thread or from a thread of its own; the client's half shows the
replies::

    inspector           the engine's replies to queries that look inside it
    frames              stacks of threads of this process
    processes           stacks of other processes of this machine, whose Python does not reply
    peeks               expressions that are evaluated while a request runs
    profilers           profilers of an engine: a sampler of stacks, Python's own profiler of calls, and memray
    profiles            the client's half of profiles: starts, stops, shows and saves them
    flames              flame graphs: pictures, and files for other tools
    session_protocol    the parts of a client's session that this package uses
    values              the client's half of peeks: values of expressions and variables of busy engines
    stacks              the client's half of stacks: reads and shows the stacks of engines
    debug_conversation  lines of a client for a debugger on an engine, and the text that it writes
    debug_commands      Python's debugger, with a client in place of a keyboard
    kept_failures       the frames of the last failure of each client
    breakpoint_stops    stops of requests at breakpoints: the part on the thread of requests
    engine_debugger     replies to the queries of clients: the part on the control thread
    debug_console       the client's half: one prompt for the debuggers of several engines
"""
