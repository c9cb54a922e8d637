"""What is going on while a journal is open: appends that share their commits.

The type of what `Journal.submit` returns is to be imported from here.
"""

from journal.live.tickets import Ticket as Ticket
