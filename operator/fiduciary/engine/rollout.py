"""How far a new runtime image has come over all models: two sums that every decision about a wave needs.

Counted as Deployments come and go, since nobody could add up ten thousand of them in each reconcile.
"""

from __future__ import annotations

from collections import Counter

from fiduciary.serving.observed import DeploymentView, RolloutView


class Rollout:
    """Serving Deployments by the image that they ask for, and whether all their pods run it."""

    def __init__(self) -> None:
        self._images: Counter[tuple[str, bool]] = Counter()  # image, is on its way

    def count(self, gone: DeploymentView | None, come: DeploymentView | None) -> None:
        """One Deployment changed from ``gone`` to ``come``; None: it was not, or is not there."""
        for view, step in ((gone, -1), (come, 1)):
            if view is not None and view.image:  # the outcome scorer serves no version
                # One that is stuck holds up no wave: a person has to look at it.
                place = (view.image, not view.rolled_out and not view.overdue)
                self._images[place] += step
                if not self._images[place]:
                    del self._images[place]

    def view(self, image: str) -> RolloutView:
        """As seen by an operator whose settings say ``image``."""
        return RolloutView(
            rolling=self._images[image, True],
            outdated=sum(number for (other, _), number in self._images.items() if other != image),
        )
