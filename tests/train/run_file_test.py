import json

import pytest

from mmjax.errors import UserError
from mmjax.train import run_file

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


def test_a_damaged_run_json_is_said_so(tmp_path):
    run_file.write(tmp_path, {"config": {}})
    assert run_file.read(tmp_path) == {"config": {}, "format": run_file.FORMAT}
    (tmp_path / run_file.NAME).write_text('{"config": {')
    with pytest.raises(UserError, match="run.json is damaged"):
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


def test_a_later_format_names_the_version_that_reads_it(tmp_path):
    later = {"format": run_file.FORMAT + 1, "versions": {"mmjax": "9.0"}}
    (tmp_path / run_file.NAME).write_text(json.dumps(later))
    with pytest.raises(UserError, match="format 3, .* reads up to 2.*9.0"):
        run_file.read(tmp_path)
