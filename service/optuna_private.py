"""The private names of Optuna that this program needs, in the absence of public ones; no other module imports any.

A minor version may change them, so pyproject.toml allows only one: review each before the next version is allowed.
"""

# A search space as a box of numbers: log scales, integers and one-hot encoded choices. LIPO measures distances in it,
# BOBYQA refines in it. Public methods of distributions only convert a value to Optuna's internal one, without scaling.
from optuna._transform import _SearchSpaceTransform as SearchSpaceTransform

# The good trials of several objectives: the first fronts, and from the last of them the trials that contribute most to the
# hypervolume. `TPESampler` divides the trials for every parameter of every trial; here they are divided once per batch.
from optuna.samplers._tpe.sampler import _split_complete_trials_multi_objective as split_multi_objective

# Optuna's tables, and their representation of infinities and NaN. `RDBStorage` writes one trial per transaction; the store
# writes a batch in one, together with our own tables.
from optuna.storages._rdb.models import BaseModel, TrialIntermediateValueModel, TrialValueModel

# The number of each trial's front; `Study.best_trials` returns only the first front.
from optuna.study._multi_objective import _fast_non_domination_rank as non_domination_rank

optuna_tables = BaseModel.metadata.tables
"""Optuna's tables as SQLAlchemy's, by name."""

__all__ = [
    "SearchSpaceTransform",
    "TrialIntermediateValueModel",
    "TrialValueModel",
    "non_domination_rank",
    "optuna_tables",
    "split_multi_objective",
]
