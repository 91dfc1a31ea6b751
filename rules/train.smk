# A program and not a script, whose text Snakemake compares: another comment there would fetch the same
# weights and train again. The codec, likewise, does not change what it decrypts.
rule pretrained:
    input:
        first_weights,
        codec=ancient(
            ["<results>/codec/environment.json"]
            if needs_codec(TRAIN["pretrained"])
            else []
        ),
    output:
        "<results>/pretrained/weights{suffix}",
    log:
        "<logs>/pretrained/weights{suffix}.log",
    # What is wrong with a download shows before the data is converted.
    priority: 100
    conda:
        "../envs/workflow.yaml"
    params:
        source=json.dumps(TRAIN["pretrained"], sort_keys=True),
        content=pretrained_content(),
    shell:
        "python -m detectnet_v2.tee {log:q} python -m pretrained {params.source:q} {output:q}"
        " {input.codec:q}"


rule train_spec:
    input:
        template=template("specs/experiment.txt"),
    output:
        "<results>/unpruned/train_spec.txt",
    log:
        "<logs>/train_spec.log",
    params:
        classes=spec_classes(TRAIN),
        network=network(),
        training=weight_settings(TRAIN),
        # Taking `output` keeps these from being compared: only a change of the weights trains again.
        evaluation=lambda wc, output: evaluation_settings(TRAIN),
        native=lambda wc, output: native_options(TRAIN),
        data=data_source(),
        model_file=[in_results(path) for path in pretrained_file()],
        load_graph=False,
    template_engine:
        "jinja2"


rule train:
    input:
        spec="<results>/unpruned/train_spec.txt",
        tfrecords=shards("train"),
        start=pretrained_file(),
        conversion=converted("train"),
        clean=training_start("<results>/unpruned"),
    output:
        model=f"<results>/unpruned/weights/{MODEL}",
    log:
        "<logs>/train/unpruned.log",
    benchmark:
        "<benchmarks>/train/unpruned.tsv"
    conda:
        toolkit_conda()
    container:
        toolkit_container()
    threads: ALL_CORES
    resources:
        gpu=TRAIN["gpus"],
        mem_mb=training_memory_mb(TRAIN, TRAIN["gpus"]),
    params:
        runner=runner("train"),
        tee=logged,
        command=command("train"),
        code=task_code("train"),
        gpus=TRAIN["gpus"],
        folder=lambda wc, output: str(Path(output.model).parents[1]),
        name=Path(MODEL).stem,
    shell:
        "OMP_NUM_THREADS={threads} {params.tee} {log:q} {params.runner}{params.command}"
        " -e {input.spec:q} -r {params.folder:q} -n {params.name} --gpus {params.gpus}"


rule evaluate_spec:
    input:
        template=template("specs/experiment.txt"),
    output:
        "<results>/evaluate/{subset}_spec.txt",
    log:
        "<logs>/evaluate_spec/{subset}.log",
    params:
        classes=spec_classes(TRAIN),
        network=network(),
        training=weight_settings(TRAIN),
        figures=figure_settings(),
        options=without(native_options(TRAIN), SPEED_OPTIONS),
        # Taking `output` keeps these from being compared: what of them changes a figure stands above.
        evaluation=lambda wc, output: evaluation_settings(TRAIN),
        native=lambda wc, output: native_options(TRAIN),
        data=lambda wc: data_source(wc.subset),
        model_file=[],
        load_graph=False,
    template_engine:
        "jinja2"


rule evaluate:
    input:
        spec="<results>/evaluate/{subset}_spec.txt",
        model=f"<results>/{{run}}/weights/{MODEL}",
        tfrecords=lambda wc: first_shards(*evaluated_splits(wc)),
        conversion=lambda wc: converted(*evaluated_splits(wc)),
    output:
        **EVALUATION_FILES,
    log:
        "<logs>/evaluate/{run}/{subset}.log",
    conda:
        toolkit_conda()
    container:
        toolkit_container()
    threads: ALL_CORES
    resources:
        gpu=1,
        mem_mb=training_memory_mb(TRAIN),
    params:
        runner=runner("evaluate"),
        tee=logged,
        command=command("evaluate"),
        code=task_code("evaluate"),
        results=results_flag("evaluate"),
        printed=printed_file,
    shell:
        "OMP_NUM_THREADS={threads} {params.tee} {params.printed} {log:q}"
        " {params.runner}{params.command} -e {input.spec:q} -m {input.model:q} {params.results}"
