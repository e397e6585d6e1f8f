"""What a person may have meant by a name that is not known: one of another spelling, or of the same meaning."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_LONGEST = 64
"""Of names that are compared; comparing takes time with the square of the length."""

_SAME: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "lr learning_rate learningrate eta alpha step_size",
        "weight_decay wd decay",
        "l2 ridge",
        "l1 lasso",
        "dropout dropout_rate dropout_p p_dropout",
        "normalization norm batch_norm batchnorm layer_norm",
        "lr_schedule scheduler schedule lr_scheduler",
        "optimizer optim solver",
        "initialization init initializer weight_init",
        "batch_size batch bs minibatch_size",
        "widths hidden_layers hidden hidden_sizes hidden_layer_sizes layers units",
        "activation nonlinearity act",
        "trials n_trials num_trials max_trials num_samples",
        "epochs n_epochs num_epochs max_epochs",
        "seconds timeout time_limit max_seconds",
        "seed random_state random_seed",
        "low min minimum lower from start",
        "high max maximum upper to end stop",
        "choices values options categories",
        "log log_scale logarithmic",
        "target label y target_column label_column",
        "dataset dataset_id data_id",
        "path file filename csv",
        "folds n_splits k n_folds cv",
        "metric scoring objective metrics",
        "early_stopping earlystopping",
        "missing na_values null_values",
    )
)
"""Names that libraries have for the same thing."""


def meant(name: str, known: Collection[str]) -> str | None:
    """The name among ``known`` that ``name`` probably stands for.

    >>> meant("dropuot", ["dropout", "lr"]), meant("learning_rate", ["dropout", "lr"]), meant("x", ["lr"])
    ('dropout', 'lr', None)
    """
    if len(name) > _LONGEST:
        return None
    plain = name.lower().replace("-", "_")
    same = next((each for words in _SAME if plain in words for each in known if each in words), None)
    close = difflib.get_close_matches(name, [each for each in known if len(each) <= _LONGEST], n=1)
    return same or next(iter(close), None)
