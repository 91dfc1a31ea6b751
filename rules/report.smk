rule make_report:
    input:
        targets("check_labels"),
    output:
        html="<results>/report.html",
        figures=directory("<results>/report"),
    log:
        "<logs>/report.log",
    conda:
        "../envs/workflow.yaml"
    params:
        results=lambda wc: config["results_dir"],
        config=config,
        devices=device_results(),
        code=code_digest("make_report"),
    script:
        "../scripts/make_report.py"


rule report:
    input:
        targets("report"),


rule check_labels:
    input:
        targets("check_labels"),
