"""Nesterov's momentum (Sutskever et al., ICML 2013): a column that the rule `sgd` reads (see `workers.stack.optimizers`)."""

from __future__ import annotations

from workers.stack.techniques.base import Technique


class Nesterov(Technique):
    """1.0 in lanes that have it on."""

    name = "nesterov"


TECHNIQUES = (Nesterov(),)
