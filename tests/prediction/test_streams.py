"""Several calls at once through one torch session: the answers of one, and torch's threads as they were."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from saccade.core.card import Card, InputSpec
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.classification.task import MEAN, STD, Classification

ARGUMENTS = {"classes": 3, "channels": 3, "width": 8, "blocks": [1, 1], "stem_stride": 1}
CARD = Card(
    "classify", ("a", "b", "c"), {"source": "saccade", "name": "x", "arguments": ARGUMENTS}, InputSpec(3, (17, 11), "crop", MEAN, STD)
)
THREADS = 3  # of torch in these tests: a number that neither it nor the suite sets by itself


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = Classification().build(CARD)
    nn.init.normal_(made.network.head.weight)
    return made.eval()


class Counting(nn.Module):
    """A network that notes how many threads it computes with, and fails where it is asked to."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails, self.seen = fails, set[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.add(torch.get_num_threads())
        if self.fails:
            raise ValueError("fails")
        return images.float().mean((2, 3))


def decode(outputs: torch.Tensor, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    return Classification().decode(outputs, size)


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (n, 3, 17, 11), dtype=np.uint8)


def elsewhere(function: Callable[[], int]) -> int:
    """What `function` gives in a thread that is new."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def everywhere() -> tuple[int, int]:
    """torch's threads here and in a thread that is new."""
    return torch.get_num_threads(), elsewhere(torch.get_num_threads)


@pytest.mark.parametrize("streams", [2, 3, 4, 9])
def test_answers_are_those_of_one_stream(network: nn.Module, streams: int) -> None:
    alone, several = TorchSession(network, CARD, decode), TorchSession(network, CARD, decode, streams=streams)
    assert (alone.streams, several.streams) == (1, streams)
    expected = [alone.run(images(1 + n % 5, n))["probabilities"] for n in range(24)]
    with ThreadPoolExecutor(streams + 2) as pool:
        found = list(pool.map(lambda n: several.run(images(1 + n % 5, n))["probabilities"], range(24)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.ptp([one[0, 0] for one in found]) > 1e-3
    assert everywhere() == (THREADS, THREADS)


def test_each_call_has_its_share_of_the_threads() -> None:
    for streams, share in ((1, THREADS), (2, 1), (3, 1), (8, 1)):
        network = Counting()
        session = TorchSession(network, CARD, decode, streams=streams)
        elsewhere(lambda session=session: len(session.run(images(2))["probabilities"]))
        session.run(images(2))
        assert network.seen == {share}, streams


def test_torch_has_its_threads_again_afterwards() -> None:
    session = TorchSession(Counting(), CARD, decode, streams=2)
    for _ in range(3):
        session.run(images(2))
        assert everywhere() == (THREADS, THREADS)
        assert elsewhere(lambda: len(session.run(images(1))["probabilities"]) * 0 + torch.get_num_threads()) == THREADS
        assert everywhere() == (THREADS, THREADS)


@pytest.mark.parametrize("streams", [2, 4])
def test_torch_has_its_threads_again_after_many_calls_at_once(network: nn.Module, streams: int) -> None:
    session = TorchSession(network, CARD, decode, streams=streams)
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            after = list(pool.map(lambda n: (session.run(images(2, n)), torch.get_num_threads())[1], range(30)))
        assert set(after) == {THREADS}
        assert everywhere() == (THREADS, THREADS)


def test_a_module_that_fails_leaves_torch_its_threads() -> None:
    for streams in (1, 2):
        session = TorchSession(Counting(fails=True), CARD, decode, streams=streams)
        for _ in range(2):
            with pytest.raises(ValueError, match="fails"):
                session.run(images(2))
            assert everywhere() == (THREADS, THREADS)
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(session.run, images(2)) for _ in range(12)]
        assert all(isinstance(future.exception(), ValueError) for future in futures)
        assert everywhere() == (THREADS, THREADS)
        with pytest.raises(TypeError):
            session.run("no images")  # type: ignore[arg-type]
        assert everywhere() == (THREADS, THREADS)


def test_one_stream_takes_one_call_at_a_time_and_leaves_the_threads_alone() -> None:
    class Turns(Counting):
        inside = most = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                return super().forward(images)
            finally:
                self.inside -= 1

    network = Turns()
    session = TorchSession(network, CARD, decode)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: session.run(images(2)), range(20)))
    assert (network.most, network.seen) == (1, {THREADS})


def test_a_session_that_is_made_while_another_computes_knows_the_threads_of_torch() -> None:
    """As a server does that loads a second model while the first one answers."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(Counting):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            inside.set()
            assert go_on.wait(10)
            return super().forward(images)

    first = TorchSession(Waiting(), CARD, decode, streams=2)
    thread = threading.Thread(target=first.run, args=(images(1),))
    thread.start()
    assert inside.wait(10)
    made: list[TorchSession] = []
    maker = threading.Thread(target=lambda: made.append(TorchSession(Counting(), CARD, decode, streams=2)))
    maker.start()
    maker.join()
    go_on.set()
    thread.join()
    made[0].run(images(1))
    assert everywhere() == (THREADS, THREADS)
