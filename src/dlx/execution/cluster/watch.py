"""What becomes of a study's workers while it runs: notes for the user."""

from collections.abc import Iterator, Mapping
from typing import Any

from distributed import Client

from dlx.execution.cluster.facts import WorkerFacts, crowding, facts, misfit, unlikeness

NO_WORKER = "the cluster has no worker that can run these trials: they wait until one comes"


class WorkerWatch:
    """Compares the workers that are there with those that were there before."""

    def __init__(self, client: Client, expected: WorkerFacts) -> None:
        self.client, self.expected = client, expected
        self.asked: dict[str, WorkerFacts] = {}  # by address
        self.present: dict[str, str] = {}  # names by address
        self.running: dict[str, tuple[str, int]] = {}  # by a worker's name, its trial and how many epochs that has done
        self.noted: set[str] = set()
        self.has_workers = True

    def workers(self) -> dict[str, Any]:
        """What the scheduler says of each worker that is there now, by its address. OSError without a scheduler."""
        found: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        return found

    def ended(self, trial: str) -> None:
        """No worker runs this trial any more."""
        self.running = {worker: one for worker, one in self.running.items() if one[0] != trial}

    def notes(self, workers: Mapping[str, Any], *, need_gpu: bool, threads: int) -> Iterator[str]:
        """Notes on these workers: which were lost; none can run the trials, or one can again; which do not fit, are
        unlike, or too many for their machine.

        `threads` are those of a trial on a CPU, 0 on a GPU.
        """
        for address in sorted({*self.present} - {*workers}):
            trial, done = self.running.pop(self.present[address], ("", 0))
            gets = f": another one gets {trial}" if trial else ""
            yield f"worker {address} was lost{gets}" + (f" (its epoch {done} was done)" if done else "")
        self.present = {address: str(worker["name"]) for address, worker in workers.items()}
        has_workers = any(offers_gpu(worker) or not need_gpu for worker in workers.values())
        if has_workers != self.has_workers:
            self.has_workers = has_workers
            yield "the cluster has workers again" if has_workers else NO_WORKER
        new = [address for address in workers if address not in self.asked]
        if not new:
            return
        found = self.client.run(facts, workers=new, on_error="ignore")
        is_first = not self.asked  # those were compared before the study began
        self.asked |= found
        for address, one in found.items():
            if why := misfit(one, self.expected, workers[address]["nthreads"]):
                yield f"worker {address} refuses trials: it {why}"
        for remark in unlikeness(list(self.asked.values())):
            if remark not in self.noted and not is_first:
                yield remark
            self.noted.add(remark)
        for remark in crowding([one for address, one in self.asked.items() if address in workers], threads):
            if remark not in self.noted:
                yield remark
            self.noted.add(remark)


def offers_gpu(worker: Mapping[str, Any]) -> bool:
    """Whether a worker, as the scheduler describes it, was started with `--resources GPU=1`."""
    return bool(worker["resources"].get("GPU"))
