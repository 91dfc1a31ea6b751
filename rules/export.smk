rule export:
    input:
        model=exported_model,
        spec=after_conversion("<results>/evaluate/fold0_spec.txt"),
    output:
        onnx="<results>/export/{model}/model.onnx",
        labels="<results>/export/{model}/labels.txt",
    log:
        "<logs>/export/{model}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        command=command("export"),
        code=task_code("export"),
        opset=config["export"]["opset"],
    shell:
        "{params.command} -m {input.model:q} -e {input.spec:q} -o {output.onnx:q}"
        " --target_opset {params.opset} --gen_ds_config 2>&1 | tee {log:q}"
