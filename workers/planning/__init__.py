"""What is decided before a study trains: lanes, threads, compiled or not; and what the process is set to."""
