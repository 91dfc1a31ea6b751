rule deploy_to_desk:
    input:
        configs=cases("local", "config_infer_primary.txt"),
        parity=cases("local", "parity.json"),
        metrics=deployed_metrics,
        conversion=CONVERSION,
    output:
        benchmark="<results>/deployed/local/benchmark.json",
    log:
        "<logs>/deploy_local.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        releases=case_folders("local"),
        metrics=deployed_metrics_by_model(),
        measurement={"duration_s": config["deploy"]["local"]["duration_s"]},
        code=code_digest("deploy_local"),
    script:
        "../scripts/deploy_local.py"


rule deploy_local:
    input:
        targets("verify"),
        "<results>/deployed/local/benchmark.json",


# Asks the device itself, so it runs whenever a deployment is asked for, and never in a dry run. What
# hangs on a checkpoint is looked at again when that has run: a device that has all that its receipt
# says gives the reason of before, and neither push nor benchmark runs.
checkpoint check_device:
    output:
        "<results>/deployed/{device}/push_reason.json",
    log:
        "<logs>/check_device/{device}.log",
    # A device that is switched off is told before the training, not after it.
    priority: 100
    localrule: True
    conda:
        "../envs/workflow.yaml"
    resources:
        jetson=1,
    params:
        device=lambda wc: device_settings(wc.device),
        receipt=lambda wc: f"{config['results_dir']}/deployed/{wc.device}/receipt.json",
        now=time.time(),
        code=code_digest("check_device"),
    script:
        "../scripts/check_device.py"


rule push:
    input:
        reason="<results>/deployed/{device}/push_reason.json",
        configs=lambda wc: cases(wc.device, "config_infer_primary.txt"),
        parity=lambda wc: cases(wc.device, "parity.json"),
        conversion=CONVERSION,
    output:
        receipt="<results>/deployed/{device}/receipt.json",
    log:
        "<logs>/push/{device}.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    resources:
        jetson=1,
    params:
        device=lambda wc: device_settings(wc.device),
        folders=lambda wc: case_folders(wc.device),
        key_name=KEY_VARIABLE,
        code=code_digest("push"),
    script:
        "../scripts/push.py"


rule benchmark_device:
    input:
        receipt="<results>/deployed/{device}/receipt.json",
        reason="<results>/deployed/{device}/push_reason.json",
        metrics=deployed_metrics,
        conversion=CONVERSION,
    output:
        benchmark="<results>/deployed/{device}/benchmark.json",
        table=report(
            "<results>/deployed/{device}/benchmark.md",
            caption="../scripts/report/captions/benchmark.rst",
            category="Devices",
            labels={"device": "{device}"},
        ),
    log:
        "<logs>/benchmark_device/{device}.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    resources:
        jetson=1,
    params:
        device=lambda wc: device_settings(wc.device),
        metrics=deployed_metrics_by_model(),
        logs=lambda wc: f"{config['results_dir']}/deployed/{wc.device}/logs",
        code=code_digest("benchmark_device"),
    script:
        "../scripts/benchmark_device.py"


for device_name in DEVICES:

    rule:
        name:
            f"deploy_{device_name}"
        input:
            targets("verify"),
            f"<results>/deployed/{device_name}/receipt.json",
            f"<results>/deployed/{device_name}/benchmark.json",
        localrule: True

    rule:
        name:
            f"preflight_{device_name}"
        input:
            f"<results>/preflight/{device_name}.json",
        localrule: True


rule preflight_device:
    output:
        "<results>/preflight/{device}.json",
    log:
        "<logs>/preflight/{device}.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    resources:
        jetson=1,
    params:
        device=lambda wc: device_settings(wc.device),
        now=time.time(),
    script:
        "../scripts/preflight_device.py"
