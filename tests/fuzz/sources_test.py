"""Sets of eight records, damaged in one place: all other records come as they were."""

import collections
import csv
import hashlib
import io
import json
import shutil
import tarfile

import fuzzing
import numpy as np
import pytest
from PIL import Image

from mmjax.data import build, jpeg, records, token_cache
from mmjax.data.fields import image as image_field
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source

COUNT = 8


def pixels(k):
    return np.random.default_rng(k).integers(0, 256, (6, 5, 3)).astype(np.uint8)


def encoded(k):
    file = io.BytesIO()
    form = ("PNG", "JPEG", "WEBP", "BMP")[k % 4]
    Image.fromarray(pixels(k)).save(file, form)
    return file.getvalue(), {"PNG": "png", "JPEG": "jpg"}.get(form, form.lower())


def images(folder):
    """The images of a set in a folder; their names."""
    folder.mkdir()
    names = []
    for k in range(COUNT):
        data, suffix = encoded(k)
        names.append(f"{k}.{suffix}")
        (folder / names[k]).write_bytes(data)
    return names


def caption(k):
    return f'number {k}, "é"' if k % 2 else f"a {k}"


def folder(root):
    for k, name in enumerate(images(root / "x")):
        inner = root / "x" / "cd"[k % 2]
        inner.mkdir(exist_ok=True)
        (root / "x" / name).rename(inner / name)
        (inner / f"{k}.txt").write_text(f"{caption(k)}\nthe {k}\n")
    return f"folder:{root}/x?label=parent"


def sheet(kind):
    def made(root):
        out = io.StringIO()
        mark = {"csv": ",", "tsv": "\t"}[kind]
        writer = csv.writer(out, delimiter=mark, lineterminator="\n")
        rows = [(f"img/{n}", caption(k)) for k, n in enumerate(images(root / "img"))]
        writer.writerows([("image", "caption"), *rows])
        (root / f"x.{kind}").write_text(out.getvalue())
        return f"{kind}:{root}/x.{kind}"

    return made


def jsonl(root):
    rows = [
        {"image": f"img/{n}", "caption": [caption(k), "b"], "label": k % 3}
        for k, n in enumerate(images(root / "img"))
    ]
    (root / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return f"jsonl:{root}/x.jsonl?label=label"


def tar(root):
    with tarfile.open(root / "x-0.tar", "w") as shard:
        for k in range(COUNT):
            data, suffix = encoded(k)
            parts = {suffix: data, "txt": caption(k).encode(), "cls": b"%d" % (k % 2)}
            for name, part in parts.items():
                member = tarfile.TarInfo(f"{k:03d}.{name}")
                member.size = len(part)
                shard.addfile(member, io.BytesIO(part))
    return f"webdataset:{root}/x-*.tar"


def npz(root):
    image = np.stack([pixels(k) for k in range(COUNT)])
    text = np.array([caption(k) for k in range(COUNT)])
    np.savez(root / "x.npz", image=image, text=text, label=np.arange(COUNT) % 3)
    return f"npz:{root}/x.npz?text=text"


def tfds(root):
    made = root.parent / f"{root.name}-from"
    made.mkdir()
    build.build({"train": folder(made)}, root, name="x")
    return f"tfds:x/train?data_dir={root}"


def tokens(root):
    def encode(pixels_bhw3):
        return pixels_bhw3[:, ::4, ::4, 0].reshape(len(pixels_bhw3), -1).astype(int)

    token_cache.write(
        open_source("shapes:train?size=16&count=8"),
        encode,
        root / "x",
        stage1=token_cache.Stage1("0123456789abcdef", 4, 256),
        image_cfg=image_field.Field(size=16, mode="squash", train_scale=(1.0, 1.0)),
        batch_size=4,
        shard=4,
    )
    return f"tokens:{root}/x"


KINDS = {
    "folder": folder,
    "csv": sheet("csv"),
    "tsv": sheet("tsv"),
    "jsonl": jsonl,
    "tar": tar,
    "npz": npz,
    "tfds": tfds,
    "tokens": tokens,
}
SHARE = 0.07  # of all inputs, of each kind
# Formats whose sums do not cover captions and labels, of which any byte may be another.
UNSUMMED = ("folder", "csv", "tsv", "jsonl", "tar")


def snapshot(source):
    """(a counter of the good records, how many are broken)."""
    good, broken = collections.Counter(), 0
    for i in range(len(source)):
        try:
            record = source[i]
        except BrokenRecord as error:
            assert str(error)
            broken += 1
            continue
        values = {**record, "name": name_of(source, record)}
        image = values.pop("image", values.pop("image_tokens", np.zeros(0)))
        digest = hashlib.sha256(image.tobytes()).hexdigest()[:8]
        text, label = tuple(record["text"]), values["name"]
        good[(label, record["key"], text, image.shape, digest)] += 1
    return good, broken


def name_of(source, record):
    """A label by its name: numbers of classes move when one of them is lost."""
    label = record.get("label", -1)
    if isinstance(label, int) and source.class_names and label >= 0:
        return source.class_names[label]
    return label


def look(spec):
    with fuzzing.warnings() as said, jpeg.watch() as damaged:
        source = open_source(spec)
        source.fingerprint()
        assert len(list(source.texts())) < 1000
        good, broken = snapshot(source)
    return good, broken + len(records.left_out(source)) + len(said) + len(damaged)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """kind -> (its folder, its spec, what it holds), made when first asked for."""
    made = {}

    def of(kind):
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            spec = KINDS[kind](root)
            good, said = look(spec)
            assert good.total() == COUNT and not said
            made[kind] = root, spec, good
        return made[kind]

    return of


def spoiled(rng, root, notes):
    """Damages one file below `root`; how many records it may touch."""
    files = sorted(p for p in root.rglob("*") if p.is_file())
    path = rng.choice(files)
    notes.append(path.name)
    if rng.random() < 0.08:
        fuzzing.spoil(rng, path, notes)
        return COUNT
    if path.suffix == ".json" and rng.random() < 0.7:
        values = fuzzing.mutate(rng, json.loads(path.read_text()), notes)
        path.write_text(json.dumps(values))
        return 0
    if path.suffix == ".jsonl" and rng.random() < 0.5:
        rows = path.read_text().splitlines()
        at = rng.randrange(len(rows))
        rows[at] = json.dumps(fuzzing.mutate(rng, json.loads(rows[at]), notes))
        path.write_text("\n".join(rows) + "\n")
        return 3
    data, touched = fuzzing.damage(rng, path.read_bytes(), notes)
    path.write_bytes(data)
    return 3 + touched // (512 if path.suffix == ".tar" else 12)


def compared(kind, good, said, want, touched):
    missing, extra = want - good, good - want
    if not missing and not extra:
        return fuzzing.RIGHT
    if said and not extra:
        return fuzzing.NAMED
    if kind in UNSUMMED and extra.total() <= touched:
        if said:
            return fuzzing.NAMED
        if missing.total() <= touched:
            return fuzzing.UNSUMMED
    unnamed = [
        collections.Counter(row[1:] for row in g.elements()) for g in (good, want)
    ]
    if unnamed[0] == unnamed[1]:  # class names lie in files of text
        return fuzzing.UNSUMMED
    return fuzzing.SILENT


@pytest.mark.parametrize("kind", KINDS)
@fuzzing.counts(6, SHARE)
def test_a_damaged_set(kind, count, sets, ledger, tmp_path):
    root, spec, want = sets(kind)
    place = tmp_path / "set"

    def attempt(rng, notes):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(root, place)
        touched = spoiled(rng, place, notes)
        good, said = look(spec.replace(str(root), str(place)))
        outcome = compared(kind, good, said, want, touched)
        if outcome == fuzzing.SILENT:
            notes.append(f"missing {want - good}, extra {good - want}, said {said}")
        return outcome

    ledger.explore(kind, count, attempt)
