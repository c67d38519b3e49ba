"""A study on several hosts: records equal those of one machine, whatever the hosts share, and over TLS too."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from cluster_processes import Machines, dlx_environment
from faults import results
from network_hosts import obstacle, two_hosts
from small import SMALL_ARGS

SWEEP = ["-m", "dlx", "sweep-dropout", *SMALL_ARGS, "--epochs", "3", "--p", "0.1,0.3", "--seeds", "2", "--quiet"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The sweep in worker processes of one command."""
    folder = tmp_path_factory.mktemp("alone")
    sweep(folder, dlx_environment(folder))
    return folder / "out"


def sweep(folder: Path, environment: dict[str, str], *more: str, inside=()) -> subprocess.CompletedProcess:
    command = [*inside, sys.executable, *SWEEP, "--out", str(folder / "out"), *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


COUNT = """
import sys
from distributed import Client
with Client(sys.argv[1]) as client:
    print(*client.run(lambda dask_worker: dask_worker.state.executed_count).values())
"""


def num_executed(address: str, inside: Sequence[str]) -> list[int]:
    """How many trials each worker has run."""
    done = subprocess.run(
        [*inside, sys.executable, "-c", COUNT, address], capture_output=True, text=True, timeout=60, check=True
    )
    return [int(count) for count in done.stdout.split()]


@pytest.mark.long
@pytest.mark.parametrize("is_shared", [True, False], ids=["folder shared", "folder seen by one host"])
def test_two_hosts_give_the_records_of_one_machine(tmp_path, alone, is_shared):
    if why := obstacle():
        pytest.skip(why)
    (tmp_path / "out").mkdir()
    (tmp_path / "cache").mkdir()
    with two_hosts() as (first, second):
        hidden = second.inside if is_shared else second.without([tmp_path / "out", tmp_path / "cache"])
        inside = {"scheduler": first.inside, "worker1": first.inside, "worker2": hidden}
        with Machines(tmp_path, host=first.address, inside=inside) as machines:
            more = ["--scheduler-address", machines.address]
            done = sweep(tmp_path, machines.environment, *more, inside=first.inside)
            assert done.returncode == 0, done.stderr
            counts = num_executed(machines.address, first.inside)
        assert second.address in (tmp_path / "worker2.log").read_text()
        assert len(counts) == 2
        assert min(counts) > 0
    assert results(tmp_path / "out") == results(alone)
    assert len(results(alone)) == 6


def certificates(folder: Path) -> dict[str, str]:
    """A certificate with its key and the authority that signed it, as files named by dask's options."""
    pytest.importorskip("cryptography")
    from distributed import Security

    made = Security.temporary().get_tls_config_for_role("worker")
    files = {"ca-file": made["ca_file"], "cert": made["cert"], "key": made["key"]}
    for name, content in files.items():
        (folder / f"{name}.pem").write_text(content)
    return {name: str(folder / f"{name}.pem") for name in files}


@pytest.mark.long
def test_a_cluster_with_tls_runs_a_study_and_refuses_a_command_without_certificates(tmp_path, alone):
    files = certificates(tmp_path)
    options = [word for name, path in files.items() for word in (f"--tls-{name}", path)]
    own = {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": files["ca-file"],
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": files["cert"],
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": files["key"],
    }
    with Machines(tmp_path, protocol="tls", options=options) as machines:
        more = ["--scheduler-address", machines.address]
        done = sweep(tmp_path, machines.environment | own, *more)
        assert done.returncode == 0, done.stderr
        refused = sweep(tmp_path / "other", machines.environment, *more)
    assert results(tmp_path / "out") == results(alone)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"dlx: --scheduler-address {machines.address}: cannot be reached: TLS expects")
