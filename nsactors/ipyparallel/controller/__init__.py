"""Dependencies of tasks: ``dependency``. The controller itself is that of nsactors."""
