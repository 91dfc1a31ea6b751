"""The one exception that means "the user's input is wrong", printed without a traceback."""


class DeepStreamError(Exception):
    """A config, model, device or video that cannot be used; says what, where and why."""
