"""Why a part of the report cannot be made."""


class ReportError(Exception):
    """A results file that cannot be read; the message is one line for the user."""


class NotThereYet(Exception):
    """A results file that no rule has made so far; the report leaves that part out and says so."""

    def __init__(self, path: str, target: str) -> None:
        """`path` is relative to the results folder, `target` what the user types to make it."""
        super().__init__(f"{path} is not there yet; {target} makes it")
        self.path = path
        self.target = target
