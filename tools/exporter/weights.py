"""Find a network's weights among the tensors of a file, whatever was put around them.

Wrappers put words before the keys (`module.`, `_orig_mod.`, `model.`, `net.`), some of them in the middle, and people
put dicts around everything. So keys are matched by their tails: those that the network wants. What stands before the
tail is the prefix, and a prefix under which every key of the network is found is a complete set of weights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from tools.exporter.errors import ExportError, short
from tools.exporter.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Keys = frozenset[str]
    Path = tuple[str, ...]  # the keys of the dicts around a tensor, outermost first, and its own
    Groups = Mapping[str, dict[str, Path]]  # by prefix: where the tensor lies for each key of the network

WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")  # also in the middle of keys
COUNTER = "num_batches_tracked"  # of batch norms: means nothing once the training is over
AVERAGED = {"ema", "modelema", "emamodel", "averaged", "swa", "shadow"}  # words for a running average of weights
BESIDE = re.compile(
    r"(optim|optimi[sz]ers?|(lr_)?schedulers?|lr|(grad_)?scaler|amp|loss(es|_fns?)?|criteri(on|a)|best|epoch|(global_)?step"
    r"|n_averaged|seed|(cuda_)?rng(_states?)?|history|((train|valid|val|test)_)?(metrics?|loss|acc|accuracy|auroc))([._]|$)"
)  # begins names of what trainers store beside a network
NAMED = 4


def choose_weights(
    tensors: Mapping[Path, torch.Tensor], families: Sequence[Keys], asked: str | None, file: str
) -> dict[str, torch.Tensor]:
    """Find the one set of weights that is complete for one of `families` (the keys of each network).

    `asked` is `ema`, `plain` or a prefix, None where the person did not say. Returns the tensors by the network's keys;
    what else lies under their prefix keeps its own key, so that it can be refused by name; nothing when no key fits.
    Raises ExportError when several sets fit, or none of those asked for.
    """
    groups = _groups(tensors, frozenset().union(*families))
    complete = [prefix for prefix, group in groups.items() if any(_is_complete(group, keys) for keys in families)]
    plain = [prefix for prefix in complete if not _is_averaged(prefix)]
    averaged = _averaged(groups, tensors)
    if asked is None and averaged and plain:
        raise ExportError(
            f"{file} holds the trained weights and a running average of them (EMA): say which one you evaluated, "
            "--weights plain or --weights ema."
        )
    candidates = [prefix for prefix in groups if _is_asked(prefix, asked)]
    if asked is not None and not candidates:
        raise ExportError(
            f"{file} holds no weights for --weights {short(asked)}: leave the option out to see what it holds."
        )
    if not candidates:
        return {}
    complete = _different([prefix for prefix in candidates if prefix in complete], groups, tensors)
    if len(complete) > 1:
        shown = _some([_shown(prefix) for prefix in complete])
        raise ExportError(f"{file} holds {len(complete)} complete sets of weights: say --weights and one of {shown}.")
    prefix = complete[0] if complete else max(candidates, key=lambda one: len(groups[one]))
    known = averaged.union(*(groups[other].values() for other in [prefix, *plain]))
    under, beside = _unexplained([path for path in tensors if path not in known], prefix, _around(groups[prefix]), file)
    if beside and complete and asked not in (None, "ema", "plain"):
        say(f"left out as asked: {_some(beside)} of {file}")
    elif beside and complete:
        raise ExportError(
            f"{file} holds {_some(beside)} beside the weights under {_shown(prefix)}, maybe a part of the network: "
            f"say --weights {_shown(prefix)} when it is none, else give your class with --network FILE.py:Class."
        )
    return {key: tensors[path] for key, path in (groups[prefix] | under).items()}


def _groups(paths: Iterable[Path], wanted: Keys) -> dict[str, dict[str, Path]]:
    """Sort the tensors by prefix, and under it by the key of the network; counters of batches are left out."""
    keys = {tuple(part for part in key.split(".") if part not in WRAPPERS): key for key in wanted}
    longest = max(len(parts) for parts in keys)
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in paths:
        parts = ".".join(path).split(".")
        tail: Path = ()
        for place in range(len(parts) - 1, -1, -1):
            if parts[place] in WRAPPERS:
                continue
            tail = (parts[place], *tail)
            if len(tail) > longest:
                break
            if tail in keys and tail[-1] != COUNTER:
                group = groups["".join(f"{part}." for part in parts[:place])]
                if group.setdefault(keys[tail], path) != path:
                    raise ExportError(
                        f"The file holds two tensors for {short(keys[tail])} ({short('.'.join(path))} and "
                        f"{short('.'.join(group[keys[tail]]))}): save model.state_dict() alone."
                    )
    return dict(groups)


def _is_complete(group: Mapping[str, Path], keys: Keys) -> bool:
    return all(key in group for key in keys if not key.endswith(COUNTER))


def _is_averaged(prefix: str) -> bool:
    return not AVERAGED.isdisjoint(re.split(r"[._]", prefix.lower()))


def _averaged(groups: Groups, paths: Iterable[Path]) -> set[Path]:
    """Find the tensors of a running average: under the network's keys, or a bare list of them."""
    named = {path for prefix, group in groups.items() if _is_averaged(prefix) for path in group.values()}
    return named | {path for path in paths if path[-1].isdecimal() and _is_averaged(".".join(path))}


def _is_asked(prefix: str, asked: str | None) -> bool:
    if asked in ("ema", "plain"):
        return _is_averaged(prefix) == (asked == "ema")
    return asked is None or prefix.rstrip(".") == asked.rstrip(".")


def _different(complete: Sequence[str], groups: Groups, tensors: Mapping[Path, torch.Tensor]) -> list[str]:
    """Leave out sets that are equal to one before them: the same network under two names."""

    def are_equal(one: Mapping[str, Path], other: Mapping[str, Path]) -> bool:
        if one.keys() != other.keys():
            return False
        pairs = ((tensors[one[key]], tensors[other[key]]) for key in one)
        return all(a.dtype == b.dtype and a.layout == b.layout == torch.strided and torch.equal(a, b) for a, b in pairs)

    kept: list[str] = []
    for prefix in complete:
        if not any(are_equal(groups[prefix], groups[other]) for other in kept):
            kept.append(prefix)
    return kept


def _around(group: Mapping[str, Path]) -> Path:
    """Give the keys of the dicts that are around all tensors of a group."""
    first, last = min(group.values())[:-1], max(group.values())[:-1]
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def _unexplained(paths: Iterable[Path], prefix: str, around: Path, file: str) -> tuple[dict[str, Path], list[str]]:
    """Sort what is not known to be the network's: by key what lies under its prefix, by name what lies beside it.

    Trainers store losses and optimisers there, under names that say so; those are passed over with a word.
    """
    under, beside, passed = {}, [], []
    for path in paths:
        full = ".".join(path)
        inside = full.startswith(prefix)
        if path[-1].endswith(COUNTER) or not (inside or path[: len(around)] == around):
            continue
        rest = full[len(prefix) :] if inside else ".".join(path[len(around) :])
        if BESIDE.match(rest.lower()):
            passed.append(rest)
        elif inside:
            under[rest] = path
        else:
            beside.append(full)
    if passed:
        say(f"not part of the network, left out: {_some(passed)} of {file}")
    return under, beside


def _some(names: Sequence[str]) -> str:
    return ", ".join(short(name) for name in names[:NAMED]) + (" and more" if len(names) > NAMED else "")


def _shown(prefix: str) -> str:
    return short(prefix.rstrip(".")) or "."
