"""The command line: `strip-agent`. It maps errors to exit codes, and facts to text for people or JSON for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from agent import __version__
from agent.cli import show
from agent.config.check import check_environment
from agent.config.file import ConfigError, load_config
from agent.control.endpoint import NotRunningError, ask
from agent.errors import AgentError, ExitCode, Fatal

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config

DEFAULT_CONFIG = Path("/etc/strip-agent/agent.yaml")

_config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="Configuration file.",
)
_box_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Do it with this box's settings; else the defaults.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="strip-agent")
def cli() -> None:
    """Score strip images from line-side cameras and publish the results over MQTT."""


@cli.command()
@_config_option
def run(config_path: Path) -> None:
    """Run the service; this is what systemd starts."""
    from agent import logs  # noqa: PLC0415 - the other commands start faster without the service's parts
    from agent.service import run_service  # noqa: PLC0415

    config = load_config(config_path, os.environ)
    logs.setup(config.log)
    problems = check_environment(config)
    for problem in problems:
        logging.getLogger(__name__).log(logging.WARNING if problem.warning else logging.CRITICAL, "%s", problem)
    if any(not problem.warning for problem in problems):
        sys.exit(ExitCode.CONFIG)
    sys.exit(run_service(config))


@cli.command("check-config")
@_config_option
@_json_option
def check_config(config_path: Path, *, as_json: bool) -> None:
    """Show every problem of the configuration at once, with its line."""
    try:
        from agent.cli.doctor import problems_of  # noqa: PLC0415 - starts faster without

        problems = problems_of(load_config(config_path, os.environ))
    except ConfigError as error:
        problems = error.problems
    bad = any(not problem.warning for problem in problems)
    if as_json:
        listed = [{"line": p.line, "where": p.where, "message": p.message, "warning": p.warning} for p in problems]
        print(json.dumps({"ok": not bad, "problems": listed}, indent=1))
    else:
        for problem in problems:
            print(f"{config_path}: {'warning: ' if problem.warning else ''}{problem}")
        print(f"{config_path}: {'not usable' if bad else 'good'}")
    sys.exit(ExitCode.CONFIG if bad else ExitCode.OK)


@cli.command()
@_config_option
@_json_option
def status(config_path: Path, *, as_json: bool) -> None:
    """Show how the service is and what it has done."""
    _show(_facts(config_path, {"command": "status"}), as_json, show.status)


@cli.command()
@click.option("--since", metavar="TIME", help="Only strips seen since: 2026-11-22T08:00, or an age such as 8h or 3d.")
@_config_option
@_json_option
def audit(since: str | None, config_path: Path, *, as_json: bool) -> None:
    """Prove that no strip is lost; exit 1 if it does not balance."""
    since_ms = show.parse_since(since, time.time())
    facts = _facts(config_path, {"command": "audit", "since_ms": since_ms})
    while as_json and facts["unpublished_not_named"]:  # in parts: a million of them are too much for one answer
        request = {"command": "unpublished", "since_ms": since_ms, "after_row": facts["unpublished_up_to"]}
        more = _facts(config_path, request)
        facts["unpublished"] += more["unpublished"]
        facts["unpublished_up_to"] = more["unpublished_up_to"]
        left = facts["unpublished_not_named"] - len(more["unpublished"])
        facts["unpublished_not_named"] = max(0, left) if more["unpublished"] else 0
    _show(facts, as_json, show.audit)
    sys.exit(ExitCode.OK if facts["balanced"] else ExitCode.FAILED)


@cli.group()
def strips() -> None:
    """List, show and retry strips."""


@strips.command("list")
@click.option("--state", help="waiting, judged, ok, anomalous, invalid, skipped, dropped; or pending, acknowledged.")
@click.option("--camera", help="Only this camera.")
@click.option("--model", help="Only those judged by the model whose digest begins so.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@_config_option
@_json_option
def strips_list(
    state: str | None, camera: str | None, model: str | None, limit: int, config_path: Path, *, as_json: bool
) -> None:
    """List strips, the newest first."""
    request = {"command": "strips_list", "state": state, "camera": camera, "model": model, "limit": limit}
    _show(_facts(config_path, request), as_json, show.strips)


@strips.command("show")
@click.argument("strip_id")
@_config_option
@_json_option
def strips_show(strip_id: str, config_path: Path, *, as_json: bool) -> None:
    """Show everything known of one strip."""
    _show(_facts(config_path, {"command": "strips_show", "strip_id": strip_id}), as_json, show.strip)


@strips.command("retry")
@click.argument("strip_ids", nargs=-1)
@click.option("--model", help="All strips judged by the model whose digest begins so.")
@_config_option
@_json_option
def strips_retry(strip_ids: tuple[str, ...], model: str | None, config_path: Path, *, as_json: bool) -> None:
    """Judge strips again, as a new revision with a new message."""
    if not strip_ids and model is None:
        raise click.UsageError("name strips, or a model with --model")
    request = {"command": "strips_retry", "strip_ids": list(strip_ids), "model": model}
    facts = _facts(config_path, request)
    _show(facts, as_json, show.retried)
    sys.exit(ExitCode.FAILED if facts["refused"] else ExitCode.OK)


@cli.group()
def models() -> None:
    """List, activate, roll back and verify models."""


@models.command("list")
@_config_option
@_json_option
def models_list(config_path: Path, *, as_json: bool) -> None:
    """List the models of all slots and what happened to them."""
    _show(_facts(config_path, {"command": "models_list"}), as_json, show.models)


@models.command("activate")
@click.argument("digest")
@click.option("--slot", default="default", show_default=True)
@_config_option
@_json_option
def models_activate(digest: str, slot: str, config_path: Path, *, as_json: bool) -> None:
    """Make a model of the store or the inbox active, whatever was said against it; it goes through the trial."""
    _show(_facts(config_path, {"command": "models_activate", "digest": digest, "slot": slot}), as_json, show.requested)


@models.command("rollback")
@click.option("--slot", default="default", show_default=True)
@_config_option
@_json_option
def models_rollback(slot: str, config_path: Path, *, as_json: bool) -> None:
    """Go back to the previous model; the active one is withdrawn."""
    _show(_facts(config_path, {"command": "models_rollback", "slot": slot}), as_json, show.requested)


@models.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_box_option
@_json_option
def models_verify(file: Path, config_path: Path | None, *, as_json: bool) -> None:
    """Try a model file here, as the service would: contract, golden strip, time."""
    from agent.cli.oneshot import verify_model  # noqa: PLC0415 - starts faster without

    facts = verify_model(file, load_config(config_path, os.environ) if config_path is not None else None)
    _show(facts, as_json, show.verified)
    sys.exit(ExitCode.OK if facts["good"] else ExitCode.FAILED)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--heatmaps", type=click.Path(path_type=Path, file_okay=False), help="Folder to write heatmaps to.")
@_box_option
@_json_option
def score(
    files: tuple[Path, ...], model: Path, heatmaps: Path | None, config_path: Path | None, *, as_json: bool
) -> None:
    """Score strips once, without a service; exit 1 if any is invalid."""
    from agent.cli.oneshot import score_files  # noqa: PLC0415 - starts faster without

    config = load_config(config_path, os.environ) if config_path is not None else None
    bad = False
    for facts in score_files(list(files), model, heatmaps, config):
        bad |= facts["verdict"] == "invalid"
        print(json.dumps(facts) if as_json else show.scored(facts), flush=True)
    sys.exit(ExitCode.FAILED if bad else ExitCode.OK)


@cli.command()
@_config_option
@_json_option
def doctor(config_path: Path, *, as_json: bool) -> None:
    """Examine this box: libraries, folders, clock, broker."""
    from agent.cli.doctor import examine  # noqa: PLC0415 - starts faster without

    findings = examine(config_path, os.environ)
    bad = any(finding.level == "bad" for finding in findings)
    _show({"ok": not bad, "findings": [finding.as_dict() for finding in findings]}, as_json, show.findings)
    sys.exit(ExitCode.FAILED if bad else ExitCode.OK)


@cli.command()
@click.option("--strips", "number", type=click.IntRange(1), help="Stop after so many strips; else until Ctrl-C.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where the demo works.")
@click.option("--broker", metavar="HOST:PORT", help="Use this broker instead of starting one.")
def demo(number: int | None, folder: Path | None, broker: str | None) -> None:
    """Show it all: embedded broker, simulated cameras, bundled model; ends with the audit."""
    from agent.demo.demo import run_demo  # noqa: PLC0415 - its libraries are optional

    sys.exit(run_demo(number, folder, broker))


# -- asking the service, or doing it here ------------------------------------------------------------------------------


def _facts(config_path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the running service; without one take the lock and answer here. Exits with a sentence where that fails."""
    config = load_config(config_path, os.environ)
    try:
        answer = ask(config.agent.state_folder / "control.sock", request)
    except NotRunningError:
        answer = _answer_here(config, request)
    except PermissionError:
        _fail(f"this user may not talk to the service ({config.agent.state_folder}/control.sock): use its user or sudo")
    except OSError as error:
        _fail(f"the service does not answer: {error}")
    if not answer.pop("ok"):
        _fail(answer["error"])
    return answer


def _answer_here(config: Config, request: dict[str, Any]) -> dict[str, Any]:
    from agent.control.commands import Context, handle  # noqa: PLC0415 - a running service has them already
    from agent.ledger import open_ledger  # noqa: PLC0415
    from agent.ownership import take_lock  # noqa: PLC0415

    if not (config.agent.state_folder / "ledger.db").exists():
        _fail(f"there is no ledger in {config.agent.state_folder} yet: start the service once")
    _become_the_owner(config.agent.state_folder)
    lock = take_lock(config.agent.state_folder)
    ledger = open_ledger(config.agent.state_folder / "ledger.db")
    try:
        return handle(Context(config, ledger, {}), request)
    finally:
        ledger.database.close()
        lock.close()


def _become_the_owner(folder: Path) -> None:
    """As root act as the service's user, or the service could not use the files that are made here."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def _show(facts: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(facts, indent=1) if as_json else text(facts))


def _fail(sentence: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    print(f"strip-agent: {sentence}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Run the command line; an error that nobody expected ends with 70, so that systemd restarts the service."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except click.Abort:
        sys.exit(ExitCode.FAILED)
    except ConfigError as error:
        for problem in error.problems:
            print(f"strip-agent: {problem}", file=sys.stderr)
        sys.exit(ExitCode.CONFIG)
    except Fatal as error:
        _fail(str(error), error.exit_code)
    except AgentError as error:
        _fail(str(error))
    except BrokenPipeError:  # `strip-agent ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:
        logging.getLogger(__name__).critical("internal error", exc_info=True)
        sys.exit(ExitCode.INTERNAL)


if __name__ == "__main__":
    main()
