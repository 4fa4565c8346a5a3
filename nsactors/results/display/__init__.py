"""Display of results: live output, progress and timelines.

::

    live         live output: moved from calls to a screen while it is printed
    screen       screens: their interface, the pieces that they have shown, and Ctrl-C between two of their steps
    merging      merging of output: equal lines, figures and values of several engines are shown once
    line_editor  the text that a terminal would show: carriage returns, colours, drawings of several lines
    terminal     output in a terminal, or as plain text in a pipe
    line         a line of progress, and output as plain text above it
    notebook     output in a notebook: under the cell that caused it
    progress     progress of calls, and of data on its way to them
    outputs      output of calls by type or engine, the values of cells, and a table of the calls
    tables       tables of results and engines, at a prompt, in a notebook and as text
    schedule     schedules: the work of engines in time, as parts of a picture
    timeline     timelines: a schedule as text, SVG and in notebooks

"""
