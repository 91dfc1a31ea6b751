rule export_model:
    input:
        stage_exists("export to ONNX"),
        model=exported_model,
        spec="<results>/evaluate/fold0_spec.txt",
        conversion=converted("train"),
    output:
        onnx="<results>/export/{model}/model.onnx",
        labels="<results>/export/{model}/labels.txt",
    log:
        "<logs>/export/{model}.log",
    conda:
        toolkit_conda(EXPORTER)
    container:
        toolkit_container(EXPORTER)
    resources:
        gpu=0 if EXPORTER.is_native else 1,
    params:
        runner=runner("export", EXPORTER),
        tee=lambda wc, output: logged(wc, output, EXPORTER),
        command=command("export", EXPORTER),
        code=task_code("export", EXPORTER),
        options=EXPORTER.tasks["export"].options.format(opset=export_opset()),
        note=opset_note(),
    shell:
        "echo {params.note:q} > {log:q} && rm -f {output.onnx:q} &&"
        " {params.tee} --append {log:q}"
        " {params.runner}{params.command} -m {input.model:q} -e {input.spec:q}"
        " -o {output.onnx:q} {params.options}"


rule codec:
    input:
        requirements=template("envs/codec.txt"),
    output:
        "<results>/codec/environment.json",
    log:
        "<logs>/codec.log",
    # It needs nothing that comes before, so that a failing installation shows before training.
    priority: 100
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        licence_accepted=config["export"]["accept_nvidia_eff_licence"],
        python=config["export"]["codec_python"],
        code=code_digest("install_codec"),
    script:
        "../scripts/install_codec.py"


# NVIDIA's toolkits before TAO 5 export an .etlt of their own.
if TOOLKIT.export_suffix == ".onnx":

    rule etlt:
        input:
            onnx="<results>/export/{model}/model.onnx",
            codec="<results>/codec/environment.json",
            conversion=converted("train"),
        output:
            "<results>/export/{model}/model.etlt",
        log:
            "<logs>/etlt/{model}.log",
        conda:
            "../envs/workflow.yaml"
        params:
            code=code_digest("encrypt_model"),
        script:
            "../scripts/encrypt_model.py"


rule calibration_spec:
    input:
        template=template("specs/experiment.txt"),
    output:
        "<results>/calibration/spec.txt",
    log:
        "<logs>/calibration_spec.log",
    params:
        classes=spec_classes(TRAIN),
        network=network(),
        training=weight_settings(TRAIN)
        | {"batch_size": config["export"]["calibration"]["batch_size"]},
        # Not compared: nothing of it chooses images.
        evaluation=lambda wc, output: evaluation_settings(TRAIN),
        data=data_source(),
        model_file=[],
        load_graph=False,
        native={},
    template_engine:
        "jinja2"


rule calibration_tensorfile:
    input:
        spec="<results>/calibration/spec.txt",
        tfrecords=shards("train"),
        conversion=converted("train"),
    output:
        "<results>/calibration/images.tensorfile",
    log:
        "<logs>/calibration_tensorfile.log",
    conda:
        "../envs/workflow.yaml"
    params:
        batches=config["export"]["calibration"]["batches"],
        code=code_digest("detectnet_v2.tensorfile"),
    shell:
        "python -m detectnet_v2.tee {log:q} python -m detectnet_v2 calibration_tensorfile"
        " -e {input.spec:q} -o {output:q} -m {params.batches}"


rule calibrate:
    input:
        stage_exists("calibrate"),
        onnx="<results>/export/{model}/model.onnx",
        images="<results>/calibration/images.tensorfile",
        conversion=converted("train"),
    output:
        [
            f"<results>/export/{{model}}/calibration.trt{version}.bin"
            for version in CALIBRATED
        ],
        report="<results>/export/{model}/calibration.json",
    log:
        "<logs>/calibrate/{model}.log",
    benchmark:
        "<benchmarks>/calibrate/{model}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        settings=config["export"]["calibration"],
        folder=lambda wc, output: str(Path(output.report).parent),
        versions=CALIBRATED,
        code=code_digest("detectnet_v2.calibrate"),
    shell:
        "python -m detectnet_v2.tee {log:q}"
        " python -m detectnet_v2 calibrate -m {input.onnx:q} --cal_data_file {input.images:q}"
        " --batches {params.settings[batches]} --batch_size {params.settings[batch_size]}"
        " --calibration_method {params.settings[method]} --results_dir {params.folder:q}"
        " -o {params.folder:q}/'calibration.trt{{version}}.bin' --trt_version {params.versions}"


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


rule judge_int8:
    input:
        stage_exists("judge_int8"),
        onnx="<results>/export/{model}/model.onnx",
        # The scales are the same for every TensorRT.
        calibration=lambda wc: [
            f"<results>/export/{wc.model}/calibration.trt{version}.bin"
            for version in CALIBRATED[:1]
        ],
        spec="<results>/evaluate/fold0_spec.txt",
        clustering="<results>/export/{model}/clustering.json",
        templates=ds_templates(),
        conversion=CONVERSION,
    output:
        "<results>/export/{model}/int8.json",
    log:
        "<logs>/judge_int8/{model}.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        max_int8_drop=config["export"]["max_int8_drop"],
        classes=CLASSES,
        templates=lambda wc: template("ds_configs"),
        code=code_digest("judge_int8"),
    script:
        "../scripts/judge_int8.py"


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
        etlt=etlt_for,
        calibration=calibration_for,
        int8=judgement_for,
        conversion=CONVERSION,
    output:
        "<results>/deepstream/{device}/{model}-{engine}/config_infer_primary.txt",
        "<results>/deepstream/{device}/{model}-{engine}/app.txt",
        "<results>/deepstream/{device}/{model}-{engine}/app_video.txt",
        "<results>/deepstream/{device}/{model}-{engine}/labels.txt",
        "<results>/deepstream/{device}/{model}-{engine}/model.onnx",
    log:
        "<logs>/ds_config/{device}/{model}-{engine}.log",
    wildcard_constraints:
        device="|".join(
            name for name in ["local", *DEVICES] if name not in ETLT_DEVICES
        ),
    conda:
        "../envs/workflow.yaml"
    params:
        settings=lambda wc: rendering_settings(wc.device),
        classes=CLASSES,
        templates=lambda wc: template("ds_configs"),
        code=code_digest("ds_config"),
    script:
        "../scripts/ds_config.py"


# The same for the devices that get an .etlt. A calibration cache is no output of either: a device whose
# INT8 loses too much has none.
if ETLT_DEVICES:

    use rule ds_config as ds_config_etlt with:
        output:
            "<results>/deepstream/{device}/{model}-{engine}/config_infer_primary.txt",
            "<results>/deepstream/{device}/{model}-{engine}/app.txt",
            "<results>/deepstream/{device}/{model}-{engine}/app_video.txt",
            "<results>/deepstream/{device}/{model}-{engine}/labels.txt",
            "<results>/deepstream/{device}/{model}-{engine}/model.etlt",
        wildcard_constraints:
            device="|".join(ETLT_DEVICES),


rule verify:
    input:
        stage_exists("verify"),
        config="<results>/deepstream/{device}/{model}-{engine}/config_infer_primary.txt",
        model=exported_model,
        spec="<results>/evaluate/fold0_spec.txt",
        clustering="<results>/export/{model}/clustering.json",
        metrics=toolkit_metrics,
        codec=lambda wc: codec_for(wc.device),
        int8=judgement_for,
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
