"""The controller: who is in the cluster, and what it remembers.

::

    controller     its methods, as engines and clients call them
    launching      what it asks of whoever starts engines
    mailboxes      what waits for those that come to fetch it
    store          what outlives its process
"""

from nsactors.controller.controller import Controller
from nsactors.controller.launching import CannotStart, Death, Launcher
from nsactors.controller.store import Nowhere, SqliteStore, Store, Stored

__all__ = ["CannotStart", "Controller", "Death", "Launcher", "Nowhere", "SqliteStore", "Store", "Stored"]
