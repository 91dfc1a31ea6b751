"""The one exception that this package raises for a wrong request."""


class ScenesError(Exception):
    """A request that cannot be drawn: what, which value, and the remedy, in one line."""
