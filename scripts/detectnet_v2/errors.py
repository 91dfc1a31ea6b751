"""The one exception of the package that is meant for a user's eyes."""


class DetectNetError(Exception):
    """Bad input or a request that cannot be met; the message is one line a problem.

    A message names the thing, its value, the place and the remedy. The command line prints each
    of its lines after the task's name, without a traceback.
    """
