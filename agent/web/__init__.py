"""The page on the box: `strip-agent web`, a process of its own that asks the service over its control socket.

server.py    builds and runs it                 guard.py     connections: slow clients, too many of them
site.py      what all pages share               walls.py     requests: whose name, how many, how large, what may load
asking.py    the control socket, asynchronously  sessions.py  who is logged in, tokens against forged posts
live.py      tells open pages that there is news texts.py     words in two languages (texts/*.json)
line.py strips.py strip.py models.py health.py login.py   the pages
pictures.py  pictures by a strip's id           painter.py   the process that decodes them (paint/)
looks.py     boxes around what was found        cache.py     what was made once
review.py changing.py   what may be done here, passed on to the agent

It never opens the ledger and never imports the service.
"""
