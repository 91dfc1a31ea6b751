# What NVIDIA's toolkits need besides: a look at the machine first, and their printed figures read.


# A program and not a script, whose text Snakemake compares: another comment there is no reason to throw
# checkpoints away.
rule start_training:
    input:
        spec="<results>/unpruned/train_spec.txt",
        tfrecords=first_shards("train"),
        start=pretrained_file(),
        conversion=converted("train"),
    output:
        "<results>/unpruned/start.json",
    log:
        "<logs>/start_training/unpruned.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        toolkit=TOOLKIT.image,
    shell:
        "python -m start_training {params.toolkit:q} {output:q} > {log:q} 2>&1"


use rule start_training as start_retraining with:
    input:
        spec="<results>/retrained/{threshold}/train_spec.txt",
        tfrecords=first_shards("train"),
        start=f"<results>/pruned/{{threshold}}/{MODEL}",
        conversion=converted("train"),
    output:
        "<results>/retrained/{threshold}/start.json",
    log:
        "<logs>/start_training/{threshold}.log",


rule pruning_summary:
    input:
        text="<results>/pruned/{threshold}/prune.txt",
        before=model_to_prune,
        after=f"<results>/pruned/{{threshold}}/{MODEL}",
        conversion=converted("train"),
    output:
        "<results>/pruned/{threshold}/pruning.json",
    log:
        "<logs>/pruning_summary/{threshold}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        settings=lambda wc: {
            "threshold": float(wc.threshold),
            "normalizer": config["prune"]["normalizer"],
            "equalization_criterion": config["prune"]["equalization"],
            "pruning_granularity": config["prune"]["granularity"],
            "min_num_filters": config["prune"]["min_filters"],
        },
        code=code_digest("pruning_summary"),
    script:
        "../scripts/pruning_summary.py"


rule evaluation_metrics:
    input:
        text="<results>/{run}/evaluation/{subset}/evaluate.txt",
        model=f"<results>/{{run}}/weights/{MODEL}",
        pruned=prunings,
        conversion=lambda wc: converted(*evaluated_splits(wc)),
    output:
        "<results>/{run}/evaluation/{subset}/metrics.json",
    log:
        "<logs>/evaluation_metrics/{run}/{subset}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        classes=CLASSES,
        network=(TRAIN["num_layers"], *network().values()),
        status=lambda wc: in_results(f"<results>/{wc.run}/status.json"),
        code=code_digest("evaluation_metrics"),
    script:
        "../scripts/evaluation_metrics.py"


if TOOLKIT.export_suffix == ".etlt":

    rule decrypt_model:
        input:
            model=toolkit_model,
            codec="<results>/codec/environment.json",
            conversion=converted("train"),
        output:
            "<results>/decrypted/{model}.hdf5",
        log:
            "<logs>/decrypt_model/{model}.log",
        localrule: True
        conda:
            "../envs/workflow.yaml"
        params:
            code=code_digest("decrypt_model"),
        script:
            "../scripts/decrypt_model.py"

    rule export_uff:
        input:
            model=toolkit_model,
            conversion=converted("train"),
        output:
            etlt="<results>/export/{model}/model.etlt",
            labels="<results>/export/{model}/labels.txt",
        log:
            "<logs>/export/{model}.log",
        conda:
            toolkit_conda()
        container:
            toolkit_container()
        resources:
            gpu=1,
        params:
            runner=runner("export"),
            tee=logged,
            command=command("export"),
            code=task_code("export"),
            classes=CLASSES,
        shell:
            "rm -f {output.etlt:q} &&"
            " {params.tee} {log:q} {params.runner}{params.command}"
            " -m {input.model:q} -o {output.etlt:q}"
            " && printf '%s\\n' {params.classes:q} > {output.labels:q}"
