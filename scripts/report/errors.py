"""Why a part of the report cannot be made."""


class ReportError(Exception):
    """A results file that cannot be read; the message is one line for the user."""


class NotThereYet(Exception):
    """A results file that no rule has made so far; the report leaves that part out and says so."""

    def __init__(self, path: str, target: str, reason: str = "") -> None:
        """`path` is relative to the results folder, `target` what the user types to make it.

        `reason` says why it never will be there, a sentence; empty where it can be made.
        """
        super().__init__(reason or f"{path} is not there yet; {target} makes it")
        self.path = path
        self.target = target
        self.reason = reason
