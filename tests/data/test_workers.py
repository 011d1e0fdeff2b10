"""dmp_cli.data.workers: worker processes change no batch, and their death or end is handled cleanly."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data import get_worker_info

from dmp_cli.data.batches import read_batches
from dmp_cli.data.folder import FolderImages, find_images
from dmp_cli.data.readers import LiveReader
from dmp_cli.errors import DataError

from .batch_runs import assert_same, make, run
from .image_files import SIZE


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_start_change_nothing(tmp_path, workers):
    source = find_images(make(tmp_path, bad=(2, 3, 6)))
    straight = run(source, stop=9)
    state = torch.get_rng_state()
    spread = run(source, stop=9, workers=workers)
    assert_same(spread, straight)
    assert [batch.bad for batch in spread] == [batch.bad for batch in straight]
    assert_same(run(source, start=4, stop=9, workers=workers), straight[4:])
    assert_same(run(source, start=8, stop=9), straight[8:])
    assert run(source, start=9, stop=9, workers=workers) == []
    assert torch.equal(torch.get_rng_state(), state)


class Deadly(FolderImages):
    """Reading image 13 of 30, which seed 5 shows in step 7, in a worker sends that worker a signal."""

    number = signal.SIGKILL

    def read(self, index: int) -> bytes:
        if index == 13 and get_worker_info() is not None:
            time.sleep(0.2)  # until the parent waits for this step: its death must not meet the parent elsewhere
            os.kill(os.getpid(), self.number)
        return super().read(index)


def test_a_killed_worker_is_an_error_with_a_hint(tmp_path):
    source = find_images(make(tmp_path, 30))
    source.__class__ = Deadly
    with pytest.raises(DataError, match="worker process that reads images was killed") as caught:
        run(source, stop=9, workers=1)
    assert "--workers" in caught.value.hint


# A SIGTERM to the whole group ends the workers, not the parent, which goes on alone; Ctrl-C is left to the parent.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_the_group_leave_the_parent_able_to_go_on(tmp_path, number):
    source = find_images(make(tmp_path, 30))
    straight = run(source, stop=9)
    assert [batch.step for batch in straight if 13 in batch.indices] == [7]
    source.__class__, source.number = Deadly, number
    assert_same(run(source, stop=9, workers=1), straight)


def test_stopping_early_leaves_no_process(tmp_path):
    source = find_images(make(tmp_path))
    stream = read_batches(
        source,
        LiveReader(source, image_size=SIZE, channels=3),
        **{"batch_size": 3, "seed": 5, "flip": True, "max_bad": 0},
        **{"start_step": 0, "stop_step": 10**9, "workers": 2},
    )
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []
