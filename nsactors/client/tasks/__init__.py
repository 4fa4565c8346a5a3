"""Tasks that find an engine by themselves: the scheduler of ``core.scheduling`` at work for a client.

farm        what others call; a thread that takes submissions, answers and news in order
driving     what that thread does as the scheduler says
jobs        what tasks consist of, and how it is packed
delivery    what engines say of batches, and what that means to who submitted the tasks
asking      what is asked of engines while they are busy
"""

from nsactors.client.tasks.driving import TaskStatus
from nsactors.client.tasks.farm import Farm
from nsactors.client.tasks.jobs import Job, MapFunction

__all__ = ["Farm", "Job", "MapFunction", "TaskStatus"]
