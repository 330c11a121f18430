"""Token ids and pixels against transformers, open_clip and torchvision."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmjax.convert.formats import _clip_tokenizer, _hugging_face
from mmjax.convert.read import Source
from mmjax.data import image, tokenizers
from mmjax.data.fields import image as image_field

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


def members(bundle, suffix):
    """(name, bytes) of the Flickr8k shards' members."""
    for path in sorted(bundle.glob("flickr8k/*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith(suffix):
                    yield member.name, shard.extractfile(member).read()


@pytest.fixture(scope="module")
def clip(bundle):
    path = bundle / "reference/openai_clip/bpe_simple_vocab_16e6.txt.gz"
    return tokenizers.build({"kind": "clip", "path": str(path)})


@pytest.fixture(scope="module")
def written(clip, tmp_path_factory):
    """What we write for transformers.CLIPTokenizer."""
    folder = tmp_path_factory.mktemp("words")
    for name, content in _clip_tokenizer.hugging_face_files(clip)[0].items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_hugging_face_ids_on_the_captions(bundle, clip, written):
    theirs = transformers.CLIPTokenizer.from_pretrained(written)
    captions = []
    for _, raw in members(bundle, ".json"):
        found = json.loads(raw)
        captions += found["captions"] if "captions" in found else [found["caption"]]
    assert len(captions) > 30_000
    for start in range(0, len(captions), 4096):
        part = captions[start : start + 4096]
        tokens, mask = clip.encode(part)
        want = theirs(part, max_length=77, truncation=True)["input_ids"]
        for row, (ids, real, expected) in enumerate(
            zip(tokens, mask, want, strict=True)
        ):
            assert ids[real].tolist() == expected, part[row]


def test_what_was_written_reads_back(clip, written):
    files = {p.name: json.loads(p.read_text()) for p in written.glob("*.json")}
    source = Source("x", {}, files, written)
    again = _clip_tokenizer.of_folder(source, 77, 49408)
    assert again.to_json() == clip.to_json()


@pytest.fixture(scope="module")
def photos(bundle):
    found = []
    for number, (_, raw) in enumerate(members(bundle, ".jpg")):
        found.append(image.decode(raw, "photo"))
        if number == 19:
            return found
    raise AssertionError("the shards hold fewer than 20 photos")


@pytest.mark.parametrize("mode", ["crop", "squash"])
@pytest.mark.parametrize("size", [224, 64])
def test_pixels_as_open_clip(mode, size, photos):
    preprocess = open_clip.image_transform(
        size,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode={"crop": "shortest", "squash": "squash"}[mode],
        interpolation="bicubic",
    )
    ours = image_field.Field(size=size, mode=mode, method="pil_bicubic")
    for photo in photos:
        want = preprocess(Image.fromarray(photo)).permute(1, 2, 0).numpy()
        got = ours.evaluate(photo).astype(np.float32) / 255
        assert np.abs(got - want).max() <= 1e-6


def test_pixels_as_hugging_face(photos, tmp_path):
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    theirs = transformers.CLIPImageProcessor.from_pretrained(tmp_path)
    files = {"preprocessor_config.json": config}
    found, (mean, std) = _hugging_face.preprocessing(
        Source("x", {}, files, tmp_path), 64
    )
    ours = image_field.Field(**found)
    for photo in photos:
        want = theirs(Image.fromarray(photo), return_tensors="np")["pixel_values"][0]
        want = want.transpose(1, 2, 0) * np.asarray(std) + np.asarray(mean)
        got = ours.evaluate(photo).astype(np.float32) / 255
        # where the border is an odd number of pixels its centre is one further on
        short = min(photo.shape[:2])
        odd = any((int(64 * side / short) - 64) % 2 for side in photo.shape[:2])
        if not odd:
            assert np.abs(got - want).max() <= 1 / 255 + 1e-6
