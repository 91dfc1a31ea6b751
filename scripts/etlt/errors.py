"""The one exception that means "this model file cannot be used", printed without a traceback."""


class EtltError(Exception):
    """A file, key, licence or interpreter that does not do; one line with the remedy."""
