"""Studies whose trials the user's own programs run: asking, judging, telling, and the answer from their runs.

    Programs     what programs may do with studies: ask, report, tell, heartbeat, release
    Conductor    search, pruning and convergence of one study, for any number of programs
    answer       which settings are run again over seeds after the search, and the result from these runs

No HTTP and no SQL; the store keeps everything, so any process may go on where another has ended.
"""

from service.external.conductor import Decision, Told
from service.external.programs import Answer, FinalTold, Programs, Run

__all__ = ["Answer", "Decision", "FinalTold", "Programs", "Run", "Told"]
