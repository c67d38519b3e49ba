"""Notes for the user on the workers of a cluster, while a study runs there."""

from dataclasses import replace

import pytest

pytest.importorskip("distributed")

from dlx.execution.cluster.facts import crowding, facts
from dlx.execution.cluster.watch import WorkerWatch

HERE = replace(facts(), host="box", affinity=(0, 1, 2, 3), cores=4)


class Workers:
    """A client of a cluster with these workers: their facts by their names."""

    def __init__(self, **by_name):
        self.by_address = {f"tcp://{name}": one for name, one in by_name.items()}

    def run(self, _function, *, workers, on_error):
        assert on_error == "ignore"
        return {address: self.by_address[address] for address in workers}

    def now(self, *names):
        """What the scheduler says of those that are there."""
        return {f"tcp://{name}": {"name": name, "nthreads": 1, "resources": {}} for name in names}


def notes_of(watch, workers, threads=1):
    return list(watch.notes(workers, need_gpu=False, threads=threads))


@pytest.fixture
def three():
    """The workers a, b and c, and their watch, which has looked once."""
    client = Workers(a=HERE, b=HERE, c=HERE)
    watch = WorkerWatch(client, HERE)
    assert notes_of(watch, client.now("a", "b", "c")) == []
    return client, watch


def test_a_lost_worker_is_named_with_its_trial_and_how_far_that_was(three):
    client, watch = three
    watch.runs("tcp://a", "p=0.1, seed 3", 12)
    watch.runs("tcp://b", "p=0.2, seed 0", 0)
    first, second = notes_of(watch, client.now("c"))
    assert first.startswith("worker tcp://a was lost after epoch 12 of p=0.1, seed 3")
    assert second.startswith("worker tcp://b was lost at the start of p=0.2, seed 0")


def test_a_lost_worker_whose_trial_had_ended_had_none(three):
    client, watch = three
    watch.runs("tcp://a", "p=0.1, seed 3", 12)
    watch.leaves("p=0.1, seed 3")
    assert notes_of(watch, client.now("b", "c")) == ["worker tcp://a was lost"]


def test_a_worker_that_its_nanny_started_again_and_that_runs_another_trial_is_not_taken_for_the_lost_one(three):
    client, watch = three
    watch.runs("tcp://a", "p=0.1, seed 3", 12)
    client.by_address["tcp://a2"] = HERE
    watch.runs("tcp://a2", "p=0.2, seed 0", 1)
    again = {"tcp://a2": {"name": "a", "nthreads": 1, "resources": {}}}
    (note,) = notes_of(watch, client.now("b", "c") | again)
    assert "epoch 12 of p=0.1, seed 3" in note
    assert watch.running == {"tcp://a2": ("p=0.2, seed 0", 1)}


def test_workers_that_are_more_than_their_cores_are_noted_once(three):
    client, watch = three
    names = ["a", "b", "c"]
    found = []
    for new in "defg":
        client.by_address[f"tcp://{new}"] = HERE
        names.append(new)
        found += notes_of(watch, client.now(*names))
    (note,) = found
    assert note.startswith("box: 5 workers with 1 thread each share 4 cores")


def test_workers_that_refuse_trials_crowd_none_and_may_have_other_facts(three):
    client, watch = three
    other = Workers(d="an older dlx").now("d")
    client.by_address["tcp://d"] = replace(HERE, dlx="0.0.1")
    del client.by_address["tcp://d"].__dict__["cores"]
    (note,) = notes_of(watch, client.now("a", "b", "c") | other, threads=1)
    assert note.startswith("worker tcp://d refuses trials: it has dlx 0.0.1")


@pytest.mark.parametrize(
    ("found", "threads", "num_remarks"),
    [
        ([HERE] * 4, 1, 0),
        ([HERE] * 5, 1, 1),
        ([HERE], 8, 0),  # the user's own choice
        ([HERE] * 40, 0, 0),  # trials on GPUs
        ([HERE] * 2 + [replace(HERE, affinity=(4, 5, 6, 7))] * 2, 2, 0),  # two jobs on one machine, cores of their own
        ([HERE] * 3 + [replace(HERE, host="other")] * 3, 2, 2),
        ([replace(HERE, cores=1)] * 2, 1, 1),  # of four cores, a container's quota is one
    ],
)
def test_trials_that_have_more_threads_than_their_machine_has_cores_are_remarked_on(found, threads, num_remarks):
    assert len(crowding(found, threads)) == num_remarks


def test_this_process_says_where_it_is():
    here = facts()
    assert here.host
    assert here.cores >= 1
    assert here.affinity == tuple(sorted(here.affinity))
