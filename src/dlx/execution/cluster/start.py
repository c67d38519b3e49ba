"""The connection to a cluster, which is joined or started, and what is known of its workers: `connected`."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

import dlx
from dlx.engine.device import Compute, choose_compute, describe_device
from dlx.execution.cluster.spec import ClusterSpec, JobSection
from dlx.execution.workers.devices import cuda_names
from dlx.execution.workers.server import quiet_children
from dlx.settings.spec import ComputeSpec
from dlx.study.results import RESULTS_VERSION
from dlx.system.errors import SettingError
from dlx.system.safe_path import without_main_module

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 30.0  # to the scheduler, at first and after it was lost
WORKERS_S = 60.0  # until the first worker of a running cluster is there
# dask starts its HTTP server in any case; on the usual port it would warn of another user's
NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
INSTALL = "--executor dask needs dask.distributed: pip install 'dlx[dask]'"


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself."""

    dlx: str
    results_version: int
    torch: str
    processor: str
    gpus: tuple[str, ...]


def facts() -> WorkerFacts:
    """Those of this process; runs on a worker."""
    processor = describe_device(torch.device("cpu"))
    return WorkerFacts(dlx.__version__, RESULTS_VERSION, torch.__version__, processor, cuda_names())


@dataclass
class Cluster:
    """A connected cluster: the machines for which a study is planned, and the client that runs it."""

    client: "Client"
    remarks: tuple[str, ...] = ()
    _chosen: dict[str, Compute] = field(default_factory=dict)

    @property
    def num_workers(self) -> int:
        """How many workers there are now."""
        return max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))

    def choose(self, spec: ComputeSpec) -> Compute:
        """As `choose_compute`, on the workers: on those that offer a GPU, if any do. Of unlike memories the smallest.

        It is asked beside the trials that workers run. SettingError if they have no such device, or would choose unlike
        ones.
        """
        key = spec.model_dump_json()
        if key not in self._chosen:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
            with_gpu = [name for name, one in workers.items() if one["resources"].get("GPU")]
            found = list(self.client.run(choose_compute, spec, workers=with_gpu or None).values())
            unlike = {(str(one.device), one.device_name, one.precision, one.threads) for one in found}
            if len(unlike) > 1:
                shown = "; ".join(sorted(f"{name or device}, {p}, {t} threads" for device, name, p, t in unlike))
                raise SettingError(
                    f"workers would train differently ({shown}): give --device, --precision and --threads, or join "
                    "like machines only"
                )
            self._chosen[key] = min(found, key=lambda one: one.memory or 0)
        return self._chosen[key]


@contextmanager
def connected(spec: ClusterSpec, num_workers: int | None = None) -> Iterator[Cluster]:
    """Joins or starts the cluster, waits for a worker, and checks what workers have.

    `num_workers` is that of a cluster on this machine. What was started here is closed at the end. SettingError if dask
    is missing, the scheduler cannot be reached, no worker comes, or workers cannot run this version's trials.
    """
    try:
        from distributed import Client, LocalCluster

        from dlx.execution.cluster.remote import IgnoresInterrupts
    except ImportError:
        raise SettingError(INSTALL) from None
    _quiet_logs()
    started: Any = None
    stack = ExitStack()
    try:
        if spec.address is not None:
            place: Any = spec.address
        elif spec.jobs is not None and spec.section is not None:
            started = place = start_jobs(spec.jobs, spec.section)
        else:
            stack.enter_context(without_main_module())  # also for workers that dask starts later, in place of dead ones
            with quiet_children():
                started = place = LocalCluster(
                    n_workers=num_workers or 1,
                    threads_per_worker=1,
                    host="127.0.0.1",  # no other machine reaches it
                    scheduler_kwargs=NO_DASHBOARD,
                    resources={"GPU": 1} if cuda_names() else None,
                    memory_limit=0,  # dask would stop a worker that uses memory as planned
                    silence_logs=logging.CRITICAL,
                )
        try:
            client = Client(place, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TypeError, ValueError) as error:  # the latter for TLS without certificates, or no address
            raise SettingError(f"--scheduler-address {spec.address}: cannot be reached: {_cause(error)}") from None
        with client:
            if spec.is_local:
                client.register_plugin(IgnoresInterrupts())
            yield Cluster(client, tuple(_check(client, spec)))
    finally:
        if started is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started.close(timeout=10)
        stack.close()


@contextmanager
def joined(spec: ClusterSpec | None) -> Iterator[Cluster | None]:
    """The cluster for whose machines trials are to be planned; None for this machine, where `running` starts one."""
    if spec is None or spec.is_local:
        yield None
        return
    with connected(spec) as cluster:
        yield cluster


@contextmanager
def running(spec: ClusterSpec | None, cluster: Cluster | None, num_workers: int) -> "Iterator[Client | None]":
    """The client that runs the trials of a plan: of the joined cluster, or of one of `num_workers` started on this
    machine; None if no cluster is asked for.
    """
    if cluster is not None or spec is None:
        yield None if cluster is None else cluster.client
        return
    with connected(spec, num_workers) as started:
        yield started.client


def _cause(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def _quiet_logs() -> None:
    """Dask's log lines would run into the progress; what they report is an event or an error of dlx too."""
    for name in ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _check(client: "Client", spec: ClusterSpec) -> list[str]:
    """Waits for the first worker and asks all; remarks if machines differ. SettingError if one cannot run trials."""
    where = spec.address or "the cluster"
    try:
        client.wait_for_workers(1, timeout=None if spec.jobs is not None else WORKERS_S)
    except TimeoutError:
        raise SettingError(
            f"{where}: has no worker; on each machine: dask worker {spec.address} --nthreads 1 --no-dashboard"
        ) from None
    try:
        found: dict[str, WorkerFacts] = client.run(facts)
    except Exception as error:  # noqa: BLE001 - whatever it lacks
        raise SettingError(f"{where}: a worker cannot run dlx: {error}; install this dlx on every machine") from None
    num_threads = {worker: info["nthreads"] for worker, info in client.scheduler_info(n_workers=-1)["workers"].items()}
    for worker, one in found.items():
        if (one.dlx, one.results_version) != (dlx.__version__, RESULTS_VERSION):
            raise SettingError(f"worker {worker} has dlx {one.dlx}, this machine {dlx.__version__}: install the same")
        if num_threads.get(worker, 1) != 1:
            raise SettingError(
                f"worker {worker} runs {num_threads[worker]} tasks at once, and trials run one at a time in a process: "
                "start it with --nthreads 1"
            )
    return [
        *_unlike("processors", {one.processor for one in found.values()}),
        *_unlike("GPUs", {", ".join(sorted(set(one.gpus))) or "none" for one in found.values()}),
        *_unlike("versions of torch", {one.torch for one in found.values()}),
    ]


def _unlike(what: str, values: set[str]) -> list[str]:
    if len(values) < 2:
        return []
    return [
        f"workers have unlike {what} ({', '.join(sorted(values))}): trials of one seed can differ in the last bits; "
        "each record says where it ran"
    ]


def start_jobs(jobs: str, section: JobSection) -> Any:
    """Starts a scheduler here and submits a job for each worker, by dask-jobqueue. SettingError if it is missing."""
    try:
        import dask_jobqueue
    except ImportError:
        raise SettingError(f"--cluster {jobs} needs dask-jobqueue: pip install 'dlx[dask]'") from None
    kind = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}[jobs]
    os.makedirs(section.log_directory, exist_ok=True)
    cluster = getattr(dask_jobqueue, kind)(**job_options(jobs, section))
    cluster.scale(jobs=section.workers)
    return cluster


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
