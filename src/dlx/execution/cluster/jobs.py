"""Workers that a job scheduler starts, by dask-jobqueue: what each job asks for, and why one could not be submitted."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
from distributed import Security
from distributed.deploy.spec import ProcessInterface

from dlx.execution.cluster.spec import JobScheduler, JobSection
from dlx.system.errors import SettingError, root_cause
from dlx.system.files import write_atomically

# dask starts its HTTP server in any case; on the usual port it would warn of another user's
NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
REPLACE_EVERY_S = 30.0
LOST_AFTER_S = 120  # a nanny may have to import torch from a slow disk before its new worker is there
SHORT_S = 600.0  # a job that ends before did not reach its walltime
MAX_SHORT = 3  # for each worker, before jobs are no longer replaced


@dataclass
class Jobs:
    """A cluster whose workers are jobs. `errors` has a line for each job, by its name, that could not be submitted."""

    cluster: Any = None  # dask_jobqueue.JobQueueCluster, which has no types
    errors: dict[str, str] = field(default_factory=dict)
    num_short: int = 0  # jobs that ended soon after they had started


@contextmanager
def started_jobs(jobs: JobScheduler, section: JobSection, tell: Callable[[str], None]) -> Iterator[Jobs]:
    """Starts a dask scheduler here and submits a job for each worker; submits another one for each that has ended.

    SettingError if a package is missing or the scheduler cannot be started. At the end all jobs are cancelled.
    """
    try:
        import dask_jobqueue
    except ImportError:
        raise SettingError(f"--cluster {jobs} needs dask-jobqueue: pip install 'dlx[dask]'") from None
    dask.config.set({"distributed.deploy.lost-worker-timeout": LOST_AFTER_S})
    kind, started = getattr(dask_jobqueue, f"{jobs.upper()}Cluster"), Jobs()
    os.makedirs(section.log_directory, exist_ok=True)
    with encrypted(section) as security:
        try:
            started.cluster = kind(**job_options(jobs, section), **security, job_cls=_noting(kind.job_cls, started))
        except (RuntimeError, ValueError) as error:
            raise SettingError(f"--cluster {jobs}: the scheduler cannot be started: {root_cause(error)}") from None
        is_over = threading.Event()
        started.cluster.scale(jobs=section.workers)
        keeper = threading.Thread(target=_replace, args=(started, section.workers, is_over, tell), daemon=True)
        keeper.start()
        try:
            yield started
        finally:
            is_over.set()
            keeper.join()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started.cluster.close(timeout=10)


def _replace(started: Jobs, num_workers: int, is_over: threading.Event, tell: Callable[[str], None]) -> None:
    """Submits jobs in place of those that have ended, until too many of them have ended early."""
    while not is_over.wait(REPLACE_EVERY_S):
        if started.num_short > MAX_SHORT * num_workers:
            tell(f"{started.num_short} jobs ended within {SHORT_S / 60:g} minutes: no more are submitted")
            return
        started.cluster.scale(jobs=num_workers)


def _noting(job_class: type, started: Jobs) -> type:
    """A job whose submission may fail without an exception, which dask would print and then forget."""

    class NotingJob(job_class):  # type: ignore[misc]
        async def start(self) -> None:
            self.started_s = time.monotonic()
            try:
                await super().start()
            except (OSError, RuntimeError, ValueError) as error:
                started.errors[str(self.name)] = _spell_submission(error)
                await ProcessInterface.start(self)  # else dask would submit it again and again

        async def close(self) -> None:
            started.num_short += time.monotonic() - self.started_s < SHORT_S
            await super().close()

    return NotingJob


def _spell_submission(error: Exception) -> str:
    """What the command of the job scheduler wrote, in one line; dask-jobqueue's message ends with it."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed on this machine"
    before, _, written = str(error).rpartition("stderr:")
    return " ".join((written.strip() or before).split())


@contextmanager
def encrypted(section: JobSection) -> Iterator[dict[str, Any]]:
    """The arguments for encryption: with dask's configured certificates, or with some that are made for this study."""
    if not section.tls:
        yield {}
        return
    if dask.config.get("distributed.comm.tls.ca-file", None):
        yield {"security": Security(require_encryption=True), "protocol": "tls://"}
        return
    try:
        made = Security.temporary().get_tls_config_for_role("worker")
    except ImportError:
        raise SettingError("cluster.tls needs cryptography to make certificates: pip install cryptography") from None
    with TemporaryDirectory(prefix="tls-", dir=section.log_directory) as place:  # which only this user may read
        names = {"ca_file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
        paths = {key: os.path.abspath(os.path.join(place, name)) for key, name in names.items()}
        for key, path in paths.items():
            write_atomically(Path(path), made[key].encode())
        of_roles = {
            f"tls_{role}_{key}": paths[key] for role in ("client", "scheduler", "worker") for key in ("cert", "key")
        }
        security = Security(tls_ca_file=paths["ca_file"], **of_roles, require_encryption=True)
        yield {"security": security, "protocol": "tls://"}


def job_options(jobs: str, section: JobSection) -> dict[str, Any]:
    """The arguments of dask-jobqueue's cluster; how cores and a GPU are asked for differs between job schedulers."""
    gpu = section.gpus_per_worker
    asked: Sequence[str] = ()
    options: dict[str, Any] = {
        "queue": section.queue,
        "cores": 1,  # tasks at once, not processor cores
        "processes": 1,
        "memory": section.memory,
        "walltime": section.walltime,
        "job_script_prologue": list(section.prologue),
        "log_directory": section.log_directory,
        # dask's own limit would kill a worker; the job scheduler has one anyway
        "worker_extra_args": ["--memory-limit 0", *([f"--resources GPU={gpu}"] if gpu else [])],
        "scheduler_options": dict(NO_DASHBOARD),
    }
    if section.interface is not None:
        options["interface"] = section.interface
    if section.host is not None:
        options["scheduler_options"]["host"] = section.host
    if section.local_directory is not None:
        options["local_directory"] = section.local_directory
    if jobs == "slurm":
        options |= {"account": section.account, "job_cpu": section.cores}
        asked = [f"--gres=gpu:{gpu}"] if gpu else []
    elif jobs == "pbs":
        chunk = f"select=1:ncpus={section.cores}:mem={section.memory}" + (f":ngpus={gpu}" if gpu else "")
        options |= {"account": section.account, "resource_spec": chunk}
    elif jobs == "lsf":
        options |= {"project": section.account, "ncpus": section.cores}
        asked = [f"-gpu num={gpu}"] if gpu else []
    else:
        options |= {"project": section.account, "resource_spec": f"h_vmem={section.memory}"}
        asked = [f"-pe smp {section.cores}", *([f"-l gpu={gpu}"] if gpu else [])]
    options["job_extra_directives"] = [*asked, *section.directives]
    return options
