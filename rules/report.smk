rule make_report:
    input:
        targets("verify"),
        templates=report_templates(),
    output:
        html=report(
            "<results>/report.html",
            caption="../scripts/report/captions/page.rst",
            category="Report",
            labels={"page": "the whole run"},
        ),
        figures=report(
            directory("<results>/report"),
            patterns=["{figure}.svg"],
            caption="../scripts/report/captions/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
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


rule watch:
    log:
        "<logs>/watch.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        results=lambda wc: config["results_dir"],
    script:
        "../scripts/watch.py"
