"""The version of this package: whoever needs it need not import the package's front."""

__all__ = [
    "__version__",
]

__version__ = "0.2.0"
