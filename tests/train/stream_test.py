import io
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import tree
from mmjax.data.sources import open_source
from mmjax.train import config, loop, restore


@pytest.mark.long
def test_a_run_on_a_stream_resumes_to_the_bit(tmp_path):
    source = open_source("shapes:train?size=32&count=48")
    for k in range(3):
        with tarfile.open(tmp_path / f"x-{k}.tar", "w") as tar:
            for i in range(16 * k, 16 * k + 16):
                image = io.BytesIO()
                Image.fromarray(source[i]["image"]).save(image, "PNG")
                text = source[i]["text"][0].encode()
                for suffix, data in (("png", image.getvalue()), ("txt", text)):
                    info = tarfile.TarInfo(f"{i}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))

    def run(name, steps):
        overrides = [f"--config.data.train=stream:{tmp_path}/x-*.tar?window=16"]
        overrides += [f"--config.steps={steps}", "--config.checkpoint.every=3"]
        overrides += ["--config.optim.warmup=1"]
        plain = config.load("configs/clip.py:tiny", overrides)
        with plain.unlocked():
            plain.evals = {}
        plain.optim.schedule = "constant"  # of both lengths
        loop.run(plain, tmp_path / name)
        _, state = restore.restore(tmp_path / name, optimizer=True)
        return tree.flatten(jax.device_get(state.vars.params))

    whole = run("whole", 6)
    run("cut", 3)
    cut = run("cut", 6)
    for path, value in whole.items():
        np.testing.assert_array_equal(cut[path], value, err_msg=path)
