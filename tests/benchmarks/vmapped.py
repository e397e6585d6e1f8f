"""The peers' search as an expert in JAX writes it: trials under `vmap`, updates and epochs under `scan`, no database.

    python -m tests.benchmarks.vmapped [--width 64] [--epochs 20] [--lanes 64]

As `peers`: digits, two hidden layers with layer normalization and dropout, AdamW and L1, other settings in every lane,
drawn at random. The rate is without compilation, `rate_with_compilation` with it. Needs `pip install jax`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tests.benchmarks.peers import BATCH, RANGES, add_search_options, rate, split
from tests.benchmarks.rounds import require


def settings(lanes: int) -> dict[str, np.ndarray]:
    """(lanes,) of every setting, drawn from its range."""
    rng = np.random.default_rng(0)
    found = {}
    for name, (low, high, log) in RANGES.items():
        drawn = np.exp(rng.uniform(np.log(low), np.log(high), lanes)) if log else rng.uniform(low, high, lanes)
        found[name] = drawn.astype(np.float32)
    return found


def training(width: int, epochs: int, large: bool) -> Callable[..., Any]:  # noqa: C901  # one program, as it is written in JAX
    """A function of one lane's settings and seed: the validation accuracies (epochs,)."""
    import jax  # noqa: PLC0415  # a peer, installed only to be measured
    import jax.numpy as jnp  # noqa: PLC0415

    x, y, x_valid, y_valid = (jnp.asarray(part.numpy()) for part in split(large))
    updates = len(x) // BATCH
    sizes = (int(x.shape[1]), width, width, 10)

    def initial(key: Any) -> list[dict[str, Any]]:
        keys = jax.random.split(key, len(sizes))
        return [
            {
                "w": jax.random.uniform(keys[i], (a, b), minval=-(a**-0.5), maxval=a**-0.5),
                "b": jnp.zeros(b),
                "gain": jnp.ones(b),
                "shift": jnp.zeros(b),
            }
            for i, (a, b) in enumerate(pairwise(sizes))
        ]

    def forward(layers: Any, h: Any, rate: Any, key: Any) -> Any:
        for i, layer in enumerate(layers):
            h = h @ layer["w"] + layer["b"]
            if i == len(layers) - 1:
                return h
            mean, variance = h.mean(1, keepdims=True), h.var(1, keepdims=True)
            h = jax.nn.relu((h - mean) * jax.lax.rsqrt(variance + 1e-5) * layer["gain"] + layer["shift"])
            if key is not None:
                kept = jax.random.uniform(jax.random.fold_in(key, i), h.shape) >= rate
                h = jnp.where(kept, h / (1.0 - rate), 0.0)
        return h

    def loss_of(layers: Any, one: Any, bx: Any, by: Any, key: Any) -> Any:
        logits = jax.nn.log_softmax(forward(layers, bx, one["dropout"], key))
        penalty = sum(jnp.abs(layer["w"]).sum() for layer in layers)
        return -jnp.take_along_axis(logits, by[:, None], 1).mean() + one["l1"] * penalty

    def update(one: Any, carried: Any, given: Any) -> Any:
        layers, first, second, step = carried
        rows, key = given
        grads = jax.grad(loss_of)(layers, one, x[rows], y[rows], key)
        step = step + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        scale1, scale2 = 1.0 - 0.9**step, 1.0 - 0.999**step

        def moved(w: Any, m: Any, v: Any) -> Any:
            w = w * (1.0 - one["lr"] * one["weight_decay"])
            return w - one["lr"] * (m / scale1) / (jnp.sqrt(v / scale2) + 1e-8)

        return (jax.tree.map(moved, layers, first, second), first, second, step), None

    def epoch(one: Any, carried: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(x))[: updates * BATCH].reshape(updates, BATCH)
        carried, _ = jax.lax.scan(lambda c, g: update(one, c, g), carried, (order, jax.random.split(key, updates)))
        accuracy = (forward(carried[0], x_valid, 0.0, None).argmax(1) == y_valid).mean()
        return carried, accuracy

    def train(one: Any, key: Any) -> Any:
        layers = initial(key)
        zeros = jax.tree.map(jnp.zeros_like, layers)
        state = (layers, zeros, zeros, 0.0)
        return jax.lax.scan(lambda c, k: epoch(one, c, k), state, jax.random.split(key, epochs))[1]

    return train


def run(width: int, epochs: int, lanes: int, large: bool) -> dict[str, Any]:
    """All lanes at once, twice: with compilation, and without."""
    require(["jax"])
    import jax  # noqa: PLC0415

    train = jax.jit(jax.vmap(training(width, epochs, large)))
    keys, given = jax.random.split(jax.random.key(0), lanes), settings(lanes)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        accuracies = np.asarray(train(given, keys))
        seconds.append(time.perf_counter() - start)
    if not accuracies.max() > 0.9:
        raise RuntimeError(f"nothing was learnt: the best accuracy is {accuracies.max()}")
    found = rate(lanes * epochs, lanes, seconds[1])
    return {**found, "rate_with_compilation": lanes * epochs / seconds[0]}


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.vmapped", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, default=64, help="trials at once")
    add_search_options(parser)
    given = parser.parse_args()
    sys.stdout.write(f"{json.dumps(run(given.width, given.epochs, given.lanes, given.large))}\n")


if __name__ == "__main__":
    main()
