"""Do records hold for today's code? `python tools/verify.py [TABLE…]` tries those whose normal form has changed.

Each such row is run in profile `smoke`, once from a worktree of the commit where the code of its record stood and once
from now, and compared bit for bit (`tools/witness.py` says what is noted). If all is equal, the ledger gets the new
normal form, with the commit that it was compared with; else the first difference is told and the record stays stale.
`--profile teach` tries them in a larger profile, where the small one has changed and no record was made with it.
`--full` then runs one random record of each table that changed in its own profile, from both trees, too.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

from tqdm import tqdm

from helpers.runs.code import SHOWS, code_hash, root_of
from helpers.runs.grid import PROFILES
from helpers.runs.record import read_ledger, repo_root, write_ledger

ROOT = repo_root()
WORK = ROOT / "build" / "verify"


def main() -> int:
    """0 if every record of the tables is fresh or verified, 1 if one is stale, 2 if nothing could be tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", help="names in results/ (all)")
    parser.add_argument("--full", action="store_true", help="run one full record of each changed table, too")
    parser.add_argument("--profile", default="smoke", choices=PROFILES, help="in which the rows are tried (smoke)")
    options = parser.parse_args()
    ledgers = sorted((ROOT / "results").glob("*.json"))
    if unknown := set(options.tables) - {path.stem for path in ledgers}:
        print(f"no table {min(unknown)!r}; the tables are {', '.join(path.stem for path in ledgers)}", file=sys.stderr)
        return 2
    if git("status", "--porcelain", "--untracked-files=no", "--", "helpers", "experiments", "notebooks"):
        print("helpers, experiments or notebooks have changes that are in no commit: commit first", file=sys.stderr)
        return 2
    chosen = [path for path in ledgers if not options.tables or path.stem in options.tables]
    held = [check(path, options.profile, full=options.full) for path in chosen]
    git("worktree", "prune")
    return int(not all(held))


def check(path: Path, profile: str, *, full: bool) -> bool:
    """Verify a table, write its ledger, print how it stands; whether all its records are fresh or verified."""
    ledger, hashed, verified = read_ledger(path), cache(code_hash), []

    def now(record: dict) -> str:
        return hashed(record["notebook"], root_of(record["notebook"], record["row"]))

    stale = [r for r in ledger["runs"].values() if r["code"] != now(r)]
    groups = {}
    for record in stale:  # a run a row and kind of data, with the first of its seeds
        params = {name: value for name, value in record["params"].items() if name not in ("seed", "profile")}
        groups.setdefault((record["code"], json.dumps(params, sort_keys=True)), []).append(record)
    bar = tqdm(groups.items(), desc=path.stem, unit="row", disable=None)
    for (code, _), members in bar:
        base = ledger["code"][code]["commit"]
        params = min((record["params"] for record in members), key=lambda p: p["seed"])
        started = time.monotonic()
        problem = differs(base, path.stem, params | {"profile": profile})
        name = " ".join(str(params[key]) for key in ("row", "model", "data") if params.get(key))
        spent = f"{time.monotonic() - started:.0f} s, {_peak_gb():.1f} GB"
        bar.write(f"{path.stem}  {name}: {problem or f'as at {base[:7]}'} ({spent})")
        if not problem:
            for record in members:
                record["code"] = now(record)
                ledger["code"][record["code"]] = {"commit": git("rev-parse", "HEAD"), "verified": base}
            verified += [(base, record["params"]) for record in members]
    if full and verified:
        base, params = random.choice(verified)
        problem = differs(base, path.stem, params)
        print(f"{path.stem}  {params}: {problem or f'as at {base[:7]}'}")
        verified = [] if problem else verified  # then nothing is written
    if verified:
        write_ledger(path, ledger)
    total, left = len(ledger["runs"]), len(stale) - len(verified)
    print(f"{path.stem}: {total - len(stale)} fresh, {len(verified)} verified, {left} stale")
    return not left


def differs(commit: str, table: str, params: dict) -> str:
    """What the code of a commit and that of now compute differently for these parameters; "" if nothing."""
    try:
        old, new = witness(_tree(commit), commit, table, params), witness(ROOT, git("rev-parse", "HEAD"), table, params)
    except RuntimeError as error:
        return f"not tried: {error}"
    return compare(old, new)


def compare(old: dict, new: dict) -> str:
    """The first difference of two notes; "" if all that the old code computed is computed again."""
    if old["data"] != new["data"]:
        return f"other data: {old['data']}, now {new['data']}"
    if old["picks"] != new["picks"]:
        was, now = Counter(old["picks"]), Counter(new["picks"])
        return f"other settings of profile full: {', '.join(was - now) or 'none'}, now {', '.join(now - was) or 'none'}"
    for step, (was, now) in enumerate(zip(old["weights"], new["weights"], strict=False)):
        if was != now:
            return f"other weights after step {step + 1} of {len(old['weights'])}"
    if len(old["weights"]) != len(new["weights"]):
        return f"{len(old['weights'])} steps of training, now {len(new['weights'])}"
    for name in sorted(old["outputs"].keys() & new["outputs"].keys()):
        if gone := set(old["outputs"][name]) - set(new["outputs"][name]):
            return f"{name} gave {len(gone)} results that it does not give now"
    for name in sorted(old["metrics"].keys() | new["metrics"].keys()):
        was, now = (note["metrics"].get(name) for note in (old, new))
        if was != now and not name.endswith("seconds"):
            return f"{name} was {was}, now {now}"
    return ""


def witness(tree: Path, commit: str, table: str, params: dict) -> dict:
    """What a tree computes for a row, noted once. Raises RuntimeError with the last line of what it said."""
    key = hashlib.sha256(json.dumps([table, params], sort_keys=True).encode()).hexdigest()[:16]
    note = WORK / "notes" / f"{commit[:12]}-{key}.json"
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONPATH": str(tree), "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0"}
        command = [sys.executable, str(ROOT / "tools" / "witness.py"), str(note), table, json.dumps(params), *SHOWS]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return json.loads(note.read_text(encoding="utf-8"))


def _tree(commit: str) -> Path:
    tree = WORK / commit[:12]
    if not tree.exists():
        git("worktree", "add", "--force", "--detach", str(tree), commit)
    return tree


def _peak_gb() -> float:
    """Of the largest process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def git(*arguments: str) -> str:
    done = subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"git {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
