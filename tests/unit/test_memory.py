"""Batches are written where earlier ones lay, and never where one is still held."""

from concurrent.futures import ThreadPoolExecutor

import torch

from ms_automl.data.memory import Recycled


def test_memory_that_nothing_holds_is_used_again() -> None:
    memory = Recycled()
    first = memory.empty((3, 5), torch.float32)
    place = first.data_ptr()
    del first
    again = memory.empty((5, 3), torch.int32)  # of as many bytes
    assert again.data_ptr() == place and again.shape == (5, 3) and again.dtype == torch.int32
    assert memory.empty((4,), torch.float32).data_ptr() != place


def test_memory_that_a_view_holds_is_left_alone() -> None:
    memory = Recycled()
    whole = memory.empty((4, 6), torch.float32).fill_(1)
    held = whole.movedim(1, 0)[2:3]
    del whole
    memory.empty((4, 6), torch.float32).fill_(2)
    assert held.tolist() == [[1.0] * 4]


def test_threads_never_get_the_same() -> None:
    memory = Recycled()

    def work(number: int) -> bool:
        for _ in range(300):
            tensor = memory.empty((1000,), torch.int64).fill_(number)
            if not bool((tensor == number).all()):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
