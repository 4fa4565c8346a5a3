"""Output of calls shown while it is printed.

* ``lines`` makes of text what a terminal would show of it: carriage returns, backspaces, progress bars.
* ``grouping`` tells once what several engines print alike. Like ``lines`` it is pure: time is an argument.
* ``screen`` says what the places are where output is shown; ``terminal`` and ``notebook`` are such places.
* ``line`` is a place for a line of progress alone.
* ``watching`` moves output from calls to a screen.
"""

from nsactors.results.live.watching import LiveOutput, open_screen

__all__ = ["LiveOutput", "open_screen"]
