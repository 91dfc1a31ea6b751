rule export_model:
    input:
        stage_exists("export to ONNX"),
        model=exported_model,
        spec="<results>/evaluate/fold0_spec.txt",
        conversion=CONVERSION,
        ready=toolkit_ready(),
    output:
        onnx="<results>/export/{model}/model.onnx",
        labels="<results>/export/{model}/labels.txt",
    log:
        "<logs>/export/{model}.log",
    conda:
        toolkit_conda()
    container:
        container_image()
    params:
        runner=runner("export"),
        command=command("export"),
        code=task_code("export"),
        options=TOOLKIT.tasks["export"].options.format(opset=export_opset()),
        note=opset_note(),
    shell:
        "echo {params.note:q} > {log:q} && rm -f {output.onnx:q} &&"
        " {params.runner}{params.command} -m {input.model:q} -e {input.spec:q}"
        " -o {output.onnx:q} {params.options} 2>&1 | tee -a {log:q}"


rule tune_clustering:
    input:
        stage_exists("tune_clustering"),
        onnx="<results>/export/{model}/model.onnx",
        fold0_spec="<results>/evaluate/fold0_spec.txt",
        val_spec=val_spec(),
        tfrecords=all_shards(),
        conversion=CONVERSION,
    output:
        "<results>/export/{model}/clustering.json",
    log:
        "<logs>/tune_clustering/{model}.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        search={"objective": config["export"]["clustering_objective"]},
        code=code_digest("tune_clustering"),
    script:
        "../scripts/tune_clustering.py"


rule clip:
    output:
        "<results>/clip.mp4",
    log:
        "<logs>/clip.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        size=drawn_clip_size(),
        seconds=config["deploy"]["local"]["drawn_clip"]["seconds"],
        code=code_digest("scenes.clip"),
    shell:
        "python -m scenes --clip {output:q} --clip-size {params.size}"
        " --seconds {params.seconds} --processes {threads} 2> {log:q}"


rule ds_config:
    input:
        stage_exists("ds_config"),
        onnx="<results>/export/{model}/model.onnx",
        clustering="<results>/export/{model}/clustering.json",
        templates=ds_templates(),
        clip=local_clip,
        conversion=CONVERSION,
    output:
        "<results>/deepstream/{device}/{model}-{engine}/config_infer_primary.txt",
        "<results>/deepstream/{device}/{model}-{engine}/app.txt",
        "<results>/deepstream/{device}/{model}-{engine}/app_video.txt",
        "<results>/deepstream/{device}/{model}-{engine}/labels.txt",
        "<results>/deepstream/{device}/{model}-{engine}/model.onnx",
    log:
        "<logs>/ds_config/{device}/{model}-{engine}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        settings=lambda wc: rendering_settings(wc.device),
        classes=CLASSES,
        templates=lambda wc: template("ds_configs"),
        code=code_digest("ds_config"),
    script:
        "../scripts/ds_config.py"


rule verify:
    input:
        stage_exists("verify"),
        config="<results>/deepstream/{device}/{model}-{engine}/config_infer_primary.txt",
        model=exported_model,
        spec="<results>/evaluate/fold0_spec.txt",
        clustering="<results>/export/{model}/clustering.json",
        metrics=toolkit_metrics,
        conversion=CONVERSION,
    output:
        "<results>/deepstream/{device}/{model}-{engine}/parity.json",
    log:
        "<logs>/verify/{device}/{model}-{engine}.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        max_parity_drop=config["export"]["max_parity_drop"],
        code=code_digest("verify"),
    script:
        "../scripts/verify.py"


rule export:
    input:
        targets("verify"),
