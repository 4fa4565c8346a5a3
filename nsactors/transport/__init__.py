"""How clients, engines and the controller reach each other: one protocol, two implementations.

``ray`` makes each of them an actor in a process of its own; ``local`` puts all of them into this process, as threads.
``base`` says what both offer; what one of them cannot do is missing from its declared capabilities.
"""
