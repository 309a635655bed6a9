"""The command line: `strip-agent`. It maps errors to exit codes, and facts to text for people or JSON for programs."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

import click

from agent import __version__, allocator, logs
from agent.cli import show
from agent.cli.afar import COMMANDS as FROM_AFAR
from agent.cli.asking import facts_of
from agent.cli.cameras import COMMANDS as ABOUT_CAMERAS
from agent.cli.hindsight import collect_command, replay_command
from agent.cli.options import box_option, config_option, json_option
from agent.cli.reviewing import review_command
from agent.cli.setting_up import setup_command
from agent.cli.shadows import models_shadow
from agent.cli.simulating import simulate_command
from agent.cli.terminal import complain, fail, in_file, say
from agent.cli.web import web_command
from agent.config import LogSection
from agent.config.check import check_environment
from agent.config.file import ConfigError, load_config
from agent.config.on_disk import ConfigFile
from agent.config.web import missing_packages
from agent.errors import AgentError, ExitCode, Fatal
from agent.printable import printable
from agent.running import announce


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="strip-agent")
def cli() -> None:
    """Score strip images from line-side cameras and publish the results over MQTT."""


for _command in (*ABOUT_CAMERAS, *FROM_AFAR, replay_command, collect_command, setup_command, web_command):
    cli.add_command(_command)


@cli.command()
@config_option
def run(config_path: Path) -> None:
    """Run the service; this is what systemd starts."""
    from agent.service import run_service  # noqa: PLC0415

    allocator.keep_little()
    config = load_config(config_path, os.environ)
    logs.setup(config.log)
    problems = check_environment(config)
    for problem in problems:
        logging.getLogger(__name__).log(logging.WARNING if problem.warning else logging.CRITICAL, "%s", problem)
    if bad := [problem for problem in problems if not problem.warning]:
        sys.exit(ExitCode.FAILED if all(problem.may_pass for problem in bad) else ExitCode.CONFIG)
    announce(config_path, config.agent.state_folder, os.environ)
    sys.exit(run_service(config, ConfigFile(config_path, dict(os.environ))))


@cli.command("check-config")
@config_option
@json_option
def check_config(config_path: Path, *, as_json: bool) -> None:
    """Show every problem of the configuration at once, with its line."""
    try:
        from agent.cli.doctor import load_as_the_service, problems_of  # noqa: PLC0415 - starts faster without

        problems = problems_of(load_as_the_service(config_path, os.environ), config_path)
    except ConfigError as error:
        problems = error.problems
    bad = any(not problem.warning for problem in problems)
    listed = [{"line": p.line, "where": p.where, "message": p.message, "warning": p.warning} for p in problems]
    say({"ok": not bad, "problems": listed}, as_json, partial(show.problems, printable(str(config_path))))
    sys.exit(ExitCode.CONFIG if bad else ExitCode.OK)


@cli.command()
@config_option
@json_option
def status(config_path: Path, *, as_json: bool) -> None:
    """Show how the service is and what it has done."""
    say(facts_of(config_path, {"command": "status"}), as_json, show.status)


@cli.command()
@click.option("--since", metavar="TIME", help="Only strips seen since: 2026-11-22T08:00, or an age such as 8h or 3d.")
@config_option
@json_option
def audit(since: str | None, config_path: Path, *, as_json: bool) -> None:
    """Prove that no strip is lost; exit 1 if it does not balance."""
    since_ms = show.parse_since(since, time.time())
    facts = facts_of(config_path, {"command": "audit", "since_ms": since_ms})
    while as_json and facts["unpublished_not_named"]:  # in parts: a million of them are too much for one answer
        request = {"command": "unpublished", "since_ms": since_ms, "after_row": facts["unpublished_up_to"]}
        more = facts_of(config_path, request)
        facts["unpublished"] += more["unpublished"]
        facts["unpublished_up_to"] = more["unpublished_up_to"]
        left = facts["unpublished_not_named"] - len(more["unpublished"])
        facts["unpublished_not_named"] = max(0, left) if more["unpublished"] else 0
    say(facts, as_json, show.audit)
    sys.exit(ExitCode.OK if facts["balanced"] else ExitCode.FAILED)


@cli.group()
def strips() -> None:
    """List, show, review and retry strips."""


strips.add_command(review_command)


@strips.command("list")
@click.option("--state", help="waiting, judged, ok, anomalous, invalid, skipped, dropped; or pending, acknowledged.")
@click.option("--camera", help="Only this camera.")
@click.option("--model", help="Only those judged by the model whose digest begins so.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@config_option
@json_option
def strips_list(
    state: str | None, camera: str | None, model: str | None, limit: int, config_path: Path, *, as_json: bool
) -> None:
    """List strips, the newest first."""
    request = {"command": "strips_list", "state": state, "camera": camera, "model": model, "limit": limit}
    say(facts_of(config_path, request), as_json, show.strips)


@strips.command("show")
@click.argument("strip_id")
@config_option
@json_option
def strips_show(strip_id: str, config_path: Path, *, as_json: bool) -> None:
    """Show everything known of one strip."""
    say(facts_of(config_path, {"command": "strips_show", "strip_id": strip_id}), as_json, show.strip)


@strips.command("retry")
@click.argument("strip_ids", nargs=-1)
@click.option("--model", help="All strips judged by the model whose digest begins so.")
@config_option
@json_option
def strips_retry(strip_ids: tuple[str, ...], model: str | None, config_path: Path, *, as_json: bool) -> None:
    """Judge strips again, as a new revision with a new message."""
    if not strip_ids and model is None:
        raise click.UsageError("name strips, or a model with --model")
    request = {"command": "retry", "strip_ids": list(strip_ids), "model": model}
    facts = facts_of(config_path, request)
    row = facts.pop("next_row", None)
    while row is not None:  # in parts: a million of them take longer than a heartbeat
        more = facts_of(config_path, {"command": "retry", "strip_ids": [], "model": model, "after_row": row})
        facts["retried"] += more["retried"]
        facts["refused"] |= more["refused"]
        row = more["next_row"]
    say(facts, as_json, show.retried)
    sys.exit(ExitCode.FAILED if facts["refused"] else ExitCode.OK)


@cli.command()
@click.argument("from_seq", type=click.IntRange(1))
@click.argument("to_seq", type=click.IntRange(1))
@click.option("--stream", help="An earlier stream, of a ledger that was damaged; else the present one.")
@config_option
@json_option
def resend(from_seq: int, to_seq: int, stream: str | None, config_path: Path, *, as_json: bool) -> None:
    """Send stored results again, by their numbers, on replay/strip/<camera>; exit 1 if some are purged."""
    request = {"command": "resend", "from_seq": from_seq, "to_seq": to_seq, "stream": stream}
    facts = facts_of(config_path, request)
    say(facts, as_json, show.resent)
    sys.exit(ExitCode.FAILED if facts["purged"] else ExitCode.OK)


@cli.group()
def models() -> None:
    """List, activate, roll back, forget, verify and shadow models."""


models.add_command(models_shadow)


@models.command("list")
@config_option
@json_option
def models_list(config_path: Path, *, as_json: bool) -> None:
    """List the models of all slots and what happened to them."""
    say(facts_of(config_path, {"command": "models_list"}), as_json, show.models)


@models.command("activate")
@click.argument("digest")
@click.option("--slot", default="default", show_default=True)
@config_option
@json_option
def models_activate(digest: str, slot: str, config_path: Path, *, as_json: bool) -> None:
    """Make a model of the store or the inbox active, whatever was said against it; it goes through the trial."""
    say(facts_of(config_path, {"command": "activate", "digest": digest, "slot": slot}), as_json, show.requested)


@models.command("rollback")
@click.option("--slot", default="default", show_default=True)
@config_option
@json_option
def models_rollback(slot: str, config_path: Path, *, as_json: bool) -> None:
    """Go back to the previous model; the active one is withdrawn."""
    say(facts_of(config_path, {"command": "rollback", "slot": slot}), as_json, show.requested)


@models.command("forget")
@click.argument("digest", required=False)
@click.option("--highest-version", is_flag=True, help="Let only the active model's version hold older ones off.")
@click.option("--slot", default="default", show_default=True)
@config_option
@json_option
def models_forget(digest: str | None, slot: str, config_path: Path, *, highest_version: bool, as_json: bool) -> None:
    """Take back what was said against a model: it may come from the inbox again, and is tried anew."""
    if (digest is None) != highest_version:
        raise click.UsageError("name a model by the beginning of its digest, or give --highest-version")
    request = {"command": "models_forget", "digest": digest or "", "slot": slot}
    say(facts_of(config_path, request), as_json, show.forgotten)


@models.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@box_option
@json_option
def models_verify(file: Path, config_path: Path | None, *, as_json: bool) -> None:
    """Try a model file here, as the service would: contract, golden strip, time."""
    from agent.cli.oneshot import verify_model  # noqa: PLC0415 - starts faster without

    facts = verify_model(file, load_config(config_path, os.environ) if config_path is not None else None)
    say(facts, as_json, show.verified)
    sys.exit(ExitCode.OK if facts["good"] else ExitCode.FAILED)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--heatmaps", type=click.Path(path_type=Path, file_okay=False), help="Folder to write heatmaps to.")
@box_option
@json_option
def score(
    files: tuple[Path, ...], model: Path, heatmaps: Path | None, config_path: Path | None, *, as_json: bool
) -> None:
    """Score strips once, without a service; exit 1 if any is invalid."""
    from agent.cli.oneshot import score_files  # noqa: PLC0415 - starts faster without

    config = load_config(config_path, os.environ) if config_path is not None else None
    bad = False
    for facts in score_files(list(files), model, heatmaps, config):
        bad |= facts["verdict"] == "invalid"
        say(facts, as_json, show.scored, indent=None)
    sys.exit(ExitCode.FAILED if bad else ExitCode.OK)


@cli.command()
@config_option
@json_option
def doctor(config_path: Path, *, as_json: bool) -> None:
    """Examine this box: libraries, folders, clock, broker."""
    from agent.cli.doctor import examine  # noqa: PLC0415 - starts faster without

    findings = examine(config_path, os.environ)
    bad = any(finding.level == "bad" for finding in findings)
    say({"ok": not bad, "findings": [finding.as_dict() for finding in findings]}, as_json, show.findings)
    sys.exit(ExitCode.FAILED if bad else ExitCode.OK)


@cli.command()
@click.option("--strips", "number", type=click.IntRange(1), help="Stop after so many strips; else until Ctrl-C.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where the demo works.")
@click.option("--broker", metavar="HOST:PORT", help="Use this broker instead of starting one.")
@click.option("--no-web", is_flag=True, help="Without the page.")
def demo(number: int | None, folder: Path | None, broker: str | None, *, no_web: bool) -> None:
    """Show it all: embedded broker, simulated cameras, bundled model, page; ends with the audit."""
    from agent.demo.demo import run_demo  # noqa: PLC0415 - its libraries are optional

    if not no_web and (missing := missing_packages()):
        print(f"No page: {', '.join(missing)} not installed (pip install 'strip-agent[web]').\n", file=sys.stderr)
    sys.exit(run_demo(number, folder, broker, page=not no_web and not missing_packages()))


cli.add_command(simulate_command)


def main() -> None:
    """Run the command line; an error that nobody expected ends with 70, so that systemd restarts the service."""
    if sys.stdout is not None:  # it was closed by whoever called
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # whatever the terminal's letters
    logs.setup(LogSection(level="warning", format="human"))  # `run` sets it up again
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        print(*map(printable, shown.getvalue().splitlines()), sep="\n", file=sys.stderr)
        sys.exit(ExitCode.USAGE)
    except click.Abort:
        sys.exit(ExitCode.FAILED)
    except ConfigError as error:
        for problem in error.problems:
            complain(in_file(error.file, problem))
        sys.exit(ExitCode.CONFIG)
    except Fatal as error:
        fail(str(error), error.exit_code)
    except AgentError as error:
        fail(str(error))
    except BrokenPipeError:  # `strip-agent ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:
        logging.getLogger(__name__).critical("internal error", exc_info=True)
        sys.exit(ExitCode.INTERNAL)


if __name__ == "__main__":
    main()
