"""Certificates that end are an alarm, a month before."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from agent.certificates import LOOK_SECONDS, Certificates
from agent.config import Tls
from tests.helpers.certificates import make_authority, make_pair

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC)


class Watch:
    """Certificates with a clock that stands."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.seconds = 0.0
        self.now = NOW
        tls = Tls.model_validate(
            {"enabled": True, **{f"{key}_file": str(folder / name) for key, name in files.items()}}
        )
        self._certificates = Certificates(tls, clock=lambda: self.seconds, utc_now=lambda: self.now)

    def alarms(self) -> list[str]:
        """Look, and return the alarms."""
        self._certificates.step()
        return self._certificates.alarms()


@pytest.mark.parametrize(
    ("days", "alarms"),
    [(31, []), (29, ["certificate_expires"]), (-1, ["certificate_expired"])],
)
def test_a_certificate_that_ends_is_an_alarm_a_month_before(tmp_path: Path, days: float, alarms: list[str]) -> None:
    """The box's own and its authority's; which file it is stands in the log."""
    make_pair(tmp_path, "box", make_authority(tmp_path, "ca"), days=days, from_days=-100)
    assert Watch(tmp_path, ca="ca.crt", cert="box.crt", key="box.key").alarms() == alarms
    make_authority(tmp_path, "ca", days=days, from_days=-100)
    assert Watch(tmp_path, ca="ca.crt").alarms() == alarms


def test_time_alone_raises_it_and_a_renewed_file_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody restarts anything; it is logged once."""
    authority = make_authority(tmp_path, "ca", days=4000)
    make_pair(tmp_path, "box", authority, days=100)
    watch = Watch(tmp_path, ca="ca.crt", cert="box.crt", key="box.key")
    assert watch.alarms() == []
    for day in (71, 72):
        watch.now = NOW + dt.timedelta(days=day)
        watch.seconds += LOOK_SECONDS
        assert watch.alarms() == ["certificate_expires"]
    assert caplog.text.count("box.crt expires on") == 1
    make_pair(tmp_path, "box", authority, days=300)
    assert watch.alarms() == ["certificate_expires"]
    watch.seconds += LOOK_SECONDS
    assert watch.alarms() == []


def test_a_box_that_does_not_know_the_time_says_nothing(tmp_path: Path) -> None:
    """After a start without a clock everything would seem to be in the future."""
    make_pair(tmp_path, "box", make_authority(tmp_path, "ca"), days=-1, from_days=-30)
    watch = Watch(tmp_path, cert="box.crt", key="box.key")
    watch.now = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
    assert watch.alarms() == []


def test_a_file_that_is_away_or_no_certificate_leaves_the_alarm_to_the_connection(tmp_path: Path) -> None:
    """What was known of it holds on while it cannot be read; nonsense is told by whoever connects."""
    make_pair(tmp_path, "box", make_authority(tmp_path, "ca"), days=10)
    watch = Watch(tmp_path, cert="box.crt", key="box.key")
    assert watch.alarms() == ["certificate_expires"]
    (tmp_path / "box.crt").rename(tmp_path / "away")
    watch.seconds += LOOK_SECONDS
    with pytest.raises(FileNotFoundError):
        watch.alarms()
    (tmp_path / "box.crt").write_text("nonsense")
    watch.seconds += LOOK_SECONDS
    assert watch.alarms() == []
