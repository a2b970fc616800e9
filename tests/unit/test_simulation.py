"""A small simulation of many nodes with the real picker: all living nodes finish."""

import argparse

import pytest

from bench.simulation import Report, parser, simulate


def simulated(nodes: int, source: str, churn: float, seed: int) -> Report:
    options = vars(parser().parse_args(["--pieces", "48", "--hang", "0.5", "--seed", str(seed)]))
    return simulate(argparse.Namespace(**{**options, "nodes": nodes, "source": source, "churn": churn}))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["wan", "seed"])
def test_thirty_nodes_take_little_more_than_one_copy(source: str) -> None:
    report = simulated(30, source, 0.0, 1)
    assert report.finished == 30
    assert report.copies <= 1.15
    assert report.slowest <= 2.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_other_nodes_finish_when_some_die_or_fall_silent(seed: int) -> None:
    report = simulated(24, "wan", 0.5, seed)
    assert report.finished == report.alive
    assert report.copies <= 2.0
