"""The game: what a click does, without a browser."""

import ipywidgets
import numpy as np
import pytest

from helpers import game
from helpers.game import Game, play
from helpers.labels import acquire
from helpers.labels.active import Answer, simulate


def fitted_to(labels):
    """A model whose score is the share of labels that are 1."""
    return lambda labelled: Answer(np.full((6, 2), 0.5), {"score": float(np.mean(labels[labelled] == 1))})


def new_game(budget=2):
    labels = np.array([1, -1, -1, -1, -1, -1])
    options = dict(measure="score", start=[0], budget=budget, seed=0)
    return Game(acquire.random, fitted_to(labels), np.zeros((6, 1)), labels, **options)


def test_a_batch_of_answers_makes_a_point_of_the_curve():
    one = new_game()
    first = one.asked
    one.tell(0)
    assert one.labels[first] == 0 and one.asked not in (0, first) and one.counts == [1]
    one.tell(1)
    assert one.counts == [1, 3] and one.scores == [1.0, pytest.approx(2 / 3)]


def test_a_game_told_the_truth_is_the_simulation():
    truth = np.array([1, 0, 1, 1, 0, 1])
    curve = simulate(acquire.random, fitted_to(truth), np.zeros((6, 1)), start=[0], budget=2, rounds=2, seed=0)
    one = new_game()
    while one.asked is not None and len(one.order) < 5:
        one.tell(truth[one.asked])
    assert one.order == curve.order.tolist() and one.scores == curve.measures["score"].tolist()


def test_the_last_batch_is_what_is_left_and_then_nothing_is_asked():
    one = new_game(budget=3)
    for _ in range(5):
        one.tell(1)
    assert one.asked is None and one.counts == [1, 4, 6] and sorted(one.order) == list(range(6))
    with pytest.raises(ValueError, match="label 1 for no image; all 6 have one"):
        one.tell(1)


def test_buttons_answer_and_end_with_the_game(monkeypatch):
    monkeypatch.setattr(game, "is_live", lambda: True)
    one = new_game(budget=5)
    screen, row = play(one, np.zeros((6, 8, 8)), ["no", "yes"]).children
    assert isinstance(screen, ipywidgets.Output) and [b.description for b in row.children] == ["no", "yes"]
    for _ in range(5):
        assert not row.children[1].disabled
        row.children[1].click()
    assert (one.labels == 1).all() and row.children[0].disabled


def test_nobody_plays_in_a_batch(monkeypatch):
    monkeypatch.setattr(game, "is_live", lambda: False)
    assert play(new_game(), np.zeros((6, 8, 8)), ["no", "yes"]) is None


def test_a_bet_that_nobody_made_is_settled_by_what_happened(capsys):
    made = game.bet("Which wins?", ("the gate", "the control"))
    made.settle("the control")
    assert capsys.readouterr().out == "Which wins?\n  a. the gate\n  b. the control\nThe bet: the control.\n"


@pytest.mark.parametrize(("answer", "verdict"), [("the gate", "Not so."), ("the control", "Right.")])
def test_a_click_is_a_bet(answer, verdict, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(game, "is_live", lambda: True)
    monkeypatch.setattr(game, "display", shown.append)
    made = game.bet("Which wins?", ("the gate", "the control"))
    shown[0].value = answer
    made.settle("the control")
    assert capsys.readouterr().out.endswith(f"The bet: the control. You bet: {answer}. {verdict}\n")


def test_wrong_bets():
    with pytest.raises(ValueError, match=r"choices are \['a'\]; expected two or more, all different"):
        game.bet("Which?", ("a",))
    with pytest.raises(ValueError, match="the outcome is 'c'; expected one of a, b"):
        game.bet("Which?", ("a", "b")).settle("c")
