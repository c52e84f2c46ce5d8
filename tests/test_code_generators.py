"""GPT2, TIGER and the constrained beam search against their equations in plain numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_models import random_params, slow_trunk

from semid_jax.decode.beam import beam_search
from semid_jax.decode.topk import tie_hash
from semid_jax.decode.trie import build_trie, next_codes
from semid_jax.eval.beam import generate
from semid_jax.models.gpt2 import Gpt2, Gpt2Config, code_loss
from semid_jax.models.tiger import Tiger, TigerConfig, distance_bucket
from semid_jax.models.windows import append, newest
from semid_jax.train.code_objective import CodeTable
from semid_jax.types import InputError

N, T, D, L, K, B = 20, 5, 8, 3, 4, 3


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    every = np.array(list(itertools.product(range(K), repeat=L)), np.uint8)
    codes = np.concatenate([np.zeros((1, L), np.uint8), rng.permutation(every)[:N]])
    history = rng.integers(1, N + 1, (B, T)).astype(np.int32)
    history[1, 2:] = 0
    return codes, history


def log_softmax(x):
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def gpt2(codes, history, constrained=False, prefixes=False):
    config = Gpt2Config(width=D, layers=2, heads=2, constrained=constrained, prefixes=prefixes)
    model = Gpt2(config, L, K, T)
    params, p = random_params(model, codes[history], rng=np.random.default_rng(1))

    def slow(history, codes_so_far):
        """log p of the next code, from the whole sequence, nothing cached."""
        flat = [(j, v) for i in history for j, v in enumerate(codes[i])]
        flat += list(enumerate(codes_so_far))
        x = np.stack([p["codes"][j, v] for j, v in flat]) * np.sqrt(D)
        if prefixes:
            sums = [x[i - j : i + 1].sum(0) / np.sqrt(j + 1) for i, (j, _) in enumerate(flat)]
            x = np.stack(sums)
        state = slow_trunk(x, p["trunk"], 2, 2)[-1]
        return log_softmax(p["codes"][len(codes_so_far)] @ state)

    return model, params, slow


def rms(x, p):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]


def slow_bucket(distance, both_sides):
    """T5's buckets, one distance at a time."""
    count, start = (16, 16 * (distance > 0)) if both_sides else (32, 0)
    far = abs(distance) if both_sides else max(-distance, 0)
    if far < count // 2:
        return start + far
    ratio = np.log(far / (count // 2)) / np.log(128 / (count // 2))
    return start + min(count // 2 + int(ratio * (count - count // 2)), count - 1)


def slow_attention(q, memory, p, bias, heads):
    """T5's attention of q [t, D] over memory [s, D]; bias [t, s, H]."""
    q, k, v = (x @ p[name]["kernel"] for x, name in ((q, "q"), (memory, "k"), (memory, "v")))
    q, k, v = (x.reshape(len(x), heads, -1) for x in (q, k, v))
    out = np.zeros_like(q)
    for h in range(heads):
        for t in range(len(q)):
            out[t, h] = np.exp(log_softmax(k[:, h] @ q[t, h] + bias[t, :, h])) @ v[:, h]
    return out.reshape(len(out), -1) @ p["o"]["kernel"]


def slow_up(x, p):
    return np.maximum(rms(x, p["norm"]) @ p["up"]["kernel"], 0) @ p["down"]["kernel"]


def tiger(codes, history, constrained=False):
    config = TigerConfig(width=D, heads=2, head_width=3, feed_forward=10, constrained=constrained)
    model = Tiger(config, L, K, T)
    params, p = random_params(
        model, codes[history], history > 0, codes[history[:, 0]], rng=np.random.default_rng(1)
    )

    def bias(name, t, s, both_sides):
        return np.array(
            [[p[name][slow_bucket(j - i, both_sides)] for j in range(s)] for i in range(t)]
        )

    def slow(history, codes_so_far):
        x = np.stack([p["codes"][j, v] for i in history for j, v in enumerate(codes[i])])
        near = bias("encoder_bias", len(x), len(x), True)
        for i in range(config.encoder_layers):
            y = rms(x, p[f"read{i}"]["norm"])
            x = x + slow_attention(y, y, p[f"read{i}"], near, 2)
            x = x + slow_up(x, p[f"read_up{i}"])
        memory = rms(x, p["encoder_norm"])
        x = np.stack([p["begin"], *(p["codes"][j, v] for j, v in enumerate(codes_so_far))])
        near = bias("decoder_bias", len(x), len(x), False)
        near[np.triu_indices(len(x), 1)] = -1e9
        for i in range(config.decoder_layers):
            y = rms(x, p[f"write{i}"]["norm"])
            x = x + slow_attention(y, y, p[f"write{i}"], near, 2)
            y = rms(x, p[f"cross{i}"]["norm"])
            x = x + slow_attention(y, memory, p[f"cross{i}"], np.zeros((len(x), len(memory), 2)), 2)
            x = x + slow_up(x, p[f"write_up{i}"])
        state = rms(x, p["decoder_norm"])[-1]
        return log_softmax(p["codes"][len(codes_so_far)] @ state / np.sqrt(D))

    return model, params, slow


def log_probability(slow, history, code, among=None):
    """Of the code, each level's among all values, or among what codes `among` have there."""
    total = 0.0
    for j in range(L):
        log_p = slow(history, code[:j])
        if among is not None:
            children = {other[j] for other in among if (other[:j] == code[:j]).all()}
            log_p = log_p - np.log(np.exp(log_p[sorted(children)]).sum())
        total += log_p[code[j]]
    return total


@pytest.mark.parametrize(("constrained", "prefixes"), [(False, False), (True, False), (True, True)])
def test_gpt2_loss_is_the_cross_entropy_of_every_code_given_those_before(
    world, constrained, prefixes
):
    codes, history = world
    model, params, slow = gpt2(codes, history, prefixes=prefixes)
    targets = np.where(history > 0, np.roll(history, -1, axis=1), 0)
    targets[0, -1], targets[1, 1], targets[2, -1] = 4, 7, 9
    weight = (np.random.default_rng(2).random((B, T)) < 0.7) * (targets > 0)
    sequence, _ = append(jnp.asarray(history), newest(jnp.asarray(history), jnp.asarray(targets)))
    table = jnp.asarray(codes)
    known = CodeTable(table, jnp.asarray(next_codes(codes)) if constrained else None)
    logits = model.apply(params, table[sequence])
    found = known.loss(logits, jnp.asarray(targets), jnp.asarray(weight, jnp.float32))
    assert np.isfinite(jax.grad(lambda x: known.loss(x, targets, weight).sum())(logits)).all()
    among = codes[1:] if constrained else None
    expected = -sum(
        log_probability(slow, history[b, : t + 1], codes[targets[b, t]], among) / L
        for b in range(B)
        for t in range(T)
        if weight[b, t]
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_tiger_loss_is_the_cross_entropy_of_the_target_s_codes(world):
    codes, history = world
    model, params, slow = tiger(codes, history)
    table, targets = jnp.asarray(codes), np.array([4, 7, 9])
    logits = model.apply(params, table[history], jnp.asarray(history > 0), table[targets])
    found = code_loss(logits, table[targets], jnp.asarray([1.0, 2.0, 0.0]))
    each = [
        -log_probability(slow, history[b][history[b] > 0], codes[targets[b]]) / L for b in range(B)
    ]
    np.testing.assert_allclose(found, each[0] + 2 * each[1], rtol=2e-4)


@pytest.mark.parametrize("both_sides", [True, False])
def test_relative_positions_fall_into_t5_s_buckets(both_sides):
    distance = np.arange(-300, 301)
    found = np.asarray(distance_bucket(jnp.asarray(distance), both_sides))
    assert found.tolist() == [slow_bucket(int(d), both_sides) for d in distance]
    assert found.min() == 0
    assert found.max() == 31


@pytest.mark.parametrize(
    ("make", "constrained", "dense"),
    [
        (gpt2, False, 0),
        (tiger, False, 0),
        (gpt2, True, 0),
        (gpt2, True, 2),
        (tiger, True, 0),
        (functools.partial(gpt2, prefixes=True), True, 2),
    ],
)
def test_a_wide_beam_ranks_all_items_by_their_log_probability(world, make, constrained, dense):
    codes, history = world
    model, params, slow = make(codes, history, constrained)
    trie, among = build_trie(codes, dense), codes[1:] if constrained else None
    found = generate(model, params, trie, jnp.asarray(codes), jnp.asarray(history), beam=N, k=N)
    hashes = tie_hash(np.arange(N + 1))
    for b in range(B):
        real = history[b][history[b] > 0]
        score = {i: log_probability(slow, real, codes[i], among) for i in range(1, N + 1)}
        order = sorted(score, key=lambda i, s=score: (-s[i], hashes[i]))
        assert np.asarray(found.items)[b].tolist() == order
        np.testing.assert_allclose(found.scores[b], [score[i] for i in order], atol=2e-3)


@pytest.mark.parametrize(("beam", "dense"), [(1, 0), (3, 0), (3, 2)])
def test_a_narrow_beam_keeps_the_best_prefixes_level_by_level(world, beam, dense):
    codes, history = world
    model, params, slow = gpt2(codes, history)
    trie = build_trie(codes, dense)
    found = generate(model, params, trie, jnp.asarray(codes), jnp.asarray(history), beam, beam)
    item_of = {tuple(code): i for i, code in enumerate(codes) if i}
    for b in range(B):
        real = history[b][history[b] > 0]
        kept = {(): 0.0}
        for level in range(L):
            grown = {
                (*prefix, v): score + slow(real, prefix)[v]
                for prefix, score in kept.items()
                for v in range(K)
                if any(tuple(c[: level + 1]) == (*prefix, v) for c in codes[1:])
            }
            kept = dict(sorted(grown.items(), key=lambda kv: -kv[1])[:beam])
        expected = [item_of[code] for code in kept]
        assert np.asarray(found.items)[b].tolist() == expected + [0] * (beam - len(expected))


def test_the_trie_holds_each_item_once_and_its_tables_the_same_edges(world):
    codes, _ = world
    trie = build_trie(codes, dense=2)
    found = {}

    def walk(level, node, prefix):
        if level == L:
            found[prefix] = int(trie.item[node])
            return
        first = trie.first[level]
        assert first[node + 1] - first[node] <= trie.branching[level]
        edges = range(int(first[node]), int(first[node + 1]))
        if level < 2:
            row = np.asarray(trie.dense[level][node])
            assert row[row >= 0].tolist() == list(edges)
            assert np.flatnonzero(row >= 0).tolist() == trie.code[level][np.array(edges)].tolist()
        for edge in edges:
            walk(level + 1, edge, (*prefix, int(trie.code[level][edge])))

    walk(0, 0, ())
    assert found == {tuple(map(int, code)): i for i, code in enumerate(codes) if i}


def test_next_codes_are_the_children_of_the_nodes_on_an_items_path():
    codes = np.random.default_rng(0).integers(0, 70, (40, 3)).astype(np.uint8)
    codes[:, 0] %= 3
    found = next_codes(codes)
    assert found.shape == (40, 3, 3)
    assert (found[0] == 0xFFFFFFFF).all()
    for row, code in enumerate(codes[1:], 1):
        for level in range(3):
            bits = {v for v in range(96) if found[row, level, v // 32] >> (v % 32) & 1}
            alike = (codes[1:, :level] == code[:level]).all(axis=1)
            assert bits == set(codes[1:][alike, level].tolist())


def test_two_items_of_one_code_are_refused():
    with pytest.raises(InputError, match="items 1 and 3 have the same"):
        build_trie(np.array([[0, 0], [1, 2], [1, 1], [1, 2]], np.uint8))


@pytest.mark.parametrize("dense", [0, 1])
def test_beams_that_find_fewer_items_than_asked_end_in_blanks(dense):
    codes = np.array([[0, 0], [1, 2], [1, 1], [3, 0]], np.uint8)

    def step(own, code, level):
        return jnp.zeros((2, 5, 4)), own

    trie = build_trie(codes, dense)
    found = beam_search(trie, jnp.zeros((2, 4)), jnp.zeros((2, 5, 1)), step, 5, 5)
    assert sorted(np.asarray(found.items)[0].tolist()) == [0, 0, 1, 2, 3]
    assert np.isneginf(np.asarray(found.scores)[0, 3:]).all()
