"""How the rules run the configured toolkit: its program, container, key and stages."""


def command(task):
    """The toolkit's program for a task."""
    return TOOLKIT.tasks[task].command


def task_code(task):
    """Digest of the toolkit's own code behind a task; containers are named by their tag instead."""
    return TOOLKIT.image or code_digest(*TOOLKIT.tasks[task].modules)


def runner(task):
    """What stands before the program in the shell: how it gets into its container, with the key.

    A function for `params:` that takes `output` and so is not compared: docker or apptainer, the
    trained weights are the same.
    """
    return lambda wildcards, output: container.prefix(
        TOOLKIT,
        task,
        RUNNER,
        results=config["results_dir"],
        key_variable=KEY_VARIABLE,
    )


def logged(wildcards, output):
    """What stands before a program whose output goes to the terminal and to the log.

    It takes `output` and so is not compared, as `runner`.
    """
    if container_image():
        return f"bash {shlex.quote(template('scripts/tee.sh'))}"
    return "python -m detectnet_v2.tee"


def container_image():
    """The image that Snakemake enters for a toolkit's program, if it is to do that."""
    return container.image_of(TOOLKIT, RUNNER)


def toolkit_conda():
    """The environment of a toolkit's rules; a container that Snakemake enters has its own."""
    return None if container_image() else "../envs/workflow.yaml"


def uses_apptainer():
    """Whether Snakemake was told to enter containers (--sdm apptainer)."""
    settings = workflow.deployment_settings
    return settings is not None and any(
        str(method) == "apptainer" for method in settings.deployment_method
    )


def results_flag(task):
    """Where a task writes its reports, as its command line says it; empty where it writes none."""
    flag = TOOLKIT.tasks[task].results
    return lambda wildcards, output: (
        f"{flag} {shlex.quote(str(Path(output[0]).parent))}" if flag else ""
    )


def printed_file(wildcards, output):
    """The flag that takes what a task prints elsewhere besides the log; none with the native toolkit."""
    return f"--also {shlex.quote(output.text)}" if "text" in output.keys() else ""


def toolkit_ready():
    """The preflight of a toolkit that needs one, before each of its jobs; it is no reason to run."""
    return [] if TOOLKIT.is_native else ancient("<results>/preflight/toolkit.txt")


def stage_exists(stage):
    """No file: refuses, with one line, a stage that the toolkit cannot have."""

    def refuse(wildcards):
        if stage in TOOLKIT.missing:
            sys.exit(
                f"toolkit {config['toolkit']}: there is no {stage}: {TOOLKIT.missing[stage]}"
            )
        return []

    return refuse


def training_start(folder):
    """The mark that nothing of another training is left in the folder; native looks itself."""
    return [] if TOOLKIT.is_native else f"{folder}/start.json"
