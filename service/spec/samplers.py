"""The samplers: where the next trials come from. What they do is in `service.search` and `service.sampling`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from service.spec.domain import Frozen
from service.spec.pruners import by_name


class TpeSampler(Frozen):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), fitted once per batch of trials."""

    name: Literal["tpe"] = "tpe"
    startup_trials: int = Field(16, ge=0, description="Random trials before the model is used.")


class RandomSampler(Frozen):
    """Independent uniform draws."""

    name: Literal["random"] = "random"


Sampler = Annotated[TpeSampler | RandomSampler, Field(discriminator="name"), BeforeValidator(by_name)]
