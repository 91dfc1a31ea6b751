"""How the rules run the configured toolkit: its program, container, key and stages."""

from snakemake.settings.types import ExecMode
from toolkits import container, preflight

# The rules that run the toolkit's programs.
TOOLKIT_RULES = {
    *("tfrecords", "tfrecords_val", "train", "retrain", "evaluate", "prune"),
    *("export_uff", "inference"),
    *([] if EXPORTER.is_native else ["export_model"]),
}


def command(task, toolkit=TOOLKIT):
    """The toolkit's program for a task."""
    return toolkit.tasks[task].command


def task_code(task, toolkit=TOOLKIT):
    """Digest of the toolkit's own code behind a task; containers are named by their tag instead."""
    return toolkit.image or code_digest(*toolkit.tasks[task].modules)


def runner(task, toolkit=TOOLKIT):
    """What stands before the program in the shell: how it gets into its container, with the key.

    A function for `params:` that takes `output` and so is not compared: docker or apptainer, the
    trained weights are the same.
    """
    return lambda wildcards, output: container.prefix(
        toolkit,
        task,
        RUNNER,
        results=config["results_dir"],
        key_variable=KEY_VARIABLE,
    )


def logged(wildcards, output, toolkit=TOOLKIT):
    """What stands before a program whose output goes to the terminal and to the log.

    It takes `output` and so is not compared, as `runner`.
    """
    if container_image(toolkit):
        return f"bash {shlex.quote(template('scripts/tee.sh'))}"
    return "python -m detectnet_v2.tee"


def container_image(toolkit=TOOLKIT):
    """The image that Snakemake enters for a toolkit's program, if it is to do that."""
    return container.image_of(toolkit, RUNNER)


def toolkit_container(toolkit=TOOLKIT):
    """The same for `container:`, with a look at the machine before Snakemake pulls many GB.

    Snakemake pulls before `onstart`, whether or not a job of the container will run.
    """
    image = container_image(toolkit)

    def checked(wildcards):
        is_run = workflow.executor_plugin and not workflow.dryrun and not workflow.touch
        if is_run and workflow.exec_mode == ExecMode.DEFAULT and uses_apptainer():
            folder = Path(workflow.persistence.container_img_path)
            name = hashlib.md5(image.encode(), usedforsecurity=False).hexdigest()
            if not (folder / f"{name}.simg").exists():
                check_machine()
        return image

    return image and checked


def uses_apptainer():
    """Whether Snakemake was told to enter containers."""
    methods = workflow.deployment_settings.deployment_method
    return "apptainer" in map(str, methods)


def toolkit_conda(toolkit=TOOLKIT):
    """The environment of a toolkit's rules; a container that Snakemake enters has its own."""
    return None if container_image(toolkit) else "../envs/workflow.yaml"


def results_flag(task):
    """Where a task writes its reports, as its command line says it; empty where it writes none."""
    flag = TOOLKIT.tasks[task].results
    return lambda wildcards, output: (
        f"{flag} {shlex.quote(str(Path(output[0]).parent))}" if flag else ""
    )


def printed_file(wildcards, output):
    """The flag that takes what a task prints elsewhere besides the log; none with the native toolkit."""
    return f"--also {shlex.quote(output.text)}" if "text" in output.keys() else ""


def check_toolkit(jobs):
    """Stop a run that needs NVIDIA's programs with a line for each thing that is missing.

    Only the process that the user started looks, and not when nothing but other rules will run.
    """
    planned = {job.rule.name for job in jobs}
    if workflow.exec_mode == ExecMode.DEFAULT and planned & TOOLKIT_RULES:
        check_machine()


@cache
def check_machine():
    """Stop with a line for each thing that the toolkit's runner misses here.

    Where another machine runs the jobs, as in a cluster, only the key is looked for.
    """
    found = preflight.problems(
        TOOLKIT,
        RUNNER,
        key_variable=KEY_VARIABLE,
        environment=os.environ,
        uses_apptainer=uses_apptainer(),
        runs_here=workflow.local_exec,
    )
    if found:
        sys.exit("\n".join(f"toolkit {config['toolkit']}: {line}" for line in found))


def stage_exists(stage):
    """No file: refuses, with one line, a stage that the toolkit cannot have."""

    def refuse(wildcards):
        if stage in MISSING_STAGES:
            sys.exit(
                f"toolkit {config['toolkit']}: there is no {stage}: {MISSING_STAGES[stage]}"
            )
        return []

    return refuse


def training_start(folder):
    """The mark that nothing of another training is left in the folder; native looks itself."""
    return [] if TOOLKIT.is_native else f"{folder}/start.json"
