"""The oracle: what it reads, what it makes of other images, and its scores."""

import dataclasses

import numpy as np
import pytest

from mmjax.data.shapes import oracle, render, scene
from mmjax.data.sources import shapes


@pytest.mark.parametrize("size", [32, 64])
def test_reads_clean_renders(size):
    source = shapes.open("unseen", size=size, count=60)
    right = 0
    for i in range(60):
        record = source[i]
        reading = oracle.read(record["image"])
        right += oracle.score(record["scene"], reading)["all"]
        assert reading.rms < 0.02
    assert right >= 59


def test_reads_every_pair_on_every_background():
    right, tried = 0, 0
    for k, (colour, shape) in enumerate(scene.PAIRS):
        size = ("small", "big")[k % 2]
        ground = list(scene.BACKGROUNDS)[(k + k // 8) % 4]
        radius = sum(scene.SIZES[size]) / 2
        thing = scene.Object(colour, shape, size, 0.45, 0.55, radius, 0.1)
        made = scene.Scene((thing,), ground)
        seen = oracle.read(render.render(made, 32))
        right += oracle.score(made, seen)["all"]
        tried += 1
    assert right == tried == 64


def test_recovers_the_geometry():
    thing = scene.Object("red", "triangle", "big", 0.43, 0.58, 0.205, 0.12)
    made = scene.Scene((thing,), "black")
    [seen] = oracle.read(render.render(made, 64)).scene.objects
    assert abs(seen.x - 0.43) < 0.005 and abs(seen.y - 0.58) < 0.005
    assert abs(seen.radius - 0.205) < 0.005 and abs(seen.angle - 0.12) < 0.03


def test_stands_noise():
    source = shapes.open("val", size=32, count=40)
    rng = np.random.default_rng(0)
    right = 0
    for i in range(40):
        noisy = source[i]["image"] + 255 * 0.05 * rng.standard_normal((32, 32, 3))
        seen = oracle.read(noisy.clip(0, 255).astype(np.uint8))
        right += oracle.score(source[i]["scene"], seen)["all"]
    assert right >= 38


def test_floats_and_large_images_read_the_same():
    record = shapes.open("val", size=128, objects=2)[4]
    for image in (record["image"], np.float32(record["image"]) / 255):
        seen = oracle.read(image)
        assert oracle.score(record["scene"], seen)["all"] == 1


def test_an_empty_image_has_no_objects():
    reading = oracle.read(np.full((32, 32, 3), 128, np.uint8))
    assert reading.scene.objects == () and reading.scene.background == "grey"
    assert reading.rms < 1e-3


def test_any_image_gives_a_reading():
    rng = np.random.default_rng(1)
    static = rng.integers(0, 256, (32, 32, 3), np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 1, 64)[:, None], (64, 64, 3))
    flat = np.zeros((32, 32, 3), np.uint8)
    half = flat.copy()
    half[:, 16:] = 255
    for image in (static, ramp, half, np.full((32, 32, 3), np.nan)):
        reading = oracle.read(image)
        assert np.isfinite(reading.rms)
    assert oracle.read(static).rms > 0.1


@pytest.mark.parametrize(
    "image",
    [np.zeros((32, 32), np.uint8), np.zeros((32, 30, 3)), np.zeros((32, 32, 3), int)],
)
def test_refuses_what_is_no_image(image):
    with pytest.raises(ValueError, match="the oracle reads"):
        oracle.read(image)


def _read(made, worst=0.0):
    return oracle.Reading(made, rms=0.0, worst=worst)


def test_score_is_per_attribute_and_blind_to_order():
    made = shapes.open("val", objects=2)[0]["scene"]
    a, b = made.objects
    assert set(oracle.score(made, _read(made))) == set(oracle.ATTRIBUTES)
    assert set(oracle.score(made, _read(made)).values()) == {1.0}
    swapped = dataclasses.replace(made, objects=(b, a))
    assert set(oracle.score(made, _read(swapped)).values()) == {1.0}
    other = "cyan" if a.colour != "cyan" else "red"
    wrong = dataclasses.replace(made, objects=(dataclasses.replace(a, colour=other), b))
    mirrored = tuple(dataclasses.replace(o, x=1 - o.x, y=1 - o.y) for o in made.objects)
    for seen, lost in (
        (_read(wrong), "colour"),
        (_read(dataclasses.replace(made, objects=mirrored)), "relation"),
        (_read(made, worst=oracle.STRAY + 0.01), "clean"),
    ):
        result = oracle.score(made, seen)
        assert {k for k, v in result.items() if v == 0} == {lost, "all"}
    fewer = oracle.score(made, _read(dataclasses.replace(made, objects=(a,))))
    assert {k for k, v in fewer.items() if v == 1} == {"background", "clean"}


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("what", ["quarter off", "hole", "stray blob"])
def test_what_no_scene_explains_is_not_right(what, size):
    """A picture of the right scene with a fault that attributes do not see."""
    thing = scene.Object("red", "circle", "big", 0.5, 0.5, 0.25, 0.0)
    made = scene.Scene((thing,), "white")
    image = render.render(made, size)
    assert oracle.score(made, oracle.read(image))["all"] == 1
    middle, part = size // 2, size // 16
    place = {
        "quarter off": (slice(middle, None), slice(middle, None)),
        "hole": (slice(middle - part, middle + part),) * 2,
        "stray blob": (slice(part, 2 * part), slice(part, 2 * part)),
    }[what]
    image[place] = (30, 60, 200) if what == "stray blob" else (255, 255, 255)
    assert oracle.score(made, oracle.read(image))["all"] == 0
