import json
import shutil

import pytest

from mmjax.errors import UserError
from mmjax.train import config, run_file

OLD = {  # as mmjax 0.1 wrote it
    "config": {
        "task": {"name": "clip"},
        "data": {
            "train": "shapes:train",
            "image": {"size": 16, "train_scale": [1.0, 1.0]},
            "tokenizer": {"kind": "bpe", "vocab_size": 520, "context": 16},
        },
    },
    "image": {"size": 16},
    "tokenizer": "{...}",
    "versions": {"mmjax": "0.1.0"},
}


def test_a_folder_of_runs_names_them(tmp_path):
    for name, task in (("prior", "prior"), ("clip", "clip"), ("old", None)):
        (tmp_path / name).mkdir()
        config = {"task": {"name": task}} if task else []
        run_file.write(tmp_path / name, {"config": config, "fields": {}})
    (tmp_path / "tokens").mkdir()
    with pytest.raises(UserError) as refused:
        run_file.read(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is not a run of mmjax: it has no run.json, and holds runs: give "
        f"one of {tmp_path}/clip (clip), {tmp_path}/old (damaged), "
        f"{tmp_path}/prior (prior)"
    )
    for empty in (tmp_path / "tokens", tmp_path / "absent"):
        with pytest.raises(UserError, match=f"{empty} is .*: it has no run.json$"):
            run_file.read(empty)


def test_a_damaged_run_json_is_said_so(tmp_path):
    whole = {"config": {}, "fields": {}}
    run_file.write(tmp_path, whole)
    assert run_file.read(tmp_path) == {**whole, "format": run_file.FORMAT}
    for damage, why in {
        b'{"config": {': "Expecting",
        b"\xff\xfe\xfd": "codec can't decode",
        b"[" * 100_000: "nested too deep",
        b"[1, 2]": r"it holds \[1, 2\] \(list\)",
        b'{"format": 2, "config": {}}': "lacks config or fields",
        b'{"format": 2, "config": 3, "fields": {}}': "lacks config or fields",
        b'{"format": "x", "config": {}, "fields": {}}': "lacks config or fields",
    }.items():
        (tmp_path / run_file.NAME).write_bytes(damage)
        with pytest.raises(UserError, match=f"run.json is damaged .*{why}.*put back"):
            run_file.read(tmp_path)


def test_runs_of_the_first_format_have_fields(tmp_path):
    (tmp_path / run_file.NAME).write_text(json.dumps(OLD))
    run = run_file.read(tmp_path)
    fields = run["config"]["data"].pop("fields")
    assert fields["image"] == {"kind": "image", "size": 16, "train_scale": [1.0, 1.0]}
    words = {"kind": "text", "tokenizer": "bpe", "vocab_size": 520, "context": 16}
    assert fields["tokens"] == words and run["fields"]["tokens"] == "{...}"
    assert run["fields"].keys() == fields.keys() - {"image"}  # no data are opened
    assert run["config"]["data"] == {"train": "shapes:train"}


def test_a_damaged_run_of_the_first_format(tmp_path):
    for key, value in (("tokenizer", None), ("config", {"data": 3}), ("format", None)):
        damaged = {**OLD, key: value}
        if key == "tokenizer":
            del damaged[key]
        (tmp_path / run_file.NAME).write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="run.json is (no run of format|damaged)"):
            run_file.read(tmp_path)


def test_a_later_format_names_the_version_that_reads_it(tmp_path):
    later = {"format": run_file.FORMAT + 1, "versions": {"mmjax": "9.0"}}
    (tmp_path / run_file.NAME).write_text(json.dumps(later))
    with pytest.raises(UserError, match="format 3, .* reads up to 2.*9.0"):
        run_file.read(tmp_path)


def test_a_folder_of_checkpoints_belongs_to_one_run(tmp_path):
    a, b, home = (tmp_path / name for name in ("a", "b", "home"))
    about = {"config": {}, "fields": {}}
    for folder in (a, b, home):
        folder.mkdir()
    run = run_file.identity(a, home)
    assert run and run != run_file.identity(a, home)  # nothing is written yet
    own = {**about, "run": run, "workdir": str(a)}
    for folder in (a, home):
        run_file.write(folder, own)
    assert run_file.identity(a, a) == run_file.identity(a, home) == run
    assert run_file.identity(b, home) != run  # and nothing to mix with
    (home / "checkpoints/10").mkdir(parents=True)
    for other in ({}, {**about, "run": "another", "workdir": str(b)}):
        if other:
            run_file.write(b, other)
        with pytest.raises(UserError, match=f"of another run, that of {a}: .* first"):
            run_file.identity(b, home)
    shutil.copy(home / run_file.NAME, b)  # as the message says
    assert run_file.identity(b, home) == run
    (a / run_file.NAME).unlink()  # a new machine, the same command
    assert run_file.identity(a, home) == run
    run_file.write(home, about)  # written before runs had ids
    assert run_file.identity(b, home) == run


def test_a_config_with_keys_that_none_has(tmp_path):
    run_file.write(tmp_path, {"config": {"data": {"a.b": 1}}, "fields": {}})
    with pytest.raises(UserError, match=r"damaged .*dots.* put back a copy of run.js"):
        config.from_json(run_file.read(tmp_path)["config"])
