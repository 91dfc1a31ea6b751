"""Time of `snakemake -n` on a big project: 36,000 raw images and 40 pruning thresholds.

The project is made for the run: a drawn raw tree, its pictures hard-linked under many names, really
indexed, selected and converted; what the trainings would make is empty files that Snakemake takes
for its own work (`--touch`). The baseline is a dry-run of one rule without input: no workflow goes
below that. The two take turns; the least of several rounds counts, since other load only adds.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from datasets.fingerprint import walk  # noqa: E402
from scenes import write_raw_tree  # noqa: E402

DRAWN = {
    "medical-masks": 24,
    "mafa-train": 16,
    "mafa-test": 8,
    "fddb": 14,
    "widerface-train": 12,
    "widerface-val": 8,
}
SUFFIXES = {".jpg", ".jpeg", ".png"}
ONE_RULE = 'rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n'


@dataclass(frozen=True)
class Cost:
    """Seconds of a finished process by the clock and on the processor, and its peak memory, MB."""

    wall: float
    cpu: float
    memory: float


def link_copies(raw: Path, number: int) -> int:
    """Hard-link the tree's pictures, evenly, until it holds `number` of them; returns how many."""
    pictures = [
        Path(entry.path) for entry in walk(raw) if Path(entry.name).suffix.lower() in SUFFIXES
    ]
    for copy in range(number - len(pictures)):
        source = pictures[copy % len(pictures)]
        os.link(source, source.with_name(f"copy{copy:06d}-{source.name}"))
    return max(number, len(pictures))


def configuration(raw: Path, thresholds: int) -> dict:
    """Settings that overlay the project's own: many thresholds, and small pictures at once."""
    return {
        "data_root": str(raw),
        "image_width": 160,
        "image_height": 96,
        # The copies have no annotation.
        "max_bad_fraction": 1.0,
        "prune": {"thresholds": [round(0.1 + 0.8 * i / thresholds, 4) for i in range(thresholds)]},
    }


class Project:
    """A working directory with a config of its own in which the repository's workflow runs."""

    def __init__(self, folder: Path, config: dict) -> None:
        self._folder = folder
        self._config = folder / "plan.yaml"
        self._config.write_text(yaml.safe_dump(config), encoding="utf-8")
        # Snakemake looks for the project's own config where it runs.
        (folder / "config").symlink_to(REPOSITORY / "config")

    def command(self, *arguments: str) -> list[str]:
        """Snakemake's command line in this project."""
        return [
            *(sys.executable, "-m", "snakemake", *arguments),
            *("--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(self._folder)),
            *("--workflow-profile", str(REPOSITORY / "profiles/default")),
            *("--configfile", str(self._config)),
        ]

    def snakemake(self, *arguments: str) -> str:
        """Run Snakemake to its end and return what it printed."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self._folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{done.args}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done.stdout

    def convert(self) -> None:
        """Really make everything up to the manifests."""
        made = self.snakemake("--summary").splitlines()[1:]
        names = [line.split("\t")[0] for line in made]
        self.snakemake(
            *(name for name in names if name.endswith(".manifest.csv")), "--quiet", "all"
        )

    def pretend(self) -> None:
        """Make whatever is missing as empty files that count as made by the rules."""
        for line in self.snakemake("--summary").splitlines()[1:]:
            name = line.split("\t")[0]
            path = self._folder / name
            if name and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        self.snakemake("--touch", "--quiet", "all")


def environment() -> dict[str, str]:
    """Where the programs of this interpreter's environment are found first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def cost_of(command: list[str], folder: Path) -> Cost:
    """What a command costs from its start to its end."""
    with Path(os.devnull).open("wb") as nowhere:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=nowhere, stderr=nowhere
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def least(costs: list[Cost]) -> Cost:
    """The least of each figure."""
    return Cost(*(min(values) for values in zip(*map(astuple, costs), strict=True)))


def main() -> None:
    """Build the project, measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=36_000, help="raw images (%(default)s)")
    parser.add_argument("--thresholds", type=int, default=40, help="to prune at (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        small = Path(temporary, "small")
        small.mkdir()
        (small / "Snakefile").write_text(ONE_RULE, encoding="utf-8")
        folder = Path(temporary, "project")
        folder.mkdir()
        write_raw_tree(folder / "raw", images=DRAWN, seed=7, size=(200, 120))
        images = link_copies(folder / "raw", args.images)
        project = Project(folder, configuration(folder / "raw", args.thresholds))
        bare = [sys.executable, "-m", "snakemake", "-n", "--cores", "1"]
        states = {
            "nothing made": lambda: None,
            "converted, all else to do": project.convert,
            "everything done": project.pretend,
        }
        rows = {}
        for title, reach in states.items():
            reach()
            plan = project.snakemake("-n")
            jobs = re.search(r"^total +(\d+)", plan, re.MULTILINE)
            pairs = [
                (cost_of(bare, small), cost_of(project.command("-n"), folder))
                for _ in range(args.rounds)
            ]
            rows[title] = (int(jobs[1]) if jobs else 0, *map(least, zip(*pairs, strict=True)))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f}; {' '.join(sys.argv)}")
    print(f"{images} raw images, {args.thresholds} thresholds, least of {args.rounds}")
    print(
        f"{'snakemake -n':28}{'jobs':>6}{'wall s':>8}{'CPU s':>7}{'MB':>6}{'x one rule (CPU)':>18}"
    )
    for title, (jobs, base, ours) in rows.items():
        print(
            f"{title:28}{jobs:>6}{ours.wall:>8.2f}{ours.cpu:>7.2f}{ours.memory:>6.0f}"
            f"{ours.cpu / base.cpu:>18.2f}"
        )
    base = least([base for _, base, _ in rows.values()])
    print(f"{'one rule, no input':28}{1:>6}{base.wall:>8.2f}{base.cpu:>7.2f}{base.memory:>6.0f}")


if __name__ == "__main__":
    main()
