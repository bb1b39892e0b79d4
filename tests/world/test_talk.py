"""Conversations ask what the picture answers clearly."""

from collections import Counter
from random import Random

from bagel.world import make
from bagel.world.layout import PLACES
from bagel.world.scene import SIDE
from bagel.world.tasks import ask, talk
from bagel.world.tasks.kit import Kit
from bagel.world.wording.grammar import Words


def test_where_a_thing_is_is_asked_only_where_it_is_clear():
    told = Counter()
    for index in range(300):
        kit = Kit(Random(index), Words(Random(index), "en", new=False), "train")
        scene = ask.few(kit)
        draft = talk._place(kit, scene) if scene else None
        if draft is None:
            continue
        (thing,) = (thing for thing in scene.things if ("look", *thing.look) in draft.stated)
        (goal,) = draft.goals
        x0, y0, x1, y1 = PLACES[goal.value]
        for low, at, high in ((x0, thing.x, x1), (y0, thing.y, y1)):
            assert low == 0 or at - low >= talk.SLACK
            assert high == SIDE or high - at >= talk.SLACK
        told[goal.value] += 1
    assert set(told) == set(PLACES)


def test_every_known_thing_is_asked_about_in_training_and_held_out_in_other_sentences():
    asked = {
        split: {combo for index in range(300) for combo in make("ask", "no picture", 0, index, split, "en").combos}
        for split in ("train", "heldout")
    }
    hints = {
        split: {combo for combo in combos if combo[0] == "said" and len(combo) == 3} for split, combos in asked.items()
    }
    for combos in hints.values():
        assert {name for _, name, _ in combos} == set(talk.HINTS)
    assert not hints["train"] & hints["heldout"]


def test_a_talk_about_places_asks_nothing_twice_and_of_relations_most():
    kinds = Counter()
    for index in range(100):
        kit = Kit(Random(index), Words(Random(index), "en", new=False), "train")
        scene = kit.scene(kit.looks(4, shapes=True))
        drafts = talk._asked_of_places(kit, scene, 6) if scene else []
        texts = [talk._words(draft)[0].text for draft in drafts]
        assert len(texts) == len(set(texts)) <= 6
        kinds.update(goal.kind for draft in drafts for goal in draft.goals)
    assert set(kinds) == {"relation", "yes", "place"}
    assert kinds["relation"] + kinds["yes"] > kinds["place"] > 50


def test_conversations_are_as_long_as_they_say():
    lengths = Counter(len(make("ask", "dialogue", 0, index).parts) // 2 for index in range(200))
    assert min(lengths) == 2
    assert max(lengths) == 8
    assert sum(lengths[n] for n in (6, 7, 8)) > 30
