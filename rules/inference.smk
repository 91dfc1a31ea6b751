# What the recipe ends its training with: the toolkit's own detections, drawn.


rule inference:
    input:
        targets("choose_model"),
        spec="<results>/chosen/inference_spec.txt",
        model=f"<results>/chosen/{MODEL}",
        listing=f"<results>/kitti/{SPLITS[-1]}/listing.csv",
    output:
        directory("<results>/inference/images_annotated"),
        directory("<results>/inference/labels"),
    log:
        "<logs>/inference.log",
    conda:
        toolkit_conda()
    container:
        toolkit_container()
    threads: ALL_CORES
    resources:
        gpu=1,
    params:
        runner=runner("inference"),
        tee=logged,
        command=command("inference"),
        code=task_code("inference"),
        images=in_results(f"<results>/kitti/{SPLITS[-1]}/images"),
        results=results_flag("inference"),
    shell:
        "OMP_NUM_THREADS={threads} {params.tee} {log:q} {params.runner}{params.command}"
        " -e {input.spec:q} -i {params.images:q} {params.results}"
