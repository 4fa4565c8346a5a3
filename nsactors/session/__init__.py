"""One process's connection to a cluster: requests, replies, engines, other clients' calls.

::

    session           the connection of one process to a cluster
    requests          requests on their way out and replies on their way back
    callbacks         the user's functions that are called when results have arrived
    engine_directory  the engines of a cluster, kept up to date by the controller, and tables of them
    engine_start      the start of engines, as its client waits for it
    other_clients     requests of other clients: collected, found and announced
    memory            memory of a cluster, by engine and name
    carried_data      warnings about large variables that calls carry with them
    own_modules       the modules that this program has imported from its own files, and their description for engines
    unretrieved       errors of calls whose results were never asked for, and other notices for the user

"""
