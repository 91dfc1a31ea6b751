"""What the workflow knows of each toolkit: commands, flags, suffixes, image, key and stages."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Task:
    """One task of a toolkit.

    command: program and words; `-d`, `-e`, `-m` and `-o` mean the same in every toolkit.
    results: the flag for a folder of reports (status.json, ...); None where there is none.
    takes_key: whether the program knows `-k`.
    options: flags that the workflow's call has besides, templates of {opset}.
    modules: modules under scripts/ behind it, digested to notice changed code; none in a container.
    """

    command: str
    results: str | None = None
    takes_key: bool = True
    options: str = ""
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Toolkit:
    """One implementation of the `detectnet_v2` command line.

    tasks: by name.
    model_suffix: what trained and pruned models are called.
    export_suffix: what exported models are called.
    image: NVIDIA's container; None runs on the host.
    key: whether models are encrypted: "none", "optional" (only to read older ones) or "required".
    whole_min_samples: the spec's dbscan_min_samples is an int32, as in TAO.
    confidence_in_clustering: inference calls its threshold dbscan_confidence_threshold, in
        clustering_config, as in TAO; else confidence_threshold, beside it.
    whole_split: val_split, percent, of a split that stays in one piece.
    missing: stages that it cannot have, with the reason and what to do instead.
    """

    tasks: dict[str, Task]
    model_suffix: str
    export_suffix: str
    image: str | None = None
    key: str = "none"
    whole_min_samples: bool = False
    confidence_in_clustering: bool = False
    whole_split: int = 0
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def is_native(self) -> bool:
        """Whether it is this project's own."""
        return self.image is None

    def decrypts(self, licence_accepted: bool) -> bool:
        """Whether NVIDIA's codec opens its models, which the native toolkit then exports."""
        return self.export_suffix == ".etlt" and licence_accepted

    def lacks(self, licence_accepted: bool) -> dict[str, str]:
        """The stages that there cannot be, with the reason, by whether the codec may be used."""
        return {} if self.decrypts(licence_accepted) else self.missing

    def min_samples(self, value: float) -> float | int:
        """`dbscan_min_samples` as the dialect has it: coverage, or whole cells, at least one.

        TAO parses no fraction there, and its evaluation raises what is below one to one.
        """
        return max(int(value), 1) if self.whole_min_samples else value


def _native(module: str, **more: str) -> Task:
    return Task(f"python -m detectnet_v2 {module}", modules=(f"detectnet_v2.{module}",), **more)


def _tao(task: str, **more: str | bool) -> Task:
    return Task(f"detectnet_v2 {task}", **more)


ONNX_EXPORT = "--target_opset {opset} --gen_ds_config"
UFF = (
    "its export is UFF inside an .etlt, which only TensorRT before 10 reads and nothing on this "
    "computer runs; the toolkits tao5 and native export ONNX"
)
DESK_STAGES = ("etlt", "calibrate", "tune_clustering", "judge_int8", "ds_config", "verify")
NO_DESK = {"export to ONNX": UFF} | dict.fromkeys(DESK_STAGES, UFF)

TOOLKITS = {
    "native": Toolkit(
        tasks={
            "dataset_convert": _native("dataset_convert", results="-r"),
            "train": _native("train", results="-r"),
            "evaluate": _native("evaluate", results="-r"),
            "prune": _native("prune", results="--results_dir"),
            "inference": _native("inference", results="-r"),
            "export": _native("export", options=ONNX_EXPORT),
        },
        model_suffix=".hdf5",
        export_suffix=".onnx",
    ),
    "tlt2": Toolkit(
        tasks={
            "dataset_convert": Task("tlt-dataset-convert", takes_key=False),
            "train": Task("tlt-train detectnet_v2", results="-r"),
            "evaluate": Task("tlt-evaluate detectnet_v2"),
            "prune": Task("tlt-prune"),
            "inference": Task("tlt-infer detectnet_v2", results="-o"),
            "export": Task("tlt-export detectnet_v2"),
        },
        model_suffix=".tlt",
        export_suffix=".etlt",
        image="nvcr.io/nvidia/tlt-streamanalytics:v2.0_py3",
        key="required",
        # Its converter is not known to skip an empty fold; the recipe's own value fills fold 0.
        whole_split=100,
        missing=NO_DESK,
    ),
    "tao4": Toolkit(
        tasks={
            "dataset_convert": _tao("dataset_convert", takes_key=False),
            "train": _tao("train", results="-r"),
            "evaluate": _tao("evaluate"),
            "prune": _tao("prune"),
            "inference": _tao("inference", results="-r"),
            "export": _tao("export"),
        },
        model_suffix=".tlt",
        export_suffix=".etlt",
        image="nvcr.io/nvidia/tao/tao-toolkit:4.0.0-tf1.15.5",
        key="required",
        whole_min_samples=True,
        confidence_in_clustering=True,
        missing=NO_DESK,
    ),
    "tao5": Toolkit(
        tasks={
            "dataset_convert": _tao("dataset_convert", results="-r", takes_key=False),
            "train": _tao("train", results="-r"),
            "evaluate": _tao("evaluate", results="-r"),
            "prune": _tao("prune", results="--results_dir"),
            "inference": _tao("inference", results="-r"),
            "export": _tao("export", options=ONNX_EXPORT),
        },
        model_suffix=".hdf5",
        export_suffix=".onnx",
        image="nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5",
        key="optional",
        whole_min_samples=True,
        confidence_in_clustering=True,
    ),
}
