"""Which of several devices each worker process takes: with made-up devices."""

from dataclasses import replace

import torch

from dlx.execution.workers.devices import pick_device
from small import small_resolved

H, A = "NVIDIA H200", "NVIDIA A10"
FIRST = torch.device("cuda", 0)


def taken(asked, chosen, names, workers=4):
    return [pick_device(asked, chosen, names, worker).index for worker in range(workers)]


def test_workers_take_the_devices_in_turn():
    assert taken("auto", FIRST, [H, H, H]) == [0, 1, 2, 0]
    assert taken("cuda", FIRST, [H, H]) == [0, 1, 0, 1]
    assert taken("auto", FIRST, [H]) == [0, 0, 0, 0]


def test_a_device_that_was_named_serves_all():
    assert taken("cuda:1", torch.device("cuda", 1), [H, H, H]) == [1, 1, 1, 1]


def test_only_devices_of_one_name_are_taken():
    assert taken("auto", FIRST, [H, A, H]) == [0, 2, 0, 2]


def test_a_cpu_is_shared():
    assert pick_device("auto", torch.device("cpu"), [], 3) == torch.device("cpu")


def test_a_trials_id_does_not_hold_the_devices_number():
    resolved = small_resolved()
    ids = {
        replace(resolved, compute=replace(resolved.compute, device=torch.device("cuda", index))).trial_id(0)
        for index in (0, 3)
    }
    assert len(ids) == 1
