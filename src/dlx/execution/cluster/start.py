"""The connection to a cluster, which is joined or started, and what is known of its workers: `connected`."""

import logging
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dlx.engine.device import Compute, choose_compute
from dlx.execution.cluster.facts import WorkerFacts, facts, misfit, unlikeness
from dlx.execution.cluster.spec import ClusterSpec
from dlx.execution.workers.devices import cuda_names
from dlx.execution.workers.server import quiet_children
from dlx.settings.spec import ComputeSpec
from dlx.system.errors import DlxError, SettingError, root_cause
from dlx.system.safe_path import without_main_module

if TYPE_CHECKING:
    from distributed import Client

Tell = Callable[[str], None]  # shows the user a line

CONNECT_S = 30.0  # to the scheduler, at first and after it was lost
WORKERS_S = 60.0  # until the first worker of a running cluster is there; a job may wait for days
NOTE_AFTER_S = 5.0  # without a worker, the user gets a note
LOGGER = logging.getLogger(__name__)
INSTALL = "--executor dask needs dask.distributed: pip install 'dlx[dask]'"


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

        On a CPU a trial has one thread unless `spec` says otherwise, as where several trials run at once on one
        machine: so ids do not depend on the machines. It is asked beside the trials that workers run. SettingError if
        they have no such device, or would choose unlike ones.
        """
        key = spec.model_dump_json()
        if key not in self._chosen:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
            with_gpu = [name for name, one in workers.items() if one["resources"].get("GPU")]
            with _asking():
                found = list(self.client.run(choose_compute, spec, workers=with_gpu or None).values())
            unlike = {(str(one.device), one.device_name, one.precision) for one in found}
            if len(unlike) > 1:
                shown = "; ".join(sorted(f"{name or device}, {precision}" for device, name, precision in unlike))
                raise SettingError(
                    f"workers would train differently ({shown}): give --device and --precision, or join like machines "
                    "only"
                )
            chosen = min(found, key=lambda one: one.memory or 0)
            if spec.threads is None and chosen.device.type == "cpu":
                chosen = replace(chosen, threads=1)
            self._chosen[key] = chosen
        return self._chosen[key]


@contextmanager
def connected(spec: ClusterSpec, num_workers: int | None = None, tell: Tell = LOGGER.warning) -> Iterator[Cluster]:
    """Joins or starts the cluster, waits for a worker, and checks what workers have.

    `num_workers` is that of a cluster on this machine. What was started here is closed at the end. SettingError if dask
    is missing, the scheduler cannot be reached, no worker comes, no job can be submitted, or workers cannot run this
    version's trials. `tell` shows a line if jobs have to wait.
    """
    try:
        from distributed import Client, LocalCluster

        from dlx.execution.cluster.jobs import NO_DASHBOARD, started_jobs
        from dlx.execution.cluster.remote import IgnoresInterrupts
    except ImportError:
        raise SettingError(INSTALL) from None
    _quiet_logs()
    started: Any = None
    errors: dict[str, str] = {}  # of jobs that could not be submitted
    stack = ExitStack()
    try:
        if spec.address is not None:
            _check_that_something_listens(spec, spec.address)
            place: Any = spec.address
        elif spec.jobs is not None and spec.section is not None:
            submitted = stack.enter_context(started_jobs(spec.jobs, spec.section, tell))
            place, errors = submitted.cluster, submitted.errors
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
            raise _unreachable(spec, root_cause(error)) from None
        with client:
            if spec.is_local:
                client.register_plugin(IgnoresInterrupts())
            _wait_for_worker(client, spec, errors, tell)
            yield Cluster(client, tuple(_check(client, spec)))
    finally:
        if started is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started.close(timeout=10)
        stack.close()


@contextmanager
def joined(spec: ClusterSpec | None, tell: Tell = LOGGER.warning) -> Iterator[Cluster | None]:
    """The cluster for whose machines trials are to be planned; None for this machine, where `running` starts one."""
    if spec is None or spec.is_local:
        yield None
        return
    with connected(spec, tell=tell) as cluster:
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


def _quiet_logs() -> None:
    """Dask's log lines would run into the progress; what they report is an event or an error of dlx too."""
    for name in (
        "distributed",
        "distributed.worker",
        "distributed.nanny",
        "distributed.scheduler",
        "distributed.core",
        "distributed.client",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _check_that_something_listens(spec: ClusterSpec, address: str) -> None:
    """SettingError if nothing does: dask would try for CONNECT_S, and then not say why."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:  # no number: dask says so
        return
    if parts.scheme not in ("tcp", "tls") or host is None or port is None:
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise _unreachable(spec, error.strerror or str(error) or type(error).__name__) from None


def _unreachable(spec: ClusterSpec, cause: str) -> SettingError:
    hint = "" if spec.address is None else "; is `dask scheduler` running there? (docs/scaling.md)"
    return SettingError(f"{spec.name}: cannot be reached: {cause}{hint}")


def _wait_for_worker(client: "Client", spec: ClusterSpec, errors: dict[str, str], tell: Tell) -> None:
    """Waits for the first worker: for jobs without a limit, as they may be queued, unless none could be submitted."""
    if spec.jobs is None:
        try:
            with suppress(TimeoutError):
                client.wait_for_workers(1, timeout=NOTE_AFTER_S)
                return
            if not spec.is_local:
                tell(f"{spec.name} has no worker yet: waiting for one, at most {WORKERS_S:g} s")
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError:
            raise SettingError(f"{spec.name}: has no worker; {spec.how_to_add}") from None
        return
    has_told = False
    while True:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=NOTE_AFTER_S)
        num_jobs = 0 if spec.section is None else spec.section.workers
        if len(errors) == num_jobs:
            raise SettingError(f"{spec.name}: no job could be submitted: {next(iter(errors.values()))}")
        if client.scheduler_info(n_workers=-1)["workers"]:
            break
        if not has_told:
            assert spec.section is not None
            tell(
                f"{num_jobs - len(errors)} jobs are submitted to {spec.jobs}; waiting for the first worker (if jobs "
                f"end and none comes, their output in {spec.section.log_directory} says why)"
            )
            has_told = True
    if errors:
        tell(f"{len(errors)} of {num_jobs} jobs could not be submitted: {next(iter(errors.values()))}")


@contextmanager
def _asking() -> Iterator[None]:
    """DlxError if a worker is lost while it is asked."""
    try:
        yield
    except OSError as error:
        raise DlxError(
            f"a worker was lost while it was asked for its devices: run the command again ({root_cause(error)})"
        ) from None


def _check(client: "Client", spec: ClusterSpec) -> list[str]:
    """Asks all workers; remarks if machines differ. SettingError if one cannot run trials."""
    try:
        with _asking():
            found: dict[str, WorkerFacts] = client.run(facts)
    except DlxError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it lacks
        raise SettingError(
            f"{spec.name}: a worker cannot run dlx: {error}; install this dlx on every machine"
        ) from None
    threads = {worker: info["nthreads"] for worker, info in client.scheduler_info(n_workers=-1)["workers"].items()}
    own = facts()
    for worker, one in found.items():
        if why := misfit(one, own, threads.get(worker, 1)):
            raise SettingError(f"worker {worker} {why}")
    return unlikeness(list(found.values()))
