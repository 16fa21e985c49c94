"""Attention flow against another solver, and against what can be counted by hand."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from tests.capture.decoders import decoder, eager_twin
from tests.maps.eager_pass import close, eager_pass
from vlmattn.capture.whole import WholePass
from vlmattn.core.errors import SpecError
from vlmattn.maps.attention_flow import attention_flow, contracted, grouped

TOKENS = 29


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 97, (1, TOKENS), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def random_capacities(depth: int, nodes: int, seed: int = 0) -> np.ndarray:
    """½ (A + I) of causal rows, uneven."""
    rng = np.random.default_rng(seed)
    attention = np.tril(rng.random((depth, nodes, nodes)) ** 6 + 1e-6)
    attention /= attention.sum(-1, keepdims=True)
    return np.asarray(0.5 * attention + 0.5 * np.eye(nodes))


def other_solver(capacities: np.ndarray, source: int, sink: int) -> float:
    graph = nx.DiGraph()
    depth, nodes, _ = capacities.shape
    graph.add_nodes_from((level, node) for level in range(depth + 1) for node in range(nodes))
    for layer, above, below in zip(*np.nonzero(capacities), strict=True):
        graph.add_edge((layer + 1, above), (layer, below), capacity=float(capacities[layer, above, below]))
    return float(nx.maximum_flow_value(graph, (depth, source), (0, sink)))


@pytest.mark.parametrize("seed", range(4))
def test_flow_is_that_of_another_solver(seed: int) -> None:
    capacities = random_capacities(2 + seed, 7, seed)
    found = attention_flow(capacities, 6, range(7))
    wanted = [other_solver(capacities, 6, sink) for sink in range(7)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.max() > 0.1
    assert found.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ["llama_gqa", "gemma3_window", "gemma2_softcap", "gpt_oss_sinks"])
def test_flow_of_a_model_is_that_of_its_eager_matrices(name: str) -> None:
    model = decoder(name)
    plain = eager_pass(eager_twin(model), inputs())
    capacities = contracted(WholePass(model).run(inputs()), np.arange(TOKENS))
    wanted = np.stack([0.5 * a.mean(0) + 0.5 * np.eye(TOKENS) for a in plain.attention_lhqk])
    close(capacities, wanted)
    sinks = [1, 4, 17, 25]
    flows = attention_flow(capacities, 25, sinks)
    np.testing.assert_allclose(flows, [other_solver(wanted, 25, sink) for sink in sinks], atol=1e-6)


def test_one_layer_is_the_capacity_itself() -> None:
    capacities = random_capacities(1, 6)
    np.testing.assert_allclose(attention_flow(capacities, 4, range(6)), capacities[0, 4], atol=1e-6)


def test_the_narrowest_place_decides() -> None:
    capacities = np.zeros((3, 3, 3))
    capacities[2, 2, 1], capacities[1, 1, 1], capacities[0, 1, 0] = 0.7, 0.2, 0.9
    capacities[2, 2, 2], capacities[1, 2, 2], capacities[0, 2, 0] = 0.3, 0.3, 0.1
    np.testing.assert_allclose(attention_flow(capacities, 2, [0, 1]), [0.3, 0.0], atol=1e-6)


def test_each_token_has_a_flow_of_its_own() -> None:
    """They do not add up: all sinks together get less than the sum."""
    flows = attention_flow(random_capacities(4, 8), 7, range(8))
    assert flows.sum() > 1.2


def test_contracted_capacities_are_the_sums_and_flows_no_less() -> None:
    model = decoder("mistral_window")
    held = WholePass(model).run(inputs())
    groups = np.array([0, *np.repeat([1, 2, 3], 8), 4, 5, 6, 7])
    found, single = contracted(held, groups), contracted(held, np.arange(TOKENS))
    inside = np.eye(8)[groups]
    close(found, inside.T @ single @ inside)
    row = 27
    coarse = attention_flow(found, int(groups[row]), range(8))
    fine = attention_flow(single, row, range(TOKENS))
    assert all(coarse[groups[token]] >= fine[token] - 1e-6 for token in range(row + 1))


def test_a_wide_node_beside_a_single_row_is_counted() -> None:
    capacities = random_capacities(3, 5)
    wide = capacities.copy()
    wide[:, 1, 1] = 1e5
    wanted = [other_solver(wide, 4, sink) for sink in range(5)]
    np.testing.assert_allclose(attention_flow(wide, 4, range(5)), wanted, atol=1e-6)
    np.testing.assert_array_equal(attention_flow(np.zeros((2, 3, 3)), 1, [0, 2]), [0, 0])


def test_heads_can_be_chosen() -> None:
    model = decoder("llama_gqa")
    held, plain = WholePass(model).run(inputs()), eager_pass(eager_twin(model), inputs())
    found = contracted(held, np.arange(TOKENS), heads=[1])
    close(found, np.stack([0.5 * a[1] + 0.5 * np.eye(TOKENS) for a in plain.attention_lhqk]))


@pytest.mark.parametrize(("depth", "tokens", "size"), [(32, 600, 1), (32, 3000, 100)])
def test_deep_models_with_many_tokens_can_be_counted(depth: int, tokens: int, size: int) -> None:
    """What the edges of all layers add up to has no bound; what one of them can carry has."""
    nodes = tokens // size
    capacities = np.zeros((depth, nodes, nodes))
    capacities[:, np.arange(nodes), np.arange(nodes)] = 0.5 * size
    capacities[:, np.arange(1, nodes), np.arange(nodes - 1)] = 0.5 * size
    # Straight down, and one place aside: there is one way for the first, as many as layers for the second.
    np.testing.assert_allclose(attention_flow(capacities, nodes - 1, [nodes - 1, nodes - 2]), [0.5 * size, size])


def test_six_hundred_tokens_in_blocks_take_less_than_ten_seconds() -> None:
    started = time.process_time()
    capacities = random_capacities(32, 46)
    attention_flow(capacities, 45, range(1, 37))
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("capacities", "source", "sinks", "message"),
    [
        (np.ones((2, 3)), 0, [0], "layers, nodes, nodes"),
        (np.ones((2, 3, 4)), 0, [0], "layers, nodes, nodes"),
        (np.full((1, 2, 2), np.nan), 0, [0], "0 or more"),
        (-np.ones((1, 2, 2)), 0, [0], "0 or more"),
        (np.ones((1, 2, 2)), 2, [0], r"nodes \[2\]"),
        (np.ones((1, 2, 2)), 0, [-1], r"nodes \[-1\]"),
    ],
)
def test_what_it_refuses(capacities: Any, source: int, sinks: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attention_flow(capacities, source, sinks)


def test_groups_that_do_not_fit() -> None:
    held = WholePass(decoder("llama_gqa")).run(inputs())
    for groups in (np.arange(5), np.arange(TOKENS) - 1):
        with pytest.raises(SpecError, match="one number, at least 0"):
            contracted(held, groups)


def test_asked_rows_and_the_first_token_stay_alone() -> None:
    kinds = np.array([0, 1, 1, 2, 2, 2, 2, 1, 1, 3, 3, 3])
    places = [None, None, None, (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 1), *[None] * 5]
    found = grouped(kinds, places, [10], 2)
    assert found.tolist() == [0, 1, 1, 2, 3, 2, 3, 4, 4, 5, 6, 7]
    assert grouped(kinds, places, [10], None).tolist() == list(range(12))
    both = grouped(kinds, places, [7, 8], 2)
    assert both.tolist() == [0, 1, 1, 2, 3, 2, 3, 4, 5, 6, 6, 6]
    assert all(b - a <= 1 for a, b in pairwise(sorted(set(both.tolist()))))
