"""The simulation of many nodes, small: the real picker, and nobody is left waiting, whoever dies."""

import argparse

import pytest

from bench.simulation import Report, parser, simulate


def company(nodes: int, source: str, churn: float, seed: int) -> Report:
    options = vars(parser().parse_args(["--pieces", "48", "--hang", "0.5", "--seed", str(seed)]))
    return simulate(argparse.Namespace(**{**options, "nodes": nodes, "source": source, "churn": churn}))


@pytest.mark.parametrize("source", ["wan", "holder"])
def test_thirty_nodes_take_little_more_than_one_copy(source: str) -> None:
    report = company(30, source, 0.0, 1)
    assert report.finished == 30
    assert report.copies <= 1.15
    assert report.slowest <= 2.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whoever_dies_or_falls_silent_the_others_finish(seed: int) -> None:
    report = company(24, "wan", 0.5, seed)
    assert report.finished == report.alive
    assert report.copies <= 2.0
