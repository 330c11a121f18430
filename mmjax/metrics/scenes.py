"""Do drawn shapes show what their caption says? Read by the oracle, in processes.

Legend: n images.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Sequence

import cv2
import numpy as np

from mmjax.data.shapes import oracle
from mmjax.data.shapes.scene import Scene

ATTRIBUTES = oracle.ATTRIBUTES
_ALONE = 1000  # images, ten seconds, that are not worth starting processes for
_CHUNK = 32  # images sent to a process at a time


def judge(
    images_nhwc: np.ndarray, truths: Sequence[Scene], *, processes: int | None = None
) -> dict[str, np.ndarray]:
    """1.0 or 0.0 of every image for each of ATTRIBUTES, arrays (n,) float32.

    An attribute is right where it is right of every object of the scene at once, `all`
    where they all are (see `oracle.score`); with another number of objects than the
    scene's, everything but the background and `clean` is wrong.

    Args:
      images_nhwc: uint8 or float in [0, 1], square, of 16 pixels or more.
      truths: the scene that each should show.
      processes: None is one a core, or none for few images. Reading is plain Python
        and numpy on small arrays: threads would wait for each other. More than one
        needs a program that can be imported (`if __name__ == "__main__"`).
    """
    if len(images_nhwc) != len(truths):
        raise ValueError(f"{len(images_nhwc)} images and {len(truths)} scenes")
    if processes is None:
        processes = 1 if len(truths) < _ALONE else (os.cpu_count() or 1)
    starts = range(0, len(truths), _CHUNK)
    parts = [(images_nhwc[s : s + _CHUNK], truths[s : s + _CHUNK]) for s in starts]
    if processes == 1:
        rows = [_scores(part) for part in parts]
    else:
        # spawned, for JAX and its threads do not live through a fork
        with concurrent.futures.ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=cv2.setNumThreads,
            initargs=(1,),
        ) as pool:
            rows = list(pool.map(_scores, parts))
    scores_na = np.concatenate([np.zeros((0, len(ATTRIBUTES)), np.float32), *rows])
    return dict(zip(ATTRIBUTES, scores_na.T, strict=True))


def _scores(part: tuple[np.ndarray, Sequence[Scene]]) -> np.ndarray:
    pairs = zip(*part, strict=True)
    rights = [oracle.score(truth, oracle.read(image)) for image, truth in pairs]
    rows = [[right[name] for name in ATTRIBUTES] for right in rights]
    return np.asarray(rows, np.float32)
