"""Candidates come out the same however they are called for, in calls of one shape."""

import numpy as np
import pytest

from mmjax.evaluators.common import candidates


def recorder():
    """A "sample" whose picture says all it was called with, and the calls' shapes."""
    shapes = set()

    def call(batch):
        shapes.add(tuple((k, v.shape, v.dtype.name) for k, v in sorted(batch.items())))
        seed_r1, number_rc = batch["seed"][:, None], batch["candidate"]
        first_r1 = batch["tokens"][:, :1]
        image = np.stack(np.broadcast_arrays(seed_r1, number_rc, first_r1), axis=-1)[
            :, :, None
        ]
        return {"image": image, "log_prob": -1.0 * number_rc}

    return call, shapes


def encoded(count):
    tokens = np.arange(count * 5, dtype=np.int32).reshape(count, 5)
    return {"tokens": tokens, "tokens_mask": tokens > 0}


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("size", [1, 4, 7, 64])
def test_every_size_draws_the_same(k, size):
    call, shapes = recorder()
    got = candidates.draw(call, encoded(6), k=k, size=size, seed=2**32 - 2)
    assert len(shapes) == 1  # one compile
    [shape] = shapes
    by_name = {name: (dims, dtype) for name, dims, dtype in shape}
    (rows, columns), dtype = by_name["candidate"]
    assert rows * columns <= size and dtype == "int32"
    assert by_name["seed"] == ((rows,), "uint32")
    wanted = {
        k: v.shape for k, v in candidates.abstract(encoded(6), k=k, size=size).items()
    }
    assert wanted == {name: dims for name, (dims, _) in by_name.items()}
    assert got["image"].shape == (6, k, 1, 3) and got["log_prob"].shape == (6, k)
    for p in range(6):
        for c in range(k):
            seed = (2**32 - 2 + p) % 2**32
            assert got["image"][p, c, 0].tolist() == [seed, c, 5 * p]
            assert got["log_prob"][p, c] == -c


def test_calls_are_full_and_no_larger_than_needed():
    assert candidates.call_shape(200, 64, 256) == (4, 64)
    assert candidates.call_shape(3, 1, 256) == (3, 1)
    assert candidates.call_shape(200, 512, 256) == (1, 256)
    assert candidates.call_shape(200, 300, 256) == (1, 150)
