"""From raw face datasets to a pruned, exported and measured DetectNet_v2.

Files lie under <results>/<stage>/<wildcards>/, logs under <results>/logs/<rule>/<wildcards>.log.
The first five includes hold functions, the others rules; the settings are in config/config.yaml.
"""

import os

from snakemake.utils import min_version

min_version("9.27")


# A folder elsewhere may have settings of its own; the checkout's are for one without.
SETTINGS = "config/config.yaml"
if not os.path.exists(SETTINGS):
    SETTINGS = os.path.join(workflow.basedir, SETTINGS)


configfile: SETTINGS


include: "rules/common.smk"
include: "rules/toolkit.smk"
include: "rules/specs.smk"
include: "rules/release.smk"
include: "rules/targets.smk"


report: "scripts/report/captions/workflow.rst"


pathvars:
    results=config["results_dir"],
    logs=os.path.join(config["results_dir"], "logs"),
    benchmarks=os.path.join(config["results_dir"], "benchmarks"),


# Hooks and no jobs: a job would be a reason to run for all that come after it.
onstart:
    check_toolkit(workflow.dag.needrun_jobs())
    check_etlt(workflow.dag.needrun_jobs())


wildcard_constraints:
    split="train|val",
    dataset="|".join(config["datasets"]),
    threshold="|".join(map(re.escape, THRESHOLDS)),
    run=r"unpruned|retrained/[^/]+",
    subset="fold0|val",
    model="unpruned|chosen",
    engine="gpu|dla0|dla1",
    device="|".join(["local", *DEVICES]),


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/prune.smk"


if not TOOLKIT.is_native:

    include: "rules/nvidia.smk"


include: "rules/inference.smk"
include: "rules/export.smk"
include: "rules/deploy.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        targets("report"),
