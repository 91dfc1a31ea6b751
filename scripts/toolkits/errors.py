"""What goes wrong with a toolkit."""


class ToolkitError(Exception):
    """A toolkit that cannot be run, or whose output is not understood; one line a problem."""
