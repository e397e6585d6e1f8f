"""The answer of a study: finalists over seeds, one reading of the locked test part, and the findings.

A search returns the luckiest of many trials. Here the best settings, the same network without regularization and the
framework's defaults are trained again, each over the same seeds. All choices are made on validation data; then the test
part is opened, on record. `Finalizer.run` returns an `Answer`, whose ``findings`` are those of `service.result`; the worker
adds how the study was executed and which network is handed out.
"""

from workers.answer.finalizer import Answer, Finalizer, TrainedModel

__all__ = ["Answer", "Finalizer", "TrainedModel"]
