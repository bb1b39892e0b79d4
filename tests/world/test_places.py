"""The room, the blocks, the moving shapes: their states change as the rules say, and their views with them."""

import numpy as np
import pytest

from bagel.world import make
from bagel.world.blocks import Shot, Stack, all_blocks_clear, orbit
from bagel.world.blocks import view as blocks_view
from bagel.world.goals import ViewGoal
from bagel.world.motion import Mover, film
from bagel.world.palette import COLOURS, WALLS
from bagel.world.room import Prop, Room, Stand, act, ahead, all_props_clear, point_ahead, view, walls_seen
from bagel.world.sample import Picture
from bagel.world.scene import Thing

BARE = Stand(Room(("coral", "sand", "moss", "slate"), ()), 2.5, 2.5, 0)


def with_prop(x: float, y: float) -> Stand:
    return Stand(Room(BARE.room.walls, (Prop("ball", "blue", x, y),)), 2.5, 2.5, 0)


def test_eight_turns_are_a_full_turn():
    stand = BARE
    for _ in range(8):
        after = act(stand, "right")
        assert after is not None
        stand = after
    assert stand == BARE


def test_a_step_and_back():
    forward = act(BARE, "forward")
    assert forward is not None
    assert (forward.x, forward.y) == (2.5, 1.5)
    assert act(forward, "back") == BARE


def test_walls_and_things_are_in_the_way():
    near = Stand(BARE.room, 2.5, 1.0, 0)
    assert act(near, "forward") is None
    assert act(with_prop(2.5, 1.6), "forward") is None


@pytest.mark.parametrize(("heading", "wall"), [(0, "coral"), (2, "sand"), (4, "moss"), (6, "slate")])
def test_one_faces_the_wall_of_the_heading(heading, wall):
    middle = view(Stand(BARE.room, 2.5, 2.5, heading))[64, 64].astype(int)
    assert abs(middle - WALLS[wall]).max() < 20


def test_a_thing_ahead_is_in_the_middle_and_grows():
    areas = []
    for y in (0.8, 1.2, 1.6):
        picture = view(with_prop(2.5, y)).astype(int)
        blue = np.linalg.norm(picture - COLOURS["blue"], axis=2) < 60
        areas.append(blue.sum())
        assert abs(np.argwhere(blue)[:, 1].mean() - 63.5) < 1.5
    assert areas == sorted(areas)


def test_a_thing_to_the_right_leaves_the_view_by_a_left_turn():
    stand = with_prop(3.1, 1.2)
    assert all_props_clear(stand)
    turned = act(stand, "left")
    assert turned is not None
    assert not all_props_clear(turned)


def test_point_ahead_undoes_ahead():
    stand = Stand(BARE.room, 1.5, 2.0, 3)
    assert ahead(stand, *point_ahead(stand, 1.7, -0.4)) == pytest.approx((1.7, -0.4), abs=0.02)


@pytest.mark.parametrize("category", ["one action", "four"])
def test_a_new_view_shows_nothing_unknown(category):
    for index in range(15):
        sample = make("navigate", category, 0, index)
        start, goal = sample.parts[1], sample.goals[0]
        assert isinstance(start, Picture)
        assert isinstance(start.state, Stand)
        assert isinstance(goal, ViewGoal)
        assert isinstance(goal.state, Stand)
        assert all_props_clear(start.state)
        known = walls_seen(start.state)
        assert walls_seen(goal.state) <= known or len(known) == 3


def test_a_camera_goes_around_in_eight_steps():
    shot = Shot((Stack(0, 1, ("red", "blue")), Stack(2, 2, ("green",))), 0)
    assert orbit(shot, 8) == shot
    views = [blocks_view(orbit(shot, k)) for k in range(8)]
    assert all((views[0] != other).any() for other in views[1:])


def test_a_hidden_block_is_noticed():
    wall = tuple(Stack(i, 2, ("red", "red", "red")) for i in range(3))
    hidden = [Shot((*wall, Stack(1, 1, ("blue",))), turn) for turn in range(8)]
    assert any(not all_blocks_clear(shot) for shot in hidden)
    assert any(all_blocks_clear(shot) for shot in hidden)


def test_things_glide_and_bounce():
    frames = film([Mover(Thing("star", "red", 100, 60, 15), dx=8)], "white", 4)
    assert frames is not None
    assert [frame.things[0].x for frame in frames] == [100, 108, 102, 94]


def test_a_film_that_goes_wrong_is_none():
    assert film([Mover(Thing("star", "red", 60, 60, 24), dr=3)], "white", 3) is None
    two = [Mover(Thing("star", "red", 40, 60, 15), dx=11), Mover(Thing("ring", "blue", 90, 60, 15))]
    assert film(two, "white", 4) is None


def test_a_square_turned_by_a_quarter_is_the_same():
    mover = Mover(Thing("square", "red", 60, 60, 20, 75), spin=30)
    assert mover.step().thing.angle == 15
