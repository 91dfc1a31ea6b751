"""Whether what was measured is of the model that the results folder holds now.

Benchmarks and the checks of a device's configs are made on demand and outlive a new training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from file_digest import sha256

from report.errors import NotThereYet
from report.results import Results

METRICS = {
    "unpruned": "unpruned/evaluation/fold0/metrics.json",
    "chosen": "chosen/metrics.json",
}
EXPORTED = ("model.onnx", "model.etlt")
EARLIER = "of an earlier model"


@dataclass
class Present:
    """The models of a results folder, to hold measurements against; files are read once."""

    results: Results
    _digests: dict[str, set[str]] = field(default_factory=dict)

    def is_of(self, model: str, digest: str | None, mean_average_precision: float | None) -> bool:
        """Whether something measured is of the present `model`, as far as can be told.

        Args:
            model: `unpruned` or `chosen`.
            digest: SHA-256 of the measured model file, None where it was not written down.
            mean_average_precision: the toolkit's own, noted beside the measurement; it decides
                where there is no digest on either side.
        """
        digests = self.digests(model)
        if digest and digests:
            return digest in digests
        now = self.mean_average_precision(model)
        return None in (now, mean_average_precision) or now == mean_average_precision

    def digests(self, model: str) -> set[str]:
        """SHA-256 of the model's exported files, open and encrypted."""
        if model not in self._digests:
            folder = self.results.root / "export" / model
            files = [folder / name for name in EXPORTED if (folder / name).is_file()]
            self._digests[model] = {sha256(file) for file in files}
        return self._digests[model]

    def mean_average_precision(self, model: str) -> float | None:
        """The toolkit's own figure for the present model, None where it is not known."""
        if model not in METRICS:
            return None
        try:
            metrics: Mapping = self.results.document(METRICS[model], ("mAP",))
        except NotThereYet:
            return None
        return metrics["mAP"]
