rule prune:
    input:
        model=model_to_prune,
        conversion=converted("train"),
    output:
        **PRUNING_FILES,
        model=f"<results>/pruned/{{threshold}}/{MODEL}",
    log:
        "<logs>/prune/{threshold}.log",
    conda:
        toolkit_conda()
    container:
        toolkit_container()
    resources:
        gpu=0 if TOOLKIT.is_native else 1,
    params:
        runner=runner("prune"),
        tee=logged,
        command=command("prune"),
        code=task_code("prune"),
        settings=prune_flags(),
        amount=lambda wc: PRUNING[wc.threshold],
        results=results_flag("prune"),
        printed=printed_file,
    shell:
        "{params.tee} {params.printed} {log:q} {params.runner}{params.command}"
        " -m {input.model:q} -o {output.model:q}"
        " {params.amount} {params.settings} {params.results}"


rule retrain_spec:
    input:
        template=template("specs/experiment.txt"),
    output:
        "<results>/retrained/{threshold}/train_spec.txt",
    log:
        "<logs>/retrain_spec/{threshold}.log",
    params:
        classes=spec_classes(RETRAIN),
        network=network(),
        training=weight_settings(RETRAIN),
        # Not compared, as in train_spec.
        evaluation=lambda wc, output: evaluation_settings(RETRAIN),
        native=lambda wc, output: native_options(RETRAIN, teacher_file()),
        data=data_source(),
        model_file=lambda wc: [in_results(f"<results>/pruned/{wc.threshold}/{MODEL}")],
        load_graph=True,
    template_engine:
        "jinja2"


use rule train as retrain with:
    input:
        spec="<results>/retrained/{threshold}/train_spec.txt",
        tfrecords=first_shards("train"),
        start=f"<results>/pruned/{{threshold}}/{MODEL}",
        teacher=teacher_file(),
        conversion=converted("train"),
        clean=training_start("<results>/retrained/{threshold}"),
    output:
        model=f"<results>/retrained/{{threshold}}/weights/{MODEL}",
    log:
        "<logs>/retrain/{threshold}.log",
    benchmark:
        "<benchmarks>/retrain/{threshold}.tsv"
    resources:
        gpu=RETRAIN["gpus"],
        mem_mb=training_memory_mb(RETRAIN, RETRAIN["gpus"]),
    params:
        runner=runner("train"),
        tee=logged,
        command=command("train"),
        code=task_code("train"),
        gpus=RETRAIN["gpus"],
        folder=lambda wc, output: str(Path(output.model).parents[1]),
        name=Path(MODEL).stem,


rule choose_model:
    input:
        metrics=[f"<results>/{run}/evaluation/fold0/metrics.json" for run in RUNS],
        models=[f"<results>/{run}/weights/{MODEL}" for run in RUNS],
        conversion=converted("train"),
    output:
        metrics="<results>/chosen/metrics.json",
        choice="<results>/chosen/choice.json",
        table=report(
            "<results>/chosen/models.csv",
            caption="../scripts/report/captions/models.rst",
            category="Pruning",
            labels={"table": "all models"},
        ),
        model=f"<results>/chosen/{MODEL}",
    log:
        "<logs>/choose_model.log",
    conda:
        "../envs/workflow.yaml"
    params:
        runs=RUNS,
        max_map_drop=config["prune"]["max_map_drop"],
        code=code_digest("choose_model"),
    script:
        "../scripts/choose_model.py"


rule inference_spec:
    input:
        choice="<results>/chosen/choice.json",
        model=f"<results>/chosen/{MODEL}",
        curves=(
            [f"<results>/{run}/evaluation/fold0/precision_recall.csv" for run in RUNS]
            if TOOLKIT.is_native
            else []
        ),
        template=template("specs/inference.txt"),
        conversion=converted("train"),
    output:
        "<results>/chosen/inference_spec.txt",
    log:
        "<logs>/inference_spec.log",
    conda:
        "../envs/workflow.yaml"
    params:
        runs=RUNS,
        classes=CLASSES,
        network=network(),
        evaluation=inference_settings(),
        native={
            key: value
            for key, value in native_options(TRAIN).items()
            if key in EVALUATION_OPTIONS
        },
        confidence=(
            None if TOOLKIT.is_native else config["inference"]["confidence_threshold"]
        ),
        confidence_in_clustering=TOOLKIT.confidence_in_clustering,
    script:
        "../scripts/inference_spec.py"
