"""Leaves frames out of the tfrecords or repeats them, by the classes they show."""

from collections import Counter
from collections.abc import Sequence

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError


class SampleModifier:
    """Decides how often a frame of a training fold is written; without a config always once.

    Args:
        config: sample_modifier_config of the spec. The classes in it are target classes, after
            its own source_to_target_class_mapping.
        validation_fold: the fold that stays as it is; None changes all.
        num_folds: number of folds that max_training_samples is spread over.

    Raises:
        DetectNetError: the config names a class that its mapping does not yield.
    """

    def __init__(
        self,
        config: spec_pb2.DatasetExportConfig.SampleModifierConfig,
        *,
        validation_fold: int | None,
        num_folds: int,
    ):
        self._config = config
        self._validation_fold = validation_fold
        self._mapping = dict(config.source_to_target_class_mapping)
        for field in ("filter_samples_containing_only", "dominant_target_classes"):
            for name in getattr(config, field):
                if name not in self._mapping.values():
                    raise DetectNetError(
                        f'sample_modifier_config.{field}: "{name}" is no value of '
                        f"source_to_target_class_mapping"
                    )
        training_folds = num_folds - (validation_fold is not None)
        self._limit = None
        if config.max_training_samples:
            self._limit = config.max_training_samples // max(training_folds, 1)
        self._written: Counter[int] = Counter()

    def copies(self, names: Sequence[str], fold: int) -> int:
        """Return how often to write a frame with objects of the classes `names`."""
        if fold == self._validation_fold:
            return 1
        counts = Counter(self._mapping[name] for name in names if name in self._mapping)
        if len(counts) == 1 and next(iter(counts)) in self._config.filter_samples_containing_only:
            return 0
        copies = 1 + (self._config.num_duplicates if self._is_imbalanced(counts) else 0)
        if self._limit is not None:
            copies = min(copies, self._limit - self._written[fold])
            self._written[fold] += copies
        return copies

    def _is_imbalanced(self, counts: Counter[str]) -> bool:
        dominant = self._config.dominant_target_classes
        thresholds = dict(self._config.minimum_target_class_imbalance)
        return any(
            counts[rare] > counts[name] * thresholds.get(rare, 1.0)
            for rare in counts
            if rare not in dominant
            for name in dominant
        )
