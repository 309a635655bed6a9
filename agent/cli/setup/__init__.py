"""From an installed agent to a running one: `strip-agent setup`.

`answers.py` asks or takes from the arguments; `fill_in.py` writes them into the shipped configuration; `place.py` makes
folders and gives rights; `sftp.py` makes accounts that only push; `walls.py` opens the unit's walls as far as the
configuration needs; `run.py` goes through it all.
Run again, it leaves an edited configuration alone and brings everything else in line with it.
"""

from agent.cli.setup.answers import Answers, CameraAnswer
from agent.cli.setup.run import set_up

__all__ = ["Answers", "CameraAnswer", "set_up"]
