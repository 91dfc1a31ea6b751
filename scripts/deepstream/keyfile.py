"""GLib key files, the INI dialect of DeepStream's configs: text in, groups of strings out."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from deepstream.errors import DeepStreamError

_TRUE = {"true", "1"}
_FALSE = {"false", "0"}
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


@dataclass
class Group:
    """One `[group]`: its keys in file order, with the typed reads that GKeyFile offers."""

    name: str
    path: Path
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str) -> str:
        """Return a string value, with GKeyFile's escapes for blanks and backslashes undone."""
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[0]), self.values[key])

    def integer(self, key: str) -> int:
        """Return an integer value."""
        return self._convert(key, int, "an integer")

    def number(self, key: str) -> float:
        """Return a floating point value."""
        return self._convert(key, float, "a number")

    def boolean(self, key: str) -> bool:
        """Return a value that GKeyFile accepts as a boolean: 0, 1, true or false."""
        value = self.values[key].strip()
        if value not in _TRUE | _FALSE:
            raise self.error(key, "a boolean (0, 1, true or false)")
        return value in _TRUE

    def items(self, key: str) -> list[str]:
        """Return a `;` separated list; a separator at the end adds no element."""
        parts = self.values[key].split(";")
        if parts[-1].strip() == "":
            parts.pop()
        return [part.strip() for part in parts]

    def integers(self, key: str) -> list[int]:
        """Return a `;` separated list of integers."""
        return self._list(key, int, "integers separated by ;")

    def numbers(self, key: str) -> list[float]:
        """Return a `;` separated list of numbers."""
        return self._list(key, float, "numbers separated by ;")

    def place(self, key: str) -> str:
        """Return file:line of a key, for messages."""
        return f"{self.path}:{self.lines[key]}"

    def error(self, key: str, expected: str) -> DeepStreamError:
        """Build the error for a value that is not what was expected."""
        return DeepStreamError(
            f"{self.place(key)}: {key}={self.values[key]} in [{self.name}] is not {expected}"
        )

    def _convert(self, key, kind, expected):
        try:
            return kind(self.values[key])
        except ValueError:
            raise self.error(key, expected) from None

    def _list(self, key, kind, expected):
        try:
            return [kind(item) for item in self.items(key)]
        except ValueError:
            raise self.error(key, expected) from None


def parse(text: str, path: Path) -> dict[str, Group]:
    """Parse a key file; `path` only names it in messages.

    As in GKeyFile: comments are whole lines that begin with `#`, blanks around the first `=` are
    dropped and those at the end of a value belong to it, a repeated group continues the first, a
    repeated key replaces it.
    Raises DeepStreamError, with the line, for anything else.
    """
    groups: dict[str, Group] = {}
    group: Group | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.lstrip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            name = line.rstrip()[1:-1]
            if not line.rstrip().endswith("]") or not name:
                raise DeepStreamError(f"{path}:{number}: {line!r} is not a [group]")
            group = groups.setdefault(name, Group(name, path))
            continue
        key, separator, value = line.partition("=")
        if not separator or not key.strip():
            raise DeepStreamError(f"{path}:{number}: {line!r} is neither key=value nor a [group]")
        if group is None:
            raise DeepStreamError(f"{path}:{number}: {line!r} stands before the first [group]")
        group.values[key.strip()] = value.lstrip()
        group.lines[key.strip()] = number
    return groups


def read(path: Path) -> dict[str, Group]:
    """Read and parse a key file, raising DeepStreamError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DeepStreamError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DeepStreamError(f"{path}: not UTF-8 text ({error.reason})") from error
    return parse(text, path)
