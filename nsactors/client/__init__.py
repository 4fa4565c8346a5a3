"""The client: a cluster's engines as one object.

``Client`` is what people hold; ``Session`` is its conversation with the cluster; ``Ledger`` keeps the failures that
nobody has asked for yet.

What the client offers:

    client        what people hold                        everywhere    what it does on all of its engines at once
    task_work     what it does with tasks                 shared_work   work of other clients, seen and taken over
    hosting       what it does with services
    watching      who runs what where, as a table         memory        what the cluster's memory holds
    forms         how client and views are shown          prompt        what is added to an IPython prompt
    ways          from a cluster's name to a way there

The conversation below:

    session       asks, and hears                         roster        the engines it knows of
    post          requests out, answers back              letters       a request on its way
    outcomes      what a reply means                      overtaken     replies that came before their output
    collecting    answers to requests of other clients    finding       which requests are meant
    announcing    what is open, told to the cluster       catching_up   what was missed
    arriving      waiting for engines                     draining      waiting for calls
    callbacks     a thread for functions of the user's    ledger        failures that nobody has asked for
    tasks         the scheduler at work                   detached      at work where it outlives the client
    farms         both of them, as views are given them
"""

from nsactors.client.client import Client

__all__ = ["Client"]
