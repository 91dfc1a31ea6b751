rule index:
    input:
        raw_data,
    output:
        "<results>/index/{split}/{dataset}.csv",
    log:
        "<logs>/index/{split}/{dataset}.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        dataset=dataset_of,
        classes=CLASSES,
        raw=raw_fingerprint,
        max_bad_fraction=config["max_bad_fraction"],
        code=code_digest("index"),
    script:
        "../scripts/index.py"


rule group_duplicates:
    input:
        indexes=indexes,
    output:
        "<results>/index/{split}/groups.csv",
    log:
        "<logs>/group_duplicates/{split}.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        roots=lambda wc: {
            name: config["datasets"][name]["root"] for name in datasets_of(wc.split)
        },
        enabled=config["duplicates"]["enabled"],
        max_distance=config["duplicates"]["max_distance"],
        min_correlation=config["duplicates"]["min_correlation"],
        raw=raw_fingerprints,
        code=code_digest("group_duplicates"),
    script:
        "../scripts/group_duplicates.py"


checkpoint choose_faces:
    input:
        indexes=indexes,
        groups="<results>/index/{split}/groups.csv",
    output:
        selection="<results>/selection/{split}.csv",
        counts=report(
            "<results>/selection/{split}.counts.csv",
            caption="../scripts/report/captions/counts.rst",
            category="Data",
            labels={"split": "{split}"},
        ),
    log:
        "<logs>/choose_faces/{split}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        classes=CLASSES,
        category_limit=config["category_limit"],
        image_folders=image_folders,
        val_percent=lambda wc: fold_0_percent(wc.split),
        max_bad_fraction=config["max_bad_fraction"],
        code=code_digest("choose_faces"),
    script:
        "../scripts/choose_faces.py"


checkpoint kitti:
    input:
        selection="<results>/selection/{split}.csv",
    output:
        manifest="<results>/kitti/{split}/{dataset}.manifest.csv",
    log:
        "<logs>/kitti/{split}/{dataset}.log",
    conda:
        "../envs/workflow.yaml"
    threads: ALL_CORES
    params:
        root=lambda wc: config["datasets"][wc.dataset]["root"],
        raw=raw_fingerprint,
        # One param: Snakemake compares the values of params without their names, so that of two numbers
        # nobody would notice that they have changed places.
        picture={
            "width": config["image_width"],
            "height": config["image_height"],
            "quality": config["jpeg_quality"],
        },
        max_bad_fraction=config["max_bad_fraction"],
        code=code_digest("kitti"),
    script:
        "../scripts/kitti.py"


# A program and not a script, whose text Snakemake compares: another comment there would train again.
rule kitti_listing:
    input:
        manifests=manifests,
        conversion=lambda wc: converted(wc.split),
    output:
        "<results>/kitti/{split}/listing.csv",
    log:
        "<logs>/kitti_listing/{split}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        code=code_digest("kitti_listing"),
    shell:
        "python -m kitti_listing {log:q} {output:q} {input.manifests:q}"


rule tfrecords_spec:
    input:
        template=template("specs/tfrecords.txt"),
    output:
        "<results>/tfrecords/{split}_spec.txt",
    log:
        "<logs>/tfrecords_spec/{split}.log",
    params:
        root=lambda wc: f"{config['results_dir']}/kitti/{wc.split}",
        # One param, as in kitti.
        division=lambda wc: {
            "val_split": (
                config["tfrecords"]["val_split"]
                if wc.split == "train"
                else TOOLKIT.whole_split
            ),
            "num_shards": config["tfrecords"]["num_shards"],
        },
    template_engine:
        "jinja2"


rule tfrecords:
    input:
        spec="<results>/tfrecords/train_spec.txt",
        listing="<results>/kitti/train/listing.csv",
        conversion=converted("train"),
    output:
        shards("train"),
    log:
        "<logs>/tfrecords/train.log",
    conda:
        toolkit_conda()
    container:
        toolkit_container()
    params:
        runner=runner("dataset_convert"),
        command=command("dataset_convert"),
        code=task_code("dataset_convert"),
        prefix=lambda wc, output: output[0].rpartition("-fold-")[0],
    # Shards of another number of shards would be read as well.
    shell:
        "rm -f {params.prefix:q}-fold-* &&"
        " {params.runner}{params.command} -d {input.spec:q} -o {params.prefix:q}"
        " > {log:q} 2>&1"


use rule tfrecords as tfrecords_val with:
    input:
        spec="<results>/tfrecords/val_spec.txt",
        listing="<results>/kitti/val/listing.csv",
        conversion=converted("val"),
    output:
        shards("val"),
    log:
        "<logs>/tfrecords/val.log",


rule label_sheet:
    input:
        manifest="<results>/kitti/{split}/{dataset}.manifest.csv",
        conversion=lambda wc: converted(wc.split),
    output:
        report(
            "<results>/check_labels/{split}/{dataset}.jpg",
            caption="../scripts/report/captions/check_labels.rst",
            category="Labels",
            labels={"dataset": "{dataset}", "split": "{split}"},
        ),
    log:
        "<logs>/check_labels/{split}/{dataset}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        classes=CLASSES,
        code=code_digest("check_labels"),
    script:
        "../scripts/check_labels.py"
