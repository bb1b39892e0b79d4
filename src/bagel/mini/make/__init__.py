"""The embedded model within a set time on one GPU, as far as it comes: training, a look on the way, export, judging.

plan     what is asked for
child    one process with a time-out
state    what is done, so that the same command goes on after a kill
driver   the stages in order
status   what there is to see meanwhile
carry    everything worth keeping, in few files
"""

from bagel.mini.make.carry import collect
from bagel.mini.make.driver import make
from bagel.mini.make.plan import Plan
from bagel.mini.make.status import status

__all__ = ["Plan", "collect", "make", "status"]
