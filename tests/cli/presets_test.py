"""`mmjax presets`."""

from mmjax import cli
from mmjax.train import config as config_lib


def test_every_preset_has_a_line(capsys):
    assert cli.main(["presets"]) == 0
    text = capsys.readouterr().out
    for name in config_lib.shipped():
        about, lines = config_lib.presets(name)
        assert about and all(lines.values()) and f"{name}  {about}" in text
    assert cli.main(["presets", "configs/clip.py"]) == 0
    text = capsys.readouterr().out
    assert "  own " in text and "  rn50x64 " in text and "vqvae" not in text


def test_a_file_without_presets(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def get_config(arg): ...\n")
    assert cli.main(["presets", str(tmp_path / "mine.py")]) == 2
    assert "it has no PRESETS" in capsys.readouterr().err
    assert cli.main(["presets", "clio"]) == 2
    assert "did you mean 'clip'" in capsys.readouterr().err
