"""Where workers run beyond one machine: they are started on Ray, Slurm or Kubernetes as the queue wants them.

Loads no torch, so that it runs on a login node. An engine has a module of its own; what they share is a `Profile` of what a
worker is given, the command line of a worker, and a `Scaler` that compares the queue's demand with the workers there are.
"""
