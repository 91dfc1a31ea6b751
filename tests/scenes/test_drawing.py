"""Shapes, heads and what annotators write about them."""

from dataclasses import replace

import numpy as np
import pytest
from scenes.canvas import Canvas, ellipse, rectangle, smooth
from scenes.figure import describe, draw_person
from scenes.head import Head
from scenes.layouts import occlusion
from scenes.person import draw_look
from scenes.scene import Casting, draw_light, draw_scene, mark_hidden, place_heads


def rng(seed=0):
    return np.random.default_rng(seed)


def test_fill_covers_its_polygon_only():
    canvas = Canvas.blank(20, 12, (10, 10, 10))
    canvas.fill(rectangle(5, 3, 15, 9), (200, 100, 50))
    assert np.allclose(canvas.pixels[4:8, 6:14], (200, 100, 50), atol=1.0)
    assert np.allclose(canvas.pixels[:2], 10) and np.allclose(canvas.pixels[:, 17:], 10)


def test_fill_blends_clips_and_ignores_what_is_outside():
    canvas = Canvas.blank(20, 20)
    canvas.fill(rectangle(0, 0, 20, 20), (200, 200, 200), alpha=0.25)
    assert np.allclose(canvas.pixels[5:15, 5:15], 50, atol=1.0)
    canvas.fill(rectangle(0, 0, 20, 20), (255, 0, 0), clip=rectangle(0, 0, 8, 20))
    assert np.allclose(canvas.pixels[5, 3], (255, 0, 0), atol=1.0)
    assert np.allclose(canvas.pixels[5, 15], 50, atol=1.0)
    before = canvas.pixels.copy()
    canvas.fill(rectangle(100, 100, 120, 120), (0, 255, 0))
    canvas.stroke(rectangle(-50, -50, -40, -40), (0, 255, 0), 2)
    assert np.array_equal(canvas.pixels, before)


def test_paint_gets_the_places_of_the_pixels():
    canvas = Canvas.blank(8, 6)
    canvas.fill(rectangle(-5, -5, 20, 20), lambda xs, ys: np.stack([xs + 0 * ys] * 3, axis=-1))
    assert np.allclose(canvas.pixels[3, :, 0], np.arange(8) + 0.5, atol=0.05)


def test_magnified_drawing_leaves_other_pixels_alone():
    canvas = Canvas(rng().uniform(0, 255, (30, 40, 3)))
    before = canvas.pixels.copy()
    with canvas.magnified((5, 5, 25, 20), 3) as inner:
        inner.fill(ellipse((18, 18), (9, 9)), (0, 0, 0))
    changed = np.abs(canvas.pixels - before).max(axis=2) > 1e-3
    assert changed.any()
    ys, xs = np.nonzero(changed)
    assert xs.max() - xs.min() <= 8 and ys.max() - ys.min() <= 8


def test_smooth_goes_through_its_points():
    points = np.array([[0.0, 0.0], [4.0, 0.0], [5.0, 3.0], [1.0, 4.0]])
    assert np.allclose(smooth(points, steps=5)[::5], points)
    assert np.allclose(smooth(points, closed=False, steps=5)[-1], points[-1])


def test_straight_head_is_symmetric_and_ends_at_the_chin():
    x1, y1, x2, y2 = Head(x=50.0, y=60.0, unit=20.0).box
    assert x1 + x2 == pytest.approx(100.0)
    assert y2 == pytest.approx(80.0, abs=0.5) and y1 == pytest.approx(60 - 0.7 * 20, abs=1.0)


def test_pose_moves_the_features():
    nose = np.array([[0.0, 0.2]])
    straight = Head(0.0, 0.0, 10.0)
    assert replace(straight, yaw=0.5).surface(nose)[0, 0] > 3.0
    assert replace(straight, yaw=-0.5).surface(nose)[0, 0] < -3.0
    assert replace(straight, pitch=0.3).surface(nose)[0, 1] > straight.surface(nose)[0, 1]
    chin = replace(straight, roll=np.pi / 2).flat(np.array([[0.0, 1.0]]))
    assert np.allclose(chin, [[-10.0, 0.0]])
    assert replace(straight, yaw=0.8).faces_viewer(0.7, 0.0) < straight.faces_viewer(0.7, 0.0)


def test_hidden_points_go_to_the_edge_of_the_head():
    head = Head(0.0, 0.0, 10.0, yaw=0.9)
    x, y = head.surface(np.array([[0.79, 0.0]]))[0]
    assert x == pytest.approx(8.0, abs=0.8) and abs(y) < 0.5


@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_changes_the_lower_half_of_the_face_only(masked):
    head = Head(x=60.0, y=60.0, unit=32.0)
    look = replace(
        draw_look(rng(3), masked=True), mask="surgical", hat=None, glasses=None, hand=None
    )
    light = draw_light(rng(1))
    bare, other = Canvas.blank(120, 120, (90, 90, 90)), Canvas.blank(120, 120, (90, 90, 90))
    draw_person(bare, head, replace(look, mask=None), light)
    draw_person(other, head, look if masked else replace(look, mask=None), light)
    change = np.abs(bare.pixels - other.pixels).max(axis=2)
    mouth = change[78:88, 50:70]
    assert (mouth.mean() > 20) == masked
    assert change[30:48, 50:70].max() < 1.0  # the forehead


def test_annotations_follow_the_look():
    head = Head(x=60.0, y=60.0, unit=32.0, roll=0.2)
    look = draw_look(rng(3), masked=True)
    face = describe(head, look)
    assert face.state == "mask" and occlusion(face)[1] == 3
    assert describe(head, replace(look, worn="nose")).state == "poor"
    bare = describe(head, replace(look, mask=None, hand="mouth"))
    assert bare.state == "bare" and occlusion(bare) == (3, 1)
    assert occlusion(describe(head, replace(look, mask=None, hand="half"))) == (3, 2)
    major, minor, angle, x, y = face.ellipse
    assert major > minor and angle == pytest.approx(0.2 - np.pi / 2)
    x1, y1, x2, y2 = face.box
    assert x1 < x < x2 and y1 < y < y2
    (left, _), (right, _) = face.eyes
    assert x1 < left < right < x2


def test_nearer_people_hide_faces():
    look = draw_look(rng(1), masked=False)
    far = describe(Head(x=100.0, y=100.0, unit=10.0), look)
    near = describe(Head(x=104.0, y=98.0, unit=30.0), look)
    aside = describe(Head(x=400.0, y=98.0, unit=30.0), look)
    assert [face.hidden > 0.9 for face in mark_hidden([far, near])] == [True, False]
    assert mark_hidden([far, aside])[0].hidden == 0.0


def test_heads_do_not_cover_one_another():
    for seed in range(20):
        heads = place_heads(rng(seed), 640, 480, 4)
        assert 1 <= len(heads) <= 4
        assert [head.unit for head in heads] == sorted(head.unit for head in heads)
        for index, head in enumerate(heads):
            for other in heads[index + 1 :]:
                apart = np.hypot(head.x - other.x, head.y - other.y)
                assert apart > 0.9 * (head.unit + other.unit)


def test_casting_decides_who_is_in_the_picture():
    everyone = Casting((0.0, 1.0), masked=1.0)
    nobody = Casting((0.0, 1.0), masked=0.0, hand_mouth=1.0)
    masked = draw_scene(rng(5), 160, 120, everyone)
    bare = draw_scene(rng(5), 160, 120, nobody)
    assert masked.pixels.shape == (120, 160, 3) and masked.pixels.dtype == np.uint8
    assert {face.state for face in masked.faces} == {"mask"}
    assert {(face.state, face.hand) for face in bare.faces} == {("bare", "mouth")}
    again = draw_scene(rng(5), 160, 120, everyone)
    assert np.array_equal(again.pixels, masked.pixels) and again.faces == masked.faces
