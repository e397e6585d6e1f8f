"""The answer of a study: finalists over seeds, one look at the locked test part, and what it all says.

A search returns the luckiest of many trials. Here the best settings, the same network without regularization and the
framework's defaults are trained again, each over the same seeds. What is chosen is chosen on validation data; then the
test part is opened, on record. `Finalizer.run` gives an `Answer`, whose ``findings`` are those of `service.result`; the
worker adds how the study was executed and which network is handed out.
"""

from workers.answer.finalizer import Answer, Finalizer, TrainedModel

__all__ = ["Answer", "Finalizer", "TrainedModel"]
