"""An executor whose jobs run on another machine, as in a cluster. It submits none."""

from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=True,
    auto_deploy_default_storage_provider=False,
)


class Executor(RemoteExecutor):
    """Submits nothing."""

    def __post_init__(self) -> None:
        """Nothing to prepare."""

    def run_job(self, job) -> None:
        raise NotImplementedError

    async def check_active_jobs(self, active_jobs):
        raise NotImplementedError
        yield

    def cancel_jobs(self, active_jobs) -> None:
        """There are none."""
