"""Exit codes, and what real signals leave behind: whole files, no processes, a run that the same command resumes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dlx.cli import main
from small import SMALL_ARGS

LOOK_EVERY_S = 0.01
END_S = 30.0  # how long a process may take to end; far more than it needs
SWEEP = ["sweep-dropout", "--p", "0.2", "--seeds", "1", *SMALL_ARGS]
LONG = ["--epochs", "2000"]  # minutes, for runs that are stopped


class Run:
    """A `dlx` command in a session of its own, with a temporary folder of its own."""

    def __init__(self, place, *args):
        # a short path: multiprocessing's sockets are there, and without them workers are started in another way
        self.temporary = Path(tempfile.mkdtemp(prefix="dlx-"))
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "DLX_CACHE_DIR": str(place / "cache"),
            "TMPDIR": str(self.temporary),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dlx", *args],
            start_new_session=True,
            env=environment,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, is_true):
        """Waits until the claim about the running command is true."""
        while not is_true():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(LOOK_EVERY_S)

    def num_threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def processes(self):
        """The ids of all processes of the session that are no zombies."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has just ended
                continue
            if int(session) == self.process.pid and state != "Z":
                found.append(int(folder.name))
        return found

    def workers(self):
        """The processes that run trials: those that the server forked."""
        parents = {
            pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in self.processes()
        }
        return [pid for pid, parent in parents.items() if parent in parents and parent != self.process.pid]

    def end(self):
        """The exit code and what was printed on stderr, once all of its processes have ended; a minute after that, no
        file of them may be unfinished.
        """
        _, errors = self.process.communicate(timeout=END_S)
        deadline = time.monotonic() + END_S
        while self.processes():
            assert time.monotonic() < deadline, f"left behind: {self.processes()}"
            time.sleep(LOOK_EVERY_S)
        return self.process.returncode, errors


@pytest.fixture
def start(tmp_path):
    """Starts a command in the test's folder; what is left of it at the test's end is killed."""
    runs = []

    def begin(*args):
        runs.append(Run(tmp_path, *args))
        return runs[-1]

    yield begin
    for run in runs:
        for pid in run.processes():
            os.kill(pid, signal.SIGKILL)
        run.process.communicate()  # closes the pipes of one that did not end in time, too
        shutil.rmtree(run.temporary)


def unfinished(folder):
    """The temporary files in a folder; JSON that is cut short raises an error."""
    for path in folder.rglob("*.json*"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        for line in lines:
            json.loads(line)
    return list(folder.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, 143)]
)
def test_a_stop_while_volumes_are_read_waits_for_none_of_them(start, tmp_path, how, code):
    # drawing one such phantom takes many seconds
    run = start("train", "--data", "phantom:subjects=4,size=384", "--out", "out")
    run.wait_until(lambda: run.num_threads() > 2)
    stopped = time.monotonic()
    run.process.send_signal(how)
    found, errors = run.end()
    assert found == code
    assert errors == f"\ndlx: {'interrupted' if code == 130 else 'stopped by SIGTERM'}\n"
    assert time.monotonic() - stopped < 5
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.safetensors*"))


@pytest.mark.slow
def test_a_study_stopped_with_all_its_processes_has_no_failed_trial(start, tmp_path):
    out = tmp_path / "out"
    run = start(*SWEEP, *LONG, "--out", "out")
    run.wait_until(lambda: len(list(out.glob("trials/*/epochs.jsonl"))) == 2)
    os.killpg(run.process.pid, signal.SIGTERM)  # as a job scheduler does
    code, errors = run.end()
    assert code == 143
    assert "stopped by SIGTERM; 0 of 2 trials are done" in errors
    assert "report with:  dlx report " in errors
    assert "resume with:  dlx sweep-dropout" in errors
    assert "failed" not in errors
    assert not list(out.glob("trials/*/result.json"))
    assert unfinished(out) == []
    assert list(run.temporary.glob("pymp-*")) == []  # the sockets of multiprocessing


@pytest.mark.slow
@pytest.mark.long
def test_a_study_stopped_before_its_report_gives_it_later(start, tmp_path):
    out = tmp_path / "out"
    run = start(*SWEEP, "--epochs", "4", "--out", "out")
    run.wait_until(lambda: len(list(out.glob("trials/*/result.json"))) == 2)
    run.process.send_signal(signal.SIGTERM)  # trials are over, the report is to be written
    code, errors = run.end()
    assert code == 143
    assert unfinished(out) == []

    code, errors = start("report", "out").end()
    assert code == 0, errors
    assert {"report.md", "report.svg", "results.csv"} <= {path.name for path in out.iterdir()}
    for path in out.glob("trials/*/epochs.jsonl"):
        assert [json.loads(line)["result"]["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.long
def test_a_stop_while_subjects_are_scored_leaves_no_result(start, tmp_path):
    args = ["train", "--data", "phantom:subjects=3,size=64", *SMALL_ARGS[2:], "--epochs", "1", "--out", "out"]
    args += ["--set", "evaluate.train_subset=0"]
    run = start(*args)
    run.wait_until(lambda: list(tmp_path.glob("out/trials/*/last.safetensors")))
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.end()
    assert code == 143
    assert "1 finished epoch of unfinished trials kept" in errors
    assert not list(tmp_path.glob("out/trials/*/result.json"))
    assert unfinished(tmp_path / "out") == []


@pytest.mark.slow
def test_a_second_interrupt_ends_the_command_at_once_and_its_workers_with_it(start, tmp_path):
    run = start(*SWEEP, *LONG, "--out", "out")
    run.wait_until(lambda: len(list(tmp_path.glob("out/trials/*/epochs.jsonl"))) == 2)
    workers = run.workers()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # they do not end when they are told to
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(3) == 130  # without the second one it would wait 5 s for them
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert run.end()[0] == 130
    assert all(path.name.startswith(".") for path in unfinished(tmp_path / "out"))  # removed when the trial goes on


PREPARED = "import os, signal\nfrom dlx.system.interrupts import *\nfrom dlx.system import interrupts\n"


def run_code(code, **options):
    command = [sys.executable, "-c", PREPARED + code]
    return subprocess.run(command, capture_output=True, text=True, check=False, **({"timeout": END_S} | options))


def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored():
    code = (
        "stop_on_signals()\nos.kill(os.getpid(), signal.SIGINT)\nprint('went on')\nos.kill(os.getpid(), signal.SIGTERM)"
    )
    done = run_code(code, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.stdout == "went on\n"
    assert "Stopped: SIGTERM" in done.stderr


def test_a_stop_while_processes_are_started_comes_after_that():
    code = """
stop_on_signals()
for number in (signal.SIGTERM, signal.SIGINT):
    interrupts._received.stop = None
    try:
        with interrupts_blocked():
            os.kill(os.getpid(), number)
            print("started", flush=True)
    except KeyboardInterrupt as stop:
        print(exit_code(stop))
"""
    assert run_code(code).stdout.split() == ["started", "143", "started", "130"]


SWALLOWED = """
stop_on_signals()
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigpending()
thing = Swallows()
del thing
"""


def test_a_stop_that_was_swallowed_before_files_are_read_is_raised_then():
    code = f"""
from dlx.system.threads import thread_pool
{SWALLOWED}try:
    with thread_pool(1):
        print("reads")
except KeyboardInterrupt as stop:
    print(exit_code(stop))
"""
    assert run_code(code).stdout == "143\n"


@pytest.mark.slow
def test_a_stop_at_any_moment_of_a_pool_of_threads_is_raised_at_once():
    code = """
import sys, threading, time
from dlx.system.threads import thread_pool
stop_on_signals()
LOCKS = ("threading.py", "thread.py", "_base.py", "threads.py", "interrupts.py")

def attempt(moment, seconds):
    # sends the signal before this bytecode instruction of the modules with locks, while calls take these seconds; how
    # long the stop took, and -1 if all had ended before that instruction
    interrupts._received.stop = None
    ends, sent, count = threading.Event(), None, 0
    def trace(frame, event, arg):
        nonlocal sent, count
        if not frame.f_code.co_filename.endswith(LOCKS):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        if count == moment and sent is None:
            sent = time.monotonic()
            signal.raise_signal(signal.SIGTERM)
        return trace
    sys.settrace(trace)
    try:
        with thread_pool(2) as pool:
            list(pool.map(lambda _: ends.wait(seconds), range(2)))
        return -1 if sent is None else 99
    except Stopped:
        return time.monotonic() - sent
    except BaseException as error:
        print(moment, repr(error))
    finally:
        sys.settrace(None)
        ends.set()

took = [attempt(moment, 5) for moment in range(1, 1200, 7)]  # threads are started, then waited for
print(min(took), max(took))
moment, slowest = 1, 0
while (took := attempt(moment, 0)) >= 0:  # and end by themselves
    moment, slowest = moment + 7, max(slowest, took)
print(slowest, moment > 700)
"""
    done = run_code(code, timeout=120)
    fastest, slowest, slowest_at_end, is_whole = done.stdout.split()
    assert float(fastest) >= 0
    assert max(float(slowest), float(slowest_at_end)) < 2
    assert is_whole == "True"


def run_stopped_command(reaction):
    """Runs `dlx` with a command that receives SIGTERM and reacts to its exception in this way."""
    return run_code(f"""
from dlx.cli import main
def command(**_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Stopped:
        {reaction}
stop_on_signals()
main.app = command
main.run()
""")


def test_a_stop_that_another_error_replaces_is_a_stop():
    done = run_stopped_command("raise RuntimeError('release unlocked lock') from None")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "dlx: stopped by SIGTERM\n")


def test_an_error_after_a_stop_was_caught_is_an_error():
    done = run_stopped_command("stop_caught(); raise ZeroDivisionError('one by none')")
    assert done.returncode == 70
    assert "ZeroDivisionError: one by none" in done.stderr


def test_a_stop_that_was_swallowed_is_raised_again_and_not_twice_by_signals():
    code = f"""{SWALLOWED}os.kill(os.getpid(), signal.SIGTERM)
print(was_stopped(), flush=True)
try:
    raise_if_stopped()
except Stopped as stop:
    print(stop)
"""
    assert run_code(code).stdout.split() == ["True", "SIGTERM"]


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--help"], ["make-phantom", "new", "--size", "16"]])
def test_a_closed_output_gives_141(args, tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dlx", *args]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_error_of_the_program_itself_is_no_failed_trial(monkeypatch, capsys):
    def fail(**_):
        raise ZeroDivisionError("one by none")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as end:
        main.run()
    assert end.value.code == 70
    assert "ZeroDivisionError: one by none" in capsys.readouterr().err


def test_every_exit_code_is_in_the_help_and_in_the_documentation(dlx):
    page = (Path(__file__).parents[1] / "docs/install.md").read_text(encoding="utf-8")
    shown = dlx("--help").stdout.split()
    for code in ("0", "1", "2", "70", "130", "141", "143"):
        assert code in shown
        assert f"| {code} |" in page
