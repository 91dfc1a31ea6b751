"""How to reach a device of the config's `deploy.devices` section, and how to measure on it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from deepstream.devices import BENCHMARK_CLIP

from jetson.errors import JetsonError


@dataclass(frozen=True)
class Remote:
    """A device as the SSH session sees it; what its board can do is deepstream.devices' matter.

    `host` is an alias of ~/.ssh/config, a name or an address; `user`, `port`, `identity_file` and
    `jump_host` win over what ~/.ssh/config says. `folder` is absolute or relative to the home on
    the device. Times are in seconds, sizes in MB (2**20 bytes).
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    jump_host: str | None = None
    folder: str = "face-mask"
    clip: str = BENCHMARK_CLIP
    nvpmodel: int | None = None
    jetson_clocks: bool = False
    warm_up_s: float = 20
    duration_s: float = 60
    engine_timeout_s: float = 3600
    stop_timeout_s: float = 30
    connect_timeout_s: float = 15
    reconnect_timeout_s: float = 600
    min_free_disk_mb: int = 1024
    min_free_memory_mb: int = 1024

    @classmethod
    def from_config(cls, name: str, section: Mapping[str, Any]) -> "Remote":
        """Take from a device's section of the config what the session and the benchmark need.

        Keys about the board and the model are left to others.

        Raises:
            JetsonError: `host` is missing or a value does not fit.
        """
        known = {field.name for field in fields(cls)} - {"name"}
        given = {key: section[key] for key in known if section.get(key) is not None}
        if "host" not in given:
            raise JetsonError(
                f"deploy.devices.{name}.host is missing; give an alias of ~/.ssh/config or an "
                "address"
            )
        remote = cls(name=name, **given)
        remote._check()
        return remote

    def _check(self) -> None:
        for key in ("host", "folder", "clip"):
            value = getattr(self, key)
            if not value.strip() or any(ord(character) < 32 for character in value):
                self._refuse(key, value, "give one line of text")
        if not self.clip.startswith("/"):
            self._refuse("clip", self.clip, "give the whole path of a video on the device")
        if set(self.clip) & set("%#"):
            # deepstream-app makes a URI of it and takes % for printf's; GLib refuses #.
            self._refuse("clip", self.clip, "deepstream-app takes no % and # in it, rename it")
        positive = ("duration_s", "engine_timeout_s", "stop_timeout_s", "connect_timeout_s")
        for key in positive:
            if not getattr(self, key) > 0:
                self._refuse(key, getattr(self, key), "give a number above 0")
        for key in ("warm_up_s", "reconnect_timeout_s"):
            if getattr(self, key) < 0:
                self._refuse(key, getattr(self, key), "give 0 or more")

    def _refuse(self, key: str, value: object, remedy: str) -> None:
        raise JetsonError(f"deploy.devices.{self.name}.{key}: {value!r} does not fit; {remedy}")
