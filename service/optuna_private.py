"""What this program needs of Optuna and Optuna's public interface lacks; nobody else imports a private name of it.

Any minor version may change these, so pyproject.toml allows one: on the next, read what each of them has become.
"""

# A search space as a box of numbers: log scales, whole numbers and one coordinate for every choice. LIPO measures distances
# in it, BOBYQA refines in it. Distributions themselves only turn a value into Optuna's internal one, on its own scale.
from optuna._transform import _SearchSpaceTransform as SearchSpaceTransform

# The good trials of several objectives: first fronts, and of the last one what adds most to the hypervolume. `TPESampler`
# divides so, but anew for every parameter of every trial; a batch is divided once.
from optuna.samplers._tpe.sampler import _split_complete_trials_multi_objective as split_multi_objective

# Optuna's tables, and how they store infinities and NaN. `RDBStorage` writes one trial in a transaction; ours write a whole
# batch in one, together with our own tables.
from optuna.storages._rdb.models import BaseModel, TrialIntermediateValueModel, TrialValueModel

# The number of each trial's front; `Study.best_trials` gives the first front only.
from optuna.study._multi_objective import _fast_non_domination_rank as non_domination_rank

optuna_tables = BaseModel.metadata.tables
"""Optuna's schema by the names of its tables, as SQLAlchemy has it."""

__all__ = [
    "SearchSpaceTransform",
    "TrialIntermediateValueModel",
    "TrialValueModel",
    "non_domination_rank",
    "optuna_tables",
    "split_multi_objective",
]
