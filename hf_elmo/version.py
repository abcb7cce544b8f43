"""The version of the package, which the rooms below ask for without importing the package itself."""

__version__ = "0.1.0"
