"""Benchmarks of a pushed release on a board, and what came of them."""

import contextlib
import json
import threading
import time
from pathlib import Path

import benchmark_device as benchmark_script
import push as push_script
import pytest
from jetson.errors import JetsonError


class Bench:
    """A pushed release and a benchmark of it."""

    def __init__(self, board, rendered, folder: Path) -> None:
        self.board, self.rendered, self.folder = board, rendered, folder
        self.folder.mkdir(parents=True)
        self.logs = self.folder / "logs"
        self.output = self.folder / "benchmark.json"
        self.table = self.folder / "benchmark.md"

    def push(self, **behaviours: str) -> None:
        folders = {
            name.replace("_", "-"): self.rendered(
                name.replace("_", "-"), model=name.encode(), behaviour=behaviour
            )
            for name, behaviour in behaviours.items()
        }
        receipt = self.folder / "receipt.json"
        push_script.push("nano", self.board.section(), folders, "MODEL_KEY", receipt)

    def run(self, **settings: object) -> dict:
        metrics = self.folder / "metrics.json"
        metrics.write_text(json.dumps({"mAP": 84.2}))
        return benchmark_script.benchmark_device(
            "nano",
            self.board.section(**settings),
            self.folder / "receipt.json",
            {"chosen": metrics},
            self.output,
            self.table,
            self.logs,
            poll_s=0.2,
        )

    def failure(self, **settings: object) -> str:
        with pytest.raises(JetsonError) as caught:
            self.run(**settings)
        assert not self.output.exists() and not self.table.exists()
        return str(caught.value)

    @property
    def builds(self) -> int:
        path = self.board.system / "builds"
        return len(path.read_text().split()) if path.exists() else 0

    def when(self, text: str, action) -> threading.Thread:
        """Do something as soon as the run's state on the board contains a text."""

        def wait() -> None:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                for state in self.board.root.glob("benchmarks/*/state"):
                    with contextlib.suppress(FileNotFoundError):
                        if text in state.read_text():
                            action()
                            return
                time.sleep(0.05)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread
