"""The Python client: `from regsearch import Client`. It needs httpx and pydantic, and no torch.

    client = Client("http://127.0.0.1:8000")
    study = client.study({"metric": "val_loss", "direction": "minimize", "space": {...}})
    for trial in study.trials():
        with trial:
            network = build(**trial.params)
            for epoch in range(50):
                if trial.report(epoch, train_one_epoch(network)):
                    break
    print(study.result().verdict)

Studies that the service's workers run are submitted, watched and read in the same way. `AsyncClient` has the same methods as
coroutines; `callbacks` has trials as callbacks of Lightning, Transformers and Keras.
"""

from service.client.asynchronous import AsyncClient, AsyncStudy, AsyncTrial
from service.client.callbacks import keras_callback, lightning_callback, transformers_callback
from service.client.connection import HttpClient, Refused, Unreachable
from service.client.study import Client, Study
from service.client.trials import Ended, Trial

__all__ = [
    "AsyncClient",
    "AsyncStudy",
    "AsyncTrial",
    "Client",
    "Ended",
    "HttpClient",
    "Refused",
    "Study",
    "Trial",
    "Unreachable",
    "keras_callback",
    "lightning_callback",
    "transformers_callback",
]
