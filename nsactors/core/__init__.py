"""Decisions as pure code: no Ray, IPython, threads, files or clock; time is an argument.

What clients and engines say to each other:

    messages     requests, replies and what they hold
    payload      values as bytes, buffers and references        functions    code of ``__main__`` on an engine
    wire         a message and its payload, encoded             cluster      what passes through the controller

Where work and data go:

    targets      which engines are meant                        partition    how sequences are cut and joined

Order and knowledge:

    stream       requests of many clients, in order, once       history      who ran what
    output       chunks of output, in order                     membership   who the engines are
"""
