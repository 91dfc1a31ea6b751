"""The exception for what a user can put right."""


class DetectNetError(Exception):
    """Bad input; the message is one line that names the thing, its value, its place, the remedy."""
