"""Trials on a dask cluster: what options mean, what runs on workers, and records equal to those of a run without."""

import json
import os
import re
import signal
import socket
import stat
import threading
import time
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file

pytest.importorskip("distributed")

from distributed import Client, KilledWorker, LocalCluster

from cluster_faults import FEW, differences, run_alone, run_with_faults
from cluster_processes import free_port
from dlx.api.runs import run as dlx_run
from dlx.cli.output.console import PlainConsole
from dlx.cli.output.live import TrialsTable
from dlx.execution.cluster import collect, jobs, remote, sharing, start, watch
from dlx.execution.cluster.collect import RemoteStudy
from dlx.execution.cluster.jobs import NO_DASHBOARD, job_options
from dlx.execution.cluster.remote import StudyOnWorker
from dlx.execution.cluster.run import run_on_cluster
from dlx.execution.cluster.spec import ClusterSpec, cluster_from
from dlx.execution.cluster.start import connected
from dlx.execution.planning.plan import Plan, make_plan
from dlx.execution.runner import run_plan
from dlx.execution.trials.trial import ClusterNote, StepDone, TrialEnded, TrialStarted
from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord
from dlx.settings.layers import merge
from dlx.study.axes import Axis, make_variants
from dlx.study.study import Study, make_study
from dlx.system.errors import DlxError, LockedError, SettingError
from faults import results
from made_own_networks import write_nets
from small import SETTINGS, SMALL_ARGS

FILE = 'workers = 4\nqueue = "gpu"\nwalltime = "12:00:00"\ncores = 8\nmemory = "32GB"\naccount = "lab"\n'


def cluster_file(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"executor": "ray"}, r"--executor ray: expected local or dask"),
        ({"executor": "local", "address": "tcp://a:1"}, r"--scheduler-address: needs --executor dask"),
        ({"address": "a:8786"}, r"--scheduler-address a:8786: expected an address such as tcp://host:8786"),
        ({"address": "tcp://a:1", "jobs": "slurm"}, r"cannot be combined"),
        ({"jobs": "condor"}, r"--cluster condor: expected one of slurm, pbs, lsf, sge"),
        ({"jobs": "slurm"}, r"--cluster slurm: needs --cluster-file"),
        ({"file": Path("x.toml")}, r"--cluster-file: needs --cluster"),
        ({"address": "tcp://a:1", "max_parallel": 3}, r"--max-parallel: the number of workers decides"),
    ],
)
def test_options_of_a_cluster_that_contradict_each_other_are_refused(given, message):
    words = {"executor": None, "address": None, "jobs": None, "file": None} | given
    with pytest.raises(SettingError, match=message):
        cluster_from(**words)


def test_no_option_is_no_cluster_and_one_is_enough_for_it():
    assert cluster_from(None, None, None, None) is None
    assert cluster_from("local", None, None, None) is None
    assert cluster_from("dask", None, None, None).is_local
    assert cluster_from(None, "tcp://a:1", None, None) == ClusterSpec(address="tcp://a:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cluster\.toml: No such file"),
        ("workers = ", r"cluster\.toml: not a TOML file"),
        ("[jobs]\nworkers = 1\n", r"has no section \[cluster\]"),
        ("[cluster]\nqueue = 'a'\ninterface = 'ib0'\n", r"cluster\.workers is missing: how many jobs"),
        ("[cluster]\nworkers = 0\ninterface = 'ib0'\n", r"cluster\.workers"),
        ("[cluster]\nworkers = 1\nwalltime = 'long'\ninterface = 'ib0'\n", r"cluster\.walltime"),
        ("[cluster]\nworkers = 1\nqeue = 'a'\ninterface = 'ib0'\n", r"cluster\.qeue: unknown; did you mean 'queue'"),
        ("[cluster]\nworkers = 1\ngpus_per_worker = 2\ninterface = 'ib0'\n", r"cluster\.gpus_per_worker"),
        ("[cluster]\nworkers = 1\nmemory = '32 gigs'\ninterface = 'ib0'\n", r"cluster\.memory"),
        ("[cluster]\nworkers = 1\n", r"cluster\.interface .* or cluster\.host is missing"),
    ],
)
def test_a_wrong_section_is_refused_with_its_key(tmp_path, text, message):
    path = tmp_path / "cluster.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=message) as caught:
        cluster_from(None, None, "slurm", path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (
            "slurm",
            ["#SBATCH -p gpu", "#SBATCH -A lab", "--cpus-per-task=8", "--gres=gpu:1", "-t 12:00:00"],
        ),
        ("pbs", ["#PBS -q gpu", "#PBS -A lab", "#PBS -l select=1:ncpus=8:mem=32GB:ngpus=1", "walltime=12:00:00"]),
        ("lsf", ["#BSUB -q gpu", '#BSUB -P "lab"', "#BSUB -n 8", "#BSUB -gpu num=1", "#BSUB -W 12:00"]),
        ("sge", ["#$ -q gpu", "#$ -P lab", "#$ -pe smp 8", "#$ -l gpu=1", "h_rt=12:00:00"]),
    ],
)
def test_a_job_asks_its_scheduler_for_what_the_section_says(tmp_path, monkeypatch, jobs, expected):
    dask_jobqueue = pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    path = cluster_file(
        tmp_path, f'[cluster]\nhost = "127.0.0.1"\ngpus_per_worker = 1\nprologue = ["module load x"]\n{FILE}'
    )
    section = cluster_from(None, None, jobs, path).section
    kind = {"slurm": "SLURM", "pbs": "PBS", "lsf": "LSF", "sge": "SGE"}[jobs]
    with getattr(dask_jobqueue, f"{kind}Cluster")(**job_options(jobs, section)) as made:
        script = made.job_script()
        assert made.scheduler_address.startswith("tcp://127.0.0.1:")
    for words in [*expected, "module load x", "--nthreads 1", "--resources GPU=1", "--memory-limit 0"]:
        assert words in script


def small_study(num_seeds=2) -> Study:
    settings = merge(SETTINGS, {"train": {"epochs": 2, "steps_per_epoch": 3}})
    variants = make_variants(settings, [Axis(key="dropout.p", values=(0.0, 0.3))])
    return make_study(name="s", variants=variants, seeds=tuple(range(num_seeds)))


@contextmanager
def client_in_this_process(num_workers=2):
    """A cluster whose workers are threads of this process; trials take turns in it."""
    with (
        LocalCluster(
            n_workers=num_workers, processes=False, threads_per_worker=1, scheduler_kwargs=NO_DASHBOARD, memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


def run(folder: Path, study: Study, client: Client | None = None, cache: Path | None = None, **how):
    """The events of a study that is run in a folder."""
    plan = make_plan(study, folder, cache_dir=cache, max_parallel=2)
    return list(run_plan(plan, client=client, **how))


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The small study, run without a cluster."""
    folder = tmp_path_factory.mktemp("alone")
    run(folder, small_study())
    return folder


def share_nothing(monkeypatch, *, but_the_cache=False) -> None:
    """Makes workers see no folder of the client."""
    monkeypatch.setattr(sharing, "sees", lambda path, token: False)
    monkeypatch.setattr(sharing, "is_readable", lambda path: but_the_cache and path.endswith(".safetensors"))


KILLED = []


def left_by_a_killed_command(plan: Plan, client: Client) -> RemoteStudy:
    """A study that a command has submitted before it was killed."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    KILLED.append(sharing.token_in(plan.folder))  # else it would be left when it is collected
    token = KILLED[-1].__enter__()
    ids = [task.trial_id for task in plan.trials]
    study = RemoteStudy.of(dict(enumerate(plan.trials)), plan.stores, client, plan.folder, token, ids)
    study.begin()
    return study


def files_of(folder: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("trials/*/*") if path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_shared", "has_cache", "num_workers"),
    [(True, True, 1), (True, False, 2), (False, True, 4), (False, False, 2)],
    ids=["folder and cache shared", "data sent", "files sent", "data and files sent"],
)
def test_a_cluster_gives_the_records_and_files_of_a_run_without_it(
    tmp_path, monkeypatch, alone, is_shared, has_cache, num_workers
):
    if not is_shared:
        share_nothing(monkeypatch, but_the_cache=True)
    cache = tmp_path / "cache" if has_cache else None
    with client_in_this_process(num_workers) as client:
        events = run(tmp_path / "out", small_study(), client, cache)
        assert list(client.list_datasets()) == []
    assert results(tmp_path / "out") == results(alone)
    assert files_of(tmp_path / "out") == files_of(alone)
    for path in sorted(alone.glob("trials/*/*.safetensors")):
        found, expected = load_file(tmp_path / "out" / path.relative_to(alone)), load_file(path)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    starts = [event for _, event in events if isinstance(event, TrialStarted)]
    assert len(starts) == 4
    assert all(event.worker for event in starts)
    assert any(isinstance(event, StepDone) for _, event in events)
    assert sum(isinstance(event, TrialEnded) for _, event in events) == 4
    assert not (tmp_path / "out/.cluster-token").exists()


@pytest.mark.slow
def test_half_a_study_on_a_cluster_and_half_without_is_the_whole(tmp_path, alone):
    with client_in_this_process() as client:
        run(tmp_path, small_study(1), client)
        ended = [event for _, event in run(tmp_path, small_study()) if isinstance(event, TrialEnded)]
    assert sorted(event.was_done for event in ended) == [False, False, True, True]
    assert results(tmp_path) == results(alone)


@pytest.mark.slow
def test_a_worker_that_cannot_use_the_checkpoint_refuses_the_trial_and_leaves_no_result(tmp_path):
    plan = make_plan(small_study(1), tmp_path, cache_dir=None)
    first = plan.trials[0].folder
    first.begin(plan.trials[0].settings)
    first.last.write_bytes(b"damaged")
    with client_in_this_process() as client:
        ends = {number: event for number, event in run_plan(plan, client=client) if isinstance(event, TrialEnded)}
    assert ends[0].record.status == "failed"
    assert re.search(r"last\.safetensors: .*--fresh", ends[0].record.cause)
    assert first.result() is None
    assert ends[1].record.status == "done"


@pytest.mark.slow
def test_what_one_worker_refuses_another_runs(tmp_path, monkeypatch, alone):
    local, refused = StudyOnWorker.local, []

    def local_if_fit(self, task):
        if self.number == 0:
            refused.append(task.trial_id)
            raise DlxError("this worker has no CUDA device")
        return local(self, task)

    monkeypatch.setattr(StudyOnWorker, "local", local_if_fit)
    with client_in_this_process() as client:
        events = [event for _, event in run(tmp_path, small_study(), client)]
    assert results(tmp_path) == results(alone)
    assert [event.text for event in events if isinstance(event, ClusterNote)] == [
        "a worker refused a trial, which another one gets: this worker has no CUDA device (on 0)"
    ]
    assert len(refused) == len(set(refused))  # though it has nothing to do while the other one is busy


@pytest.mark.slow
def test_a_trial_that_every_worker_refuses_fails_with_the_cause(tmp_path, monkeypatch):
    def refuse(*_):
        raise DlxError("this worker has no CUDA device")

    monkeypatch.setattr(StudyOnWorker, "local", refuse)
    with client_in_this_process() as client:
        events = [event for _, event in run(tmp_path, small_study(1), client)]
    records = [event.record for event in events if isinstance(event, TrialEnded)]
    assert [record.status for record in records] == ["failed", "failed"]
    assert all("this worker has no CUDA device (on " in record.cause for record in records)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Client .* desires key")  # dask's, of a task that is lost with the last worker
def test_the_user_is_told_that_no_worker_is_left_and_that_one_came_back(tmp_path, monkeypatch, alone):
    monkeypatch.setattr(collect, "LOOK_EVERY_S", 0.1)
    with client_in_this_process(1) as client:
        notes = []
        plan = make_plan(small_study(), tmp_path, cache_dir=None)
        for _, event in run_plan(plan, client=client):
            if isinstance(event, EpochRecord) and not notes:
                client.cluster.scale(0)
            if isinstance(event, ClusterNote):
                notes.append(event.text)
                client.cluster.scale(1)
    lost, none_left, again = notes
    assert re.search(r"worker \S+ was lost after epoch \d of p=\S+, seed \d: another worker takes", lost)
    assert (none_left, again) == (watch.NO_WORKER, "the cluster has workers again")
    assert results(tmp_path) == results(alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "is_shared", [pytest.param(True, marks=pytest.mark.long), False], ids=["folder shared", "files sent"]
)
def test_a_later_client_shows_a_trial_that_began_before_it(tmp_path, monkeypatch, is_shared):
    if not is_shared:
        share_nothing(monkeypatch)
    settings = merge(SETTINGS, {"train": {"epochs": 4, "steps_per_epoch": 40}})
    study = make_study(name="s", variants=make_variants(settings, []), seeds=(0,))
    plan = make_plan(study, tmp_path / "out", cache_dir=None)
    (task,) = plan.trials
    with client_in_this_process(1) as client:
        first = left_by_a_killed_command(plan, client)
        first.arrived.get(timeout=60)
        with Client(client.scheduler.address, set_as_default=False) as later:
            events = [event for _, event in run_plan(plan, client=later)]
    started = next(event for event in events if isinstance(event, TrialStarted))
    assert (started.epochs, started.steps_per_epoch, started.worker) == (4, 40, "0")
    epochs = [event.result.epoch for event in events if isinstance(event, EpochRecord)]
    assert epochs == list(range(started.resumed_from + 1, 5))
    run(tmp_path / "alone", study)
    assert results(tmp_path / "out") == results(tmp_path / "alone")
    assert [record.result for record in task.folder.epochs()] == [
        record.result for record in TrialFolder.at(tmp_path / "alone/trials" / task.folder.path.name).epochs()
    ]


@pytest.mark.slow
def test_a_worker_that_joins_later_and_has_another_folder_of_that_path_refuses(tmp_path, monkeypatch, alone):
    shared, sees = [], remote.sees
    monkeypatch.setattr(remote, "sees", lambda *file: remote.get_worker().name == 0 and sees(*file))
    with client_in_this_process(1) as client:
        plan = make_plan(small_study(3), tmp_path, cache_dir=None)
        for _, event in run_plan(plan, client=client):
            if isinstance(event, TrialStarted) and not shared:
                client.cluster.scale(2)
                client.wait_for_workers(2)
            shared += [event.text] if isinstance(event, ClusterNote) else []
            if isinstance(event, TrialEnded):
                assert event.record.status == "done"
    assert all(results(tmp_path)[trial] == expected for trial, expected in results(alone).items())
    assert len(results(tmp_path)) == 6
    (note,) = shared
    assert "does not see the study's folder (on 1)" in note


@pytest.mark.slow
def test_a_later_client_goes_on_with_the_last_attempt_of_a_trial(tmp_path, monkeypatch, alone):
    share_nothing(monkeypatch)
    plan = make_plan(small_study(), tmp_path, cache_dir=None)
    with client_in_this_process() as client:
        first = left_by_a_killed_command(plan, client)
        first._submit([plan.trials[0].trial_id])  # once more, as after a loss
        client.gather(list(first.waiting.values()))
        second = left_by_a_killed_command(plan, client)
        assert sorted(second.attempts.values()) == [1, 1, 1, 2]
        assert {future.key for future in second.waiting.values()} == {future.key for future in first.waiting.values()}
        assert all(future.done() for future in second.waiting.values())
        events = [event for _, event in run_plan(plan, client=client)]
    assert results(tmp_path) == results(alone)
    assert not any(isinstance(event, TrialStarted) for event in events)


def stop_after(num_epochs: int, folder: Path, study: Study, client: Client | None, **how) -> None:
    """Runs a study and stops it, as Ctrl-C does, after so many epochs of its first trial."""
    with closing(run_plan(make_plan(study, folder, cache_dir=None), client=client, **how)) as events:
        for _, event in events:
            if isinstance(event, EpochRecord) and event.result.epoch == num_epochs:
                return


def first_start(events) -> TrialStarted:
    return next(event for _, event in events if isinstance(event, TrialStarted))


@pytest.mark.slow
@pytest.mark.parametrize(
    "is_shared", [pytest.param(True, marks=pytest.mark.long), False], ids=["folder shared", "files sent"]
)
def test_a_trial_that_was_stopped_goes_on_where_a_checkpoint_is_and_starts_over_if_fresh(
    tmp_path, monkeypatch, is_shared
):
    if not is_shared:
        share_nothing(monkeypatch)
    settings = merge(SETTINGS, {"train": {"epochs": 4, "steps_per_epoch": 20}})
    study = make_study(name="s", variants=make_variants(settings, []), seeds=(0,))
    run(tmp_path / "alone", study)
    with client_in_this_process(1) as client:
        stop_after(2, tmp_path / "local", study, None)  # its checkpoint is on this machine
        events = run(tmp_path / "local", study, client)
        assert first_start(events).resumed_from == 2
        assert results(tmp_path / "local") == results(tmp_path / "alone")
        stop_after(2, tmp_path / "out", study, client)  # its checkpoint is where the worker writes
        assert first_start(run(tmp_path / "out", study, client)).resumed_from >= 2
        stop_after(2, tmp_path / "fresh", study, client)
        assert first_start(run(tmp_path / "fresh", study, client, fresh=True)).resumed_from == 0
    for name in ("out", "fresh"):
        assert results(tmp_path / name) == results(tmp_path / "alone")
        (folder,) = (tmp_path / name / "trials").iterdir()
        assert [one.result.epoch for one in TrialFolder.at(folder).epochs()] == [1, 2, 3, 4]


def test_a_trial_is_failed_for_deaths_of_its_worker_only_if_it_had_begun_each_time(tmp_path):
    plan = make_plan(small_study(1), tmp_path, cache_dir=None)
    tasks = {task.trial_id: task for task in plan.trials}
    study = RemoteStudy(None, StudyOnWorker("s", "s", tasks, {}, token=None), plan.stores, {}, "s")
    killed = SimpleNamespace(exception=lambda: KilledWorker("s", None, 3))
    study.starts.update({"waited": 0, "began": 3, "ended its workers": 4})
    assert [study._is_innocent(trial, killed) for trial in study.starts] == [True, True, False]
    assert not study._is_innocent("waited", SimpleNamespace(exception=lambda: ValueError()))


def test_trials_on_a_gpu_are_refused_where_no_worker_offers_one(tmp_path):
    plan = make_plan(small_study(1), tmp_path, cache_dir=None)
    compute = replace(plan.first.compute, device=torch.device("cuda", 0), device_name="NVIDIA Made-Up")
    tasks = {0: replace(plan.trials[0], resolved=replace(plan.first, compute=compute))}
    with client_in_this_process(1) as client, pytest.raises(SettingError, match=r"offers a GPU: .* --resources GPU=1"):
        list(run_on_cluster(tasks, plan.stores, client))


@pytest.mark.slow
def test_fresh_trials_are_cleared_once_and_failed_ones_run_again_if_asked(tmp_path, alone):
    run(tmp_path, small_study(1))
    plan = make_plan(small_study(1), tmp_path, cache_dir=None)
    with client_in_this_process() as client:
        ends = [event for _, event in run_plan(plan, client=client, fresh=True) if isinstance(event, TrialEnded)]
        assert [event.was_done for event in ends] == [False, False]
        first = plan.trials[0]
        first.failed("made up", keep=True)
        ends = [event for _, event in run_plan(plan, client=client, retry_failed=True) if isinstance(event, TrialEnded)]
    assert sorted(event.was_done for event in ends) == [False, True]
    expected = results(alone)
    assert results(tmp_path) == {trial: expected[trial] for trial in (task.trial_id for task in plan.trials)}


@pytest.mark.slow
def test_another_command_on_the_same_folder_is_refused_and_results_that_wait_are_collected(
    tmp_path, monkeypatch, alone
):
    share_nothing(monkeypatch)  # so the results wait on the cluster
    plan = make_plan(small_study(), tmp_path, cache_dir=None)
    with client_in_this_process() as client:
        study = left_by_a_killed_command(plan, client)
        client.gather(list(study.waiting.values()))
        with Client(client.scheduler.address, set_as_default=False) as later:
            first = run_plan(plan, client=later)
            next(first)
            with pytest.raises(LockedError, match="another command runs a study of this folder"):
                list(run_plan(plan, client=client))
            events = [event for _, event in first]
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert results(tmp_path) == results(alone)
    assert len(ended) == 3
    assert not any(isinstance(event, TrialStarted) for event in events)  # none was run again


@pytest.mark.slow
def test_studies_of_two_data_sets_on_one_cluster_do_not_mix_their_voxels(tmp_path, monkeypatch):
    share_nothing(monkeypatch)
    with client_in_this_process() as client:
        for seed in (1, 2):
            settings = merge(SETTINGS, {"data": {"source": f"phantom:subjects=4,size=24,seed={seed}"}})
            study = make_study(name="s", variants=make_variants(settings, []), seeds=(0,))
            run(tmp_path / f"alone{seed}", study)
            plan = make_plan(study, tmp_path / f"out{seed}", cache_dir=None)
            remote = left_by_a_killed_command(plan, client)  # whose voxels stay on the cluster, as beside another study
            run(tmp_path / f"out{seed}", study, client)
            keys = {future.key for future in remote.sent.futures.values()}
            assert len(keys) == 1
            assert not keys & {"images", "masks"}
            assert results(tmp_path / f"out{seed}") == results(tmp_path / f"alone{seed}")


@pytest.mark.slow
def test_closing_the_run_stops_the_trials_and_leaves_nothing_on_the_cluster(tmp_path):
    settings = merge(SETTINGS, {"train": {"epochs": 1000, "steps_per_epoch": 50}})
    study = make_study(name="s", variants=make_variants(settings, []), seeds=(0,))
    plan = make_plan(study, tmp_path, cache_dir=None)
    with client_in_this_process(1) as client:
        events = run_plan(plan, client=client)
        next(events)
        events.close()
        assert list(client.list_datasets()) == []
        with plan.trials[0].folder.locked():  # soon: within the time that a lock is waited for
            pass


def test_a_scheduler_that_is_not_there_and_one_without_workers_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(start, "CONNECT_S", 1.0)
    monkeypatch.setattr(start, "NOTE_AFTER_S", 0.1)
    monkeypatch.setattr(start, "WORKERS_S", 0.1)
    address = f"tcp://127.0.0.1:{free_port()}"
    refused = (
        rf"^--scheduler-address {address}: cannot be reached: Connection refused; is `dask scheduler` running[^\n]*$"
    )
    with pytest.raises(SettingError, match=refused):
        connected(ClusterSpec(address)).__enter__()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tls://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(SettingError, match=rf"^--scheduler-address {address}: cannot be reached: TLS expects"):
            connected(ClusterSpec(address)).__enter__()
    with pytest.raises(SettingError, match=r"^--scheduler-address x://127\.0\.0\.1:1: cannot be reached: "):
        connected(ClusterSpec("x://127.0.0.1:1")).__enter__()
    with LocalCluster(n_workers=0, processes=False, scheduler_kwargs=NO_DASHBOARD, silence_logs=50) as cluster:
        address = cluster.scheduler.address
        with pytest.raises(SettingError, match=r"has no worker; on each machine: dask worker .* --nthreads 1"):
            connected(ClusterSpec(address)).__enter__()


def test_a_worker_that_would_run_two_trials_at_once_is_refused():
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, scheduler_kwargs=NO_DASHBOARD, silence_logs=50
        ) as made,
        pytest.raises(SettingError, match=r"runs 2 tasks at once.*--nthreads 1"),
    ):
        connected(ClusterSpec(made.scheduler.address)).__enter__()


@pytest.mark.slow
def test_the_command_starts_a_cluster_on_this_machine(dlx, tmp_path):
    dlx("train", *SMALL_ARGS, "--epochs", "1", "--seeds", "2", "--out", "alone")
    dlx("train", *SMALL_ARGS, "--epochs", "1", "--seeds", "2", "--out", "out", "--executor", "dask")
    assert results(Path("out")) == results(Path("alone"))


def listening_places() -> set[str]:
    """The addresses at which this process and those that it has started listen."""
    this = psutil.Process()
    every = [one for process in (this, *this.children(recursive=True)) for one in process.net_connections("tcp")]
    return {one.laddr.ip for one in every if one.status == psutil.CONN_LISTEN}


@pytest.mark.long
def test_a_network_that_ends_its_worker_fails_after_bounded_retries_and_the_others_run(dlx, tmp_path):
    write_nets(tmp_path)
    words = [word for word in SMALL_ARGS if word not in ("--model", "unet2:width=4,levels=2")]
    (tmp_path / "study.toml").write_text(
        'question = "?"\nseeds = 1\ncontrol = "a"\n[[axes]]\nname = "net"\ntables = [\n'
        '{ label = "a", model = "unet2:width=4,levels=2" }, { label = "b", model = "nets.py:EndsItsWorker" }]\n'
    )
    dlx("run", "study.toml", *words, "--trust-code", "--epochs", "1", "--out", "out", "--executor", "dask", expect=1)
    records = [json.loads(path.read_text()) for path in Path("out/trials").glob("*/result.json")]
    assert {record["label"]: record["status"] for record in records} == {"a": "done", "b": "failed"}
    (cause,) = [record["cause"] for record in records if record["label"] == "b"]
    assert cause == "its worker died 4 times (too little memory?)"


@pytest.mark.slow
def test_a_cluster_of_this_machine_listens_on_loopback_alone_and_replaces_a_killed_worker(tmp_path, alone):
    plan = make_plan(small_study(), tmp_path, cache_dir=None)
    num_kills = 0
    with connected(cluster_from("dask", None, None, None), 1) as cluster:
        assert cluster.client.scheduler.address.startswith("tcp://127.0.0.1:")
        assert listening_places() == {"127.0.0.1"}
        for _, event in run_plan(plan, client=cluster.client):
            if isinstance(event, EpochRecord) and num_kills == 0:
                (pid,) = cluster.client.run(os.getpid).values()
                os.kill(pid, signal.SIGKILL)
                num_kills += 1
    assert num_kills == 1
    assert results(tmp_path) == results(alone)


@pytest.mark.long
def test_a_killed_worker_process_loses_and_doubles_nothing(tmp_path):
    kills = {"num_worker_kills": 1, "num_scheduler_kills": 0, "num_client_kills": 0}
    out = run_with_faults(tmp_path, FEW, **kills, seed=1, pauses_s=(0.5, 3.0))
    assert differences(out, run_alone(tmp_path, FEW)) == ""


@pytest.mark.long
def test_kills_of_workers_the_scheduler_and_the_client_lose_and_double_nothing(tmp_path):
    out = run_with_faults(tmp_path, num_worker_kills=2, num_scheduler_kills=1, num_client_kills=1, seed=0)
    assert differences(out, run_alone(tmp_path)) == ""


SBATCH = """#!/bin/sh
# a stand-in for a job scheduler: runs the script at once, in the background
for script; do :; done
job="$PWD/$(basename "$script").job"
cp "$script" "$job"
setsid sh "$job" > "$job.log" 2>&1 &
echo "Submitted batch job $!"
"""


FAILING_SBATCH = '#!/bin/sh\necho "sbatch: error: invalid partition specified: gpu" >&2\nexit 1\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Puts a stand-in for SLURM's `sbatch` on the path."""
    pytest.importorskip("dask_jobqueue")

    def put(sbatch: str) -> None:
        for name, text in (("sbatch", sbatch), ("scancel", '#!/bin/sh\nfor job; do kill -- -"$job"; done\n')):
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return put


def test_jobs_that_cannot_be_submitted_are_an_error_with_what_the_job_scheduler_wrote(tmp_path, monkeypatch, slurm):
    monkeypatch.setattr(start, "NOTE_AFTER_S", 0.5)
    monkeypatch.chdir(tmp_path)
    path = cluster_file(tmp_path, '[cluster]\nworkers = 2\nhost = "127.0.0.1"\nmemory = "2GB"\n')
    spec = cluster_from(None, None, "slurm", path)
    with pytest.raises(
        SettingError, match=r"^--cluster slurm: no job could be submitted: sbatch is not installed on this machine$"
    ):
        connected(spec).__enter__()
    slurm(FAILING_SBATCH)
    with pytest.raises(SettingError, match=r"submitted: sbatch: error: invalid partition specified: gpu$"):
        connected(spec).__enter__()
    cluster_file(tmp_path, '[cluster]\nworkers = 2\ninterface = "none0"\nmemory = "2GB"\n')
    with pytest.raises(SettingError, match=r"^--cluster slurm: the scheduler cannot be started: [^\n]*none0[^\n]*$"):
        connected(cluster_from(None, None, "slurm", path)).__enter__()


@pytest.mark.long
@pytest.mark.parametrize("tls", ["false", "true"])
def test_workers_that_a_job_scheduler_starts_run_the_trials(dlx, tmp_path, slurm, tls):
    if tls == "true":
        pytest.importorskip("cryptography")
    slurm(SBATCH)
    cluster_file(tmp_path, f'[cluster]\nworkers = 2\nhost = "127.0.0.1"\nmemory = "2GB"\ntls = {tls}\n')
    dlx("train", *SMALL_ARGS, "--epochs", "1", "--seeds", "2", "--out", "alone")
    words = ["--cluster", "slurm", "--cluster-file", "cluster.toml"]
    dlx("train", *SMALL_ARGS, "--epochs", "1", "--seeds", "2", "--out", "out", *words)
    assert results(Path("out")) == results(Path("alone"))


def test_jobs_that_end_early_again_and_again_are_no_longer_replaced(monkeypatch):
    monkeypatch.setattr(jobs, "REPLACE_EVERY_S", 0.01)
    scaled, told = [], []
    started = jobs.Jobs(SimpleNamespace(scale=lambda jobs: scaled.append(jobs)))
    is_over = threading.Event()
    keeper = threading.Thread(target=jobs._replace, args=(started, 2, is_over, told.append))
    keeper.start()
    while len(scaled) < 3:
        time.sleep(0.01)
    started.num_short = 7
    keeper.join(10)
    assert not keeper.is_alive()
    assert set(scaled) == {2}
    assert told == ["7 jobs ended within 10 minutes: no more are submitted"]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_of_running_trials_has_their_workers_and_unbroken_words(tmp_path, width):
    plan = make_plan(small_study(1), tmp_path, cache_dir=None)
    console = PlainConsole(stderr=True)
    console.width = width
    table = TrialsTable(console, plan)
    for index, task in enumerate(plan.trials):
        table.show(index, TrialStarted(task.trial, 8, 40, 3, (), worker="tcp://10.0.0.12:40437"))
    with console.capture() as printed:
        console.print(table.render())
    lines = printed.get().splitlines()
    header = next(line for line in lines if "worker" in line)
    assert header.split()[:4] == ["running", "seed", "epoch", "worker"]
    rows = [line.split() for line in lines if "10.0.0.12:40437" in line]
    assert [row[:4] for row in rows] == [[f"p={p}", "0", "3/8", "10.0.0.12:40437"] for p in (0.0, 0.3)]
    assert max(map(len, lines)) <= width


@pytest.mark.slow
def test_python_warns_of_what_becomes_of_the_workers(tmp_path, monkeypatch, caplog, alone):
    refused, local = [], StudyOnWorker.local

    def local_but_once(self, task):
        if not refused:
            refused.append(task)
            raise DlxError("a made-up cause")
        return local(self, task)

    monkeypatch.setattr(StudyOnWorker, "local", local_but_once)
    events = []
    with client_in_this_process() as client:
        monkeypatch.setattr(start, "running", lambda *_: nullcontext(client))
        dlx_run(small_study(), out=tmp_path, on_event=lambda trial, event: events.append(event))
    assert results(tmp_path) == results(alone)
    (warning,) = [record.message for record in caplog.records if "refused" in record.message]
    assert warning.startswith("a worker refused a trial, which another one gets: a made-up cause (on ")
    assert not any(isinstance(event, ClusterNote) for event in events)


WALLTIME_SBATCH = SBATCH.replace(
    "setsid sh", "echo job >> jobs.txt; [ -e first ] || limit='timeout -s KILL 20'; touch first; setsid $limit sh"
)


@pytest.mark.long
def test_a_job_that_reaches_its_walltime_is_replaced_and_its_trial_goes_on(dlx, tmp_path, monkeypatch, slurm):
    monkeypatch.setattr(jobs, "REPLACE_EVERY_S", 2.0)
    monkeypatch.setattr(jobs, "LOST_AFTER_S", 3)
    slurm(WALLTIME_SBATCH)
    cluster_file(tmp_path, '[cluster]\nworkers = 1\nhost = "127.0.0.1"\nmemory = "2GB"\n')
    words = [*SMALL_ARGS, "--epochs", "20", "--steps-per-epoch", "120", "--seeds", "1"]
    dlx("train", *words, "--out", "alone")
    dlx("train", *words, "--out", "out", "--cluster", "slurm", "--cluster-file", "cluster.toml")
    assert results(Path("out")) == results(Path("alone"))
    assert len(Path("jobs.txt").read_text().splitlines()) == 2
    assert "no worker that can run these trials" in dlx.last_output()
