"""Which cluster trials run on, as options name it; and the TOML section from which a job scheduler's workers start.

Nothing here imports dask: options are checked before that.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlx.settings.binding import first_cause
from dlx.system.errors import SettingError, nearest

JobScheduler = Literal["slurm", "pbs", "lsf", "sge"]
SCHEDULERS: tuple[str, ...] = get_args(JobScheduler)


class JobSection(BaseModel):
    """The section `[cluster]` of a TOML file: what each job asks the job scheduler for. A job is one worker, which runs
    one trial at a time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: Annotated[int, Field(ge=1, le=10_000)]
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,3}:\d{2}(:\d{2})?$")] = "24:00:00"
    queue: str | None = None
    account: str | None = None
    cores: Annotated[int, Field(ge=1, le=1024)] = 1
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$")] = "8GB"
    gpus_per_worker: Literal[0, 1] = 0
    interface: str | None = None  # the network interface over which workers reach the scheduler
    host: str | None = None  # or its address
    tls: bool = False  # whether what is sent between command, scheduler and workers is encrypted
    directives: tuple[str, ...] = ()  # further lines for the job scheduler, such as "--constraint=a100"
    prologue: tuple[str, ...] = ()  # commands before the worker, such as "module load cuda"
    local_directory: str | None = None  # of a worker, on a local disk
    log_directory: str = "cluster-logs"


@dataclass(frozen=True)
class ClusterSpec:
    """Where trials run: on a running scheduler, on workers that a job scheduler starts, or, with neither, in worker
    processes on this machine.
    """

    address: str | None = None
    jobs: JobScheduler | None = None
    section: JobSection | None = None

    @property
    def is_local(self) -> bool:
        return self.address is None and self.jobs is None

    @property
    def name(self) -> str:
        """As messages call it: by the option that named it."""
        if self.is_local:
            return "--executor dask"
        return f"--cluster {self.jobs}" if self.address is None else f"--scheduler-address {self.address}"

    @property
    def how_to_add(self) -> str:
        """What to do where it has no worker."""
        if self.address is None:
            return "worker processes did not start on this machine"
        return f"on each machine: dask worker {self.address} --nthreads 1 --no-dashboard"


def cluster_from(
    executor: str | None, address: str | None, jobs: str | None, file: Path | None, max_parallel: int | None = None
) -> ClusterSpec | None:
    """The cluster that options name; None for this machine without dask. SettingError if they contradict each other."""
    given = {"--scheduler-address": address, "--cluster": jobs, "--cluster-file": file}
    asked = [name for name, value in given.items() if value is not None]
    if executor not in (None, "local", "dask"):
        raise SettingError(f"--executor {executor}: expected local or dask")
    if executor == "local" and asked:
        raise SettingError(f"{asked[0]}: needs --executor dask")
    if executor != "dask" and not asked:
        return None
    if address is not None and jobs is not None:
        raise SettingError("--scheduler-address and --cluster cannot be combined: join a cluster, or start one")
    if address is not None and "://" not in address:
        raise SettingError(f"--scheduler-address {address}: expected an address such as tcp://host:8786")
    if jobs is not None and jobs not in SCHEDULERS:
        raise SettingError(f"--cluster {jobs}: expected one of {', '.join(SCHEDULERS)}")
    if jobs is None and file is not None:
        raise SettingError("--cluster-file: needs --cluster, which names the job scheduler")
    if jobs is not None and file is None:
        raise SettingError(
            f"--cluster {jobs}: needs --cluster-file FILE.toml with a section [cluster] (docs/scaling.md)"
        )
    if not (address is None and jobs is None) and max_parallel is not None:
        raise SettingError("--max-parallel: the number of workers decides how many trials run at once on a cluster")
    return ClusterSpec(address, jobs, None if file is None else read_section(file))  # type: ignore[arg-type]


def read_section(path: Path) -> JobSection:
    """The section `[cluster]` of a TOML file; SettingError, which names the key, if it is wrong."""
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"--cluster-file {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"--cluster-file {path}: not a TOML file ({error})") from None
    section = content.get("cluster")
    if not isinstance(section, dict):
        raise SettingError(f"--cluster-file {path}: has no section [cluster]")
    known = list(JobSection.model_fields)
    for name in section:
        if name not in known:
            raise SettingError(f"--cluster-file {path}: cluster.{name}: unknown; {nearest(name, known)}")
    if "workers" not in section:
        raise SettingError(f"--cluster-file {path}: cluster.workers is missing: how many jobs to submit")
    try:
        found = JobSection.model_validate(section)
    except ValidationError as error:
        raise SettingError(f"--cluster-file {path}: cluster.{first_cause(error)}") from None
    if found.interface is None and found.host is None:
        raise SettingError(
            f"--cluster-file {path}: cluster.interface (such as ib0) or cluster.host is missing: without one the "
            "scheduler listens on this machine alone, where no job reaches it"
        )
    return found
