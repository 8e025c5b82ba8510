"""Games: bet on an outcome before it is known; label, with buttons, the images that a strategy asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
from IPython.display import display

from helpers.frontend import is_live
from helpers.labels.active import Answer, ask
from helpers.plots import COLOURS, draw_image, panels, show


@dataclass
class Bet:
    """What a reader thinks before the answer is known; `answer` is None as long as nobody chose."""

    choices: tuple[str, ...]
    answer: str | None = None

    def settle(self, right: str) -> None:
        """Print what happened and what the bet was. Raises ValueError for an outcome that could not be chosen."""
        if right not in self.choices:
            raise ValueError(f"the outcome is {right!r}; expected one of {', '.join(self.choices)}")
        verdict = (
            ""
            if self.answer is None
            else f" You bet: {self.answer}. " + ("Right." if self.answer == right else "Not so.")
        )
        print(f"The bet: {right}.{verdict}")


def bet(question: str, choices: Sequence[str]) -> Bet:
    """Print a question with its choices, as buttons where a person watches, and return the bet, to be settled later.

    Raises ValueError for fewer than two choices, or two of one name.
    """
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(f"choices are {list(choices)}; expected two or more, all different")
    made = Bet(tuple(choices))
    print(question, *(f"  {letter}. {choice}" for letter, choice in zip("abcdefgh", choices, strict=False)), sep="\n")
    if is_live():
        buttons = ipywidgets.ToggleButtons(options=list(choices), value=None, style={"button_width": "auto"})
        buttons.observe(lambda change: setattr(made, "answer", change["new"]), names="value")
        display(buttons)
    return made


class Game:
    """The loop of `simulate`, where a person answers: `asked` is the image in question, `tell` gives its label.

    fit(labelled): an Answer of a new model, trained on the images with these indices and on their labels in `labels`
    (N,), into which the game writes. measure: the name of what the curve (counts, scores) shows.
    """

    def __init__(
        self,
        strategy: Callable[..., np.ndarray],
        fit: Callable[[np.ndarray], Answer],
        features: np.ndarray,
        labels: np.ndarray,
        *,
        measure: str,
        start: Sequence[int],
        budget: int,
        seed: int,
    ):
        self.strategy, self.fit, self.features, self.labels = strategy, fit, features, labels
        self.measure, self.budget, self.seed = measure, budget, seed
        self.order, self.queue, self.counts, self.scores = list(start), [], [], []
        self._learn()

    @property
    def asked(self) -> int | None:
        """Index of the image in question; None when all have a label."""
        return self.queue[0] if self.queue else None

    def tell(self, label: int) -> None:
        """Label the image in question; after a whole batch a new model is fitted, which asks for the next.

        Raises ValueError when nothing is asked.
        """
        if self.asked is None:
            raise ValueError(f"label {label} for no image; all {len(self.labels)} have one")
        self.labels[self.asked] = label
        self.order.append(self.queue.pop(0))
        if not self.queue:
            self._learn()

    def _learn(self) -> None:
        answer = self.fit(np.array(self.order))
        self.counts.append(len(self.order))
        self.scores.append(answer.measures[self.measure])
        known, turn = np.array(self.order), len(self.counts) - 1
        budget = min(self.budget, len(self.labels) - len(known))
        self.queue = ask(self.strategy, answer, self.features, known, budget, seed=self.seed, turn=turn).tolist()


def play(game: Game, images: np.ndarray, names: Sequence[str]) -> ipywidgets.VBox | None:
    """The game with a button for each class name; images (N, H, W) or (N, H, W, 3) in 0…1.

    None, and no widget, where nobody plays.
    """
    if not is_live():
        return None
    screen, buttons = ipywidgets.Output(), [ipywidgets.Button(description=name) for name in names]

    def refresh() -> None:
        screen.clear_output(wait=True)
        with screen:
            _draw(game, images)
        for button in buttons:
            button.disabled = game.asked is None

    def press(label: int) -> None:
        game.tell(label)
        refresh()

    for label, button in enumerate(buttons):
        button.on_click(lambda _, label=label: press(label))
    refresh()
    return ipywidgets.VBox([screen, ipywidgets.HBox(buttons)])


def _draw(game: Game, images: np.ndarray) -> None:
    figure, axes = panels(1, 2, width=3)
    if game.asked is None:
        axes[0, 0].axis("off")
    else:
        draw_image(axes[0, 0], images[game.asked], title="What is this?")
    axes[0, 1].plot(game.counts, game.scores, "o-", color=COLOURS["method"])
    axes[0, 1].set(xlabel="labels", ylabel=game.measure, ylim=(0, 1))
    show(figure, "The image in question, and the learning curve so far.", photograph=True)
