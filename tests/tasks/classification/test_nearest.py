"""k-NN: the vote against a brute-force one, in steps of any size."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from tasks.classification.nearest import classified, unit, votes


def drawn(rows: int, seed: int) -> Tensor:
    return unit(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)))


QUERIES, BANK = drawn(23, 1), drawn(57, 2)
LABELS = torch.arange(57) % 4


def by_hand(k: int, temperature: float) -> Tensor:
    """One query and one neighbour at a time."""
    given = torch.zeros(len(QUERIES), 4, dtype=torch.float64)
    for number, query in enumerate(QUERIES):
        cosines = [float(torch.dot(query.double(), row.double())) for row in BANK]
        nearest = sorted(range(len(BANK)), key=lambda index: -cosines[index])[:k]
        for index in nearest:
            given[number, LABELS[index]] += math.exp((cosines[index] - cosines[nearest[0]]) / temperature)
    return given


@pytest.mark.parametrize("at_once", [(1024, 65536), (5, 10), (1, 1), (23, 7)])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (57, 1.0)])
def test_votes_are_those_of_brute_force(at_once: tuple[int, int], k: int, temperature: float) -> None:
    given = votes(QUERIES, BANK, LABELS, 4, k, temperature, at_once)
    torch.testing.assert_close(given.double(), by_hand(k, temperature), rtol=1e-4, atol=1e-6)


def test_the_vote_is_dinos_code() -> None:
    """knn_classifier of eval_knn.py, with its own names, for one chunk."""
    k, temperature, classes = 20, 0.07, 4
    distances, indices = torch.mm(QUERIES, BANK.T).topk(k, largest=True, sorted=True)
    candidates = LABELS.view(1, -1).expand(len(QUERIES), -1)
    retrieved = torch.gather(candidates, 1, indices)
    one_hot = torch.zeros(len(QUERIES) * k, classes).scatter_(1, retrieved.reshape(-1, 1), 1)
    transform = distances.clone().div_(temperature).exp_()
    probs = torch.sum(one_hot.view(len(QUERIES), -1, classes) * transform.view(len(QUERIES), -1, 1), 1)
    assert torch.equal(classified(QUERIES, BANK, LABELS, classes, k, temperature), probs.argmax(1))


def test_hot_votes_are_plain_k_nn() -> None:
    theirs = KNeighborsClassifier(1, metric="cosine").fit(BANK.numpy(), LABELS.numpy()).predict(QUERIES.numpy())
    assert classified(QUERIES, BANK, LABELS, 4, 1, 0.07).tolist() == theirs.tolist()


def test_a_cold_vote_is_no_overflow_and_no_tie_of_nothing() -> None:
    given = votes(QUERIES, BANK, LABELS, 4, 20, 1e-3)
    assert torch.isfinite(given).all()
    assert (given.max(1).values >= 1).all()  # the nearest one's own
    assert torch.equal(given.argmax(1), LABELS[(QUERIES @ BANK.T).argmax(1)])


def test_features_get_length_one() -> None:
    torch.testing.assert_close(unit(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))
