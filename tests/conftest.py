"""What every test shares: one thread, so that figures and times do not depend on the machine's cores."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for processes that tests start
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)
