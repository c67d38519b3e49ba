"""What becomes of a study's workers while it runs: notes for the user."""

from collections.abc import Iterator, Mapping
from typing import Any

from distributed import Client

from dlx.execution.cluster.facts import SharedCores, WorkerFacts, crowding, facts, misfit, unlikeness

NO_WORKER = "the cluster has no worker that can run these trials: they wait until one comes"


class WorkerWatch:
    """Compares the workers that are there with those that were there before."""

    def __init__(self, client: Client, expected: WorkerFacts) -> None:
        self.client, self.expected = client, expected
        self.asked: dict[str, WorkerFacts] = {}  # by address
        self.present: set[str] = set()  # addresses
        self.running: dict[str, tuple[str, int]] = {}  # by address: a trial, and its epochs that are done
        self.noted: set[str] = set()
        self.crowded: set[SharedCores] = set()  # those that were noted
        self.unfit: set[str] = set()  # addresses
        self.has_workers = True

    def workers(self) -> dict[str, Any]:
        """What the scheduler says of each worker that is there now, by its address. OSError without a scheduler."""
        found: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        return found

    def runs(self, address: str, trial: str, done: int) -> None:
        """The worker at this address runs a trial, of which so many epochs are done."""
        self.running[address] = trial, done

    def leaves(self, trial: str) -> None:
        """No worker runs this trial any more."""
        self.running = {address: one for address, one in self.running.items() if one[0] != trial}

    def notes(self, workers: Mapping[str, Any], *, need_gpu: bool, threads: int) -> Iterator[str]:
        """Notes on these workers: which were lost; none can run the trials, or one can again; which do not fit, are
        unlike, or too many for their machine.

        `threads` are those of a trial on a CPU, 0 on a GPU.
        """
        for address in sorted(self.present - {*workers}):
            trial, done = self.running.pop(address, ("", 0))
            yield (
                f"worker {address} was lost"
                + (f" after epoch {done} of {trial}" if done else f" at the start of {trial}" if trial else "")
                + (": another worker takes that trial" if trial else "")
            )
        self.present = {*workers}
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
                self.unfit.add(address)
                yield f"worker {address} refuses trials: it {why}"
        for remark in unlikeness(list(self.asked.values())):
            if remark not in self.noted and not is_first:
                yield remark
            self.noted.add(remark)
        fit = [one for address, one in self.asked.items() if address in workers and address not in self.unfit]
        for place, remark in crowding(fit, threads).items():
            if place not in self.crowded:
                yield remark
            self.crowded.add(place)


def offers_gpu(worker: Mapping[str, Any]) -> bool:
    """Whether a worker, as the scheduler describes it, was started with `--resources GPU=1`."""
    return bool(worker["resources"].get("GPU"))
