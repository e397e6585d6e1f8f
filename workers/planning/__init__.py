"""Decisions before a study trains: lanes, threads, compilation; and the setup of the process."""
