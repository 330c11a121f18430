"""What an image index says of itself, for tests that write one."""

from mmjax.retrieval import store

FACTS = store.Facts(
    model={"fingerprint": "aa", "task": "clip", "step": 3, "workdir": "/runs/x"},
    source={"spec": "s", "name": "s", "fingerprint": "ff", "records": 25},
    preprocessing={"size": 8},
    d=6,
    shard_rows=10,
)
