"""In which folders a camera's waiting strips were taken in: the configuration may have given it another one since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.ledger import identity

if TYPE_CHECKING:
    from agent.ledger.database import Database


class Folders:
    """The ledger's part about the folders of cameras."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def with_waiting(self, camera: str) -> frozenset[str]:
        """Return those in which the camera's waiting strips were taken in; "" stands for one that is not known."""
        with self._database.reading() as db:
            query = (
                "SELECT DISTINCT coalesce(folders.path, '') FROM strips INDEXED BY strips_oldest_waiting "
                "LEFT JOIN folders ON folders.id = strips.folder WHERE state = 'waiting' AND camera = ?"
            )
            return frozenset(path for (path,) in db.execute(query, (camera,)))

    def note(self, camera: str, folder: str) -> None:
        """Let the camera's waiting strips of which it is not known where they lie lie in `folder`."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE strips INDEXED BY strips_oldest_waiting SET folder = ? "
                "WHERE state = 'waiting' AND camera = ? AND folder = 0",
                (identity.number_of(db, folder), camera),
            )
