"""Clients, views and results.

::

    client          the client         view            views, executors         asyncresult   results
    remotefunction  decorators         records         requests of clients      metadata      metadata of requests
    displaying      output             magics          ``%px`` and related magics     chunks   chunks of maps
    lazy_map        maps of endless input
"""
