"""mmjax index and mmjax arithmetic, on a run trained for two steps (see conftest)."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.retrieval import gallery, store

SPEC = "shapes:val?size=16&count=40&objects=1"


def call(capsys, *argv):
    """What a command that succeeds prints."""
    assert cli.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def refused(capsys, *argv):
    """The one line of a command that does not."""
    assert cli.main([str(a) for a in argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def index(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "x"
    argv = ["index", "build", tiny_run, "--source", SPEC, "--out", folder]
    assert cli.main([str(a) for a in [*argv, "--shard-rows", 16]]) == 0
    return folder


def test_rows_are_the_runs_own_embeddings(index, tiny_run):
    made, run, source = (
        store.open_store(index),
        load.load_run(tiny_run),
        open_source(SPEC),
    )
    images = [source[i]["image"] for i in range(40)]
    np.testing.assert_allclose(
        np.concatenate(made.shards), run.embed_images(images), atol=1e-5
    )
    items = made.items()
    assert [item["record"] for item in items] == list(range(40))
    assert items[7]["key"] == source[7]["key"] and items[7]["text"] == source[7]["text"]
    assert made.facts.model["step"] == 2 and made.facts.source["spec"] == SPEC


def test_show(index, capsys):
    out = call(capsys, "index", "show", index)
    facts = json.loads(out[: out.rindex("}") + 1])
    assert (facts["count"], facts["shards"], facts["d"]) == (40, 3, 16)


def test_search_ranks_as_a_sort_does(index, tiny_run, capsys, tmp_path):
    source = open_source(SPEC)
    photo = tmp_path / "q.png"
    Image.fromarray(source[11]["image"]).save(photo)
    png = tmp_path / "deep" / "sheet.png"
    argv = ["--text", "a red star", "--image", photo, "--top", 5, "--out", png]
    lines = call(capsys, "index", "search", index, *argv).splitlines()
    assert lines[0] == "a red star" and lines[6] == str(photo)
    run = load.load_run(tiny_run)
    rows = store.open_store(index).rows(range(40))
    order = np.argsort(-rows @ run.embed_texts(["a red star"])[0])[:5]
    assert [line.split()[2] for line in lines[1:6]] == [source[i]["key"] for i in order]
    assert lines[7].split()[:3] == ["1", "1.000", source[11]["key"]]
    assert source[11]["text"][0] in lines[7]
    width, height = Image.open(png).size
    assert width > 6 * 64 and height > 2 * 64


def test_arithmetic_leaves_the_image_out(index, tiny_run, capsys, tmp_path):
    source, run = open_source(SPEC), load.load_run(tiny_run)
    photo = tmp_path / "q.png"
    Image.fromarray(source[11]["image"]).save(photo)
    words = ["--minus", "red", "--plus", "blue", "--weight", 0.5, "--top", 6]
    png = tmp_path / "a.png"
    from_file = call(
        capsys, "arithmetic", "--index", index, "--image", photo, *words, "--out", png
    ).splitlines()
    assert from_file[0] == 'q.png - 0.5 x "red" + 0.5 x "blue"'
    assert Image.open(png).size[0] > 7 * 64
    rows = store.open_store(index).rows(range(40))
    red, blue = run.embed_texts(["red", "blue"])
    query = rows[11] + 0.5 * blue - 0.5 * red
    order = [i for i in np.argsort(-rows @ query) if i != 11][:6]
    keys = [source[i]["key"] for i in order]
    assert [line.split()[2] for line in from_file[1:7]] == keys
    argv = ["--source", SPEC, "--workdir", tiny_run, "--record", 11, *words]
    at_once = call(capsys, "arithmetic", *argv).splitlines()
    assert at_once[0].startswith("record 11 - ")
    assert [line.split()[2] for line in at_once[1:]] == keys


def test_a_stopped_build_goes_on(index, tiny_run, tmp_path):
    run = load.load_run(tiny_run)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done >= 32:
            raise Stop

    folder = tmp_path / "x"
    with pytest.raises(Stop):
        gallery.build_gallery(run, SPEC, folder, shard_rows=16, say=stop)
    done = []
    gallery.build_gallery(
        run, SPEC, folder, shard_rows=16, say=lambda d, _: done.append(d)
    )
    assert done == [40]  # one batch of what was left
    whole, again = store.open_store(index), store.open_store(folder)
    assert again.items() == whole.items()
    np.testing.assert_allclose(
        np.concatenate(again.shards), np.concatenate(whole.shards), atol=1e-6
    )


def test_broken_records_are_left_out(tiny_run, capsys, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.new("RGB", (9, 9), (80 * i, 0, 0)).save(photos / f"{i}.png")
    (photos / "1.png").write_bytes(b"no picture")
    out = tmp_path / "x"
    spec = f"folder:{photos}?label=none"
    argv = ["index", "build", tiny_run, "--source", spec, "--out", out]
    assert cli.main([str(a) for a in argv]) == 3
    said = capsys.readouterr().out
    assert "2 images, 16 numbers each; 1 broken records left out" in said
    found = gallery.open_gallery(out)
    assert [item["key"] for item in found.items] == ["0.png", "2.png"]
    assert found.row_of(2) == 1
    with pytest.raises(UserError, match="holds no record 1"):
        found.row_of(1)
    (photos / "3.png").write_bytes((photos / "2.png").read_bytes())
    with pytest.raises(UserError, match="has changed since it was indexed"):
        _ = gallery.open_gallery(out).source


def test_search_of_what_is_broken_or_too_long(index, capsys, caplog, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    images = ["--image", tmp_path / "bad.png", "--image", tmp_path / "good.png"]
    argv = ["index", "search", index, "--text", "a star", *images, "--top", 2]
    assert cli.main([str(a) for a in argv]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == ["a star", str(tmp_path / "good.png")]
    assert "left out: cannot read image" in caplog.text and "bad.png" in caplog.text
    long = "a " * 200 + "star"
    for verb in (
        ["index", "search", index, "--text", long],
        ["arithmetic", "--index", index, *images[2:], "--plus", long],
    ):
        caplog.clear()
        assert cli.main([str(a) for a in verb]) == 3
        assert "and the model reads 16: the rest is cut off" in caplog.text


@pytest.mark.parametrize("file", ["rows-00001.npy", "items-00002.jsonl"])
def test_a_changed_index_is_not_searched(file, index, tmp_path, capsys):
    folder = tmp_path / "x"
    shutil.copytree(index, folder)
    data = bytearray((folder / file).read_bytes())
    data[-7:-3] = np.float32(np.nan).tobytes()
    (folder / file).write_bytes(data)
    err = refused(capsys, "index", "search", folder, "--text", "a star")
    assert f"{file} has SHA-256" in err


def test_the_model_of_an_index(index, tiny_run, capsys):
    argv = ["index", "search", index, "--text", "a"]
    err = refused(capsys, *argv, "--workdir", tiny_run, "--step", 1)
    assert "was made by weights" in err and "step 2 of" in err
    assert "use 1 or more" in refused(capsys, *argv, "--top", 0)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["index", "search", "{index}"], "give --text, --image or both"),
        (["index", "search", "/nowhere", "--text", "a"], "/nowhere is no index"),
        (["index", "build", "{run}", "--source", SPEC, "--out", "{index}"], "finished"),
        (["arithmetic", "--index", "{index}"], "give --image FILE or --record N"),
        (["arithmetic", "--record", "1"], "--index --source"),
        (["arithmetic", "--source", SPEC, "--record", "1"], "give its --workdir"),
    ],
)
def test_refusals(argv, part, index, tiny_run, capsys):
    given = [a.format(index=index, run=tiny_run) for a in argv]
    assert part in refused(capsys, *given)


def test_codes_are_made_and_searched(index, tiny_run, capsys):
    said = call(capsys, "index", "hash", index, "--bits", 16)
    assert "16 bits, 2000000 bytes a million rows; recall@10 " in said
    row = store.open_store(index).rows([7])
    hits = gallery.open_gallery(index).search(row, 5, bits=16)[0]
    assert len(hits) == 5 and hits[0].score == 1.0
    lines = call(
        capsys, "index", "search", index, "--text", "a red star", "--bits", 16
    ).splitlines()
    assert lines[0] == "a red star" and len(lines) == 11
    cases = {
        (12,): "12 hash bits of rows with 16 columns.*use 8 or 16",
        (64,): "64 hash bits of rows with 16 columns.*use 16",
    }
    for (bits,), message in cases.items():
        assert re.search(
            message, refused(capsys, "index", "hash", index, "--bits", bits)
        )
    search = ["index", "search", index, "--text", "x"]
    said = refused(capsys, *search, "--bits", 16, "--probes", 2)
    assert "--bits 16 and --probes 2: give one" in said
    assert "give --bits" in refused(capsys, *search, "--faiss")
    assert "no codes of 8 bits" in refused(capsys, *search, "--bits", 8)
