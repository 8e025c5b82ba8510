"""Run notebooks with papermill: `python -m helpers.runner NOTEBOOK… [-p NAME VALUE]… [--out DIR]`.

papermill runs a notebook with its defaults when a parameter is misspelt, has no limit on the whole run, and leaves a
partial file behind. Here an unknown parameter or a wrong type is refused before a kernel starts, a run ends in time
with everything it started, and success means: every cell ran and the notebook left a fresh record (`metrics.json`).
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from helpers.overview import first_error, write_overview
from helpers.processes import end_with, run_process
from helpers.provenance import repo_root, write_atomic
from helpers.runs import PROFILES, read_record

KINDS = {"str": str, "int": int, "float": (int, float), "bool": bool}
START_ATTEMPTS = 3  # a kernel fails to start now and then on a loaded machine


class RunError(RuntimeError):
    """A notebook was not run, or did not end with a record: one sentence with the first line of the reason."""


class RunFailedError(RunError):
    """A notebook was run and failed; `reason` is the sentence without the places."""

    def __init__(self, notebook: Path, reason: str):
        super().__init__(f"{notebook.name.split('.')[0]} failed: {reason} (see {notebook})")
        self.reason = reason


def run_notebook(
    notebook, out, parameters=None, *, cell_timeout=600.0, timeout=3600.0, memory_gb=None, log=None, environment=None
) -> Path:
    """Execute a notebook in its own process and return the path of its record, `<out>/<name>/metrics.json`.

    Writes `<out>/<name>.ipynb` and `.html`, or `<name>.failed.ipynb` and `.failed.html` with the traceback. Times are
    in seconds, for one cell and for the whole run; `memory_gb` limits what the process, its kernel and their children
    hold together (resident, in 10⁹ bytes); beyond a limit they are all ended. Prints one line per cell, or writes it
    to the file `log` with what the processes say on stderr. `environment`: variables to set for the run. Raises
    RunError; a wrong parameter is refused before anything is started or deleted.
    """
    notebook, out, parameters = Path(notebook).resolve(), Path(out).resolve(), dict(parameters or {})
    check_parameters(notebook, parameters)
    name, folder = notebook.stem, out / notebook.stem
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*(out / f"{name}{end}" for end in _ENDINGS), folder / "metrics.json"):
        old.unlink(missing_ok=True)
    running = out / f".{name}.running.ipynb"
    try:
        shutil.copy(notebook, running)  # so that there is a notebook even if papermill never gets to write one
        job = [str(notebook), str(running), parameters, cell_timeout, os.getpid()]
        limits = {"timeout": timeout, "memory_gb": memory_gb}
        ended, died = _run_child(job, log=log, environment=(environment or {}) | {"RUN_DIR": str(folder)}, **limits)
        if ended:
            _mark_error(running, *ended)
        elif not first_error(nbformat.read(running, as_version=4)) and (reason := died or _no_record(folder)):
            _mark_error(running, "RunError", reason)
        error = first_error(nbformat.read(running, as_version=4))
        end = ".failed" if error else ""
        if error:
            (folder / "metrics.json").unlink(missing_ok=True)
        _export_html(running, out / f"{name}{end}.html")
        running.replace(out / f"{name}{end}.ipynb")
    finally:
        running.unlink(missing_ok=True)
    if error:
        raise RunFailedError(out / f"{name}.failed.ipynb", error)
    return folder / "metrics.json"


_ENDINGS = (".ipynb", ".html", ".failed.ipynb", ".failed.html")


def known_parameters(notebook) -> dict[str, str]:
    """Name and type (`str`, `int`, `float`, `bool`) of each parameter of a notebook, as papermill infers them."""
    if not Path(notebook).is_file():
        raise RunError(f"{notebook}: no such notebook")
    try:
        found = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # whatever nbformat and papermill say about a file that is none, or has no kernel
        reason = str(error).partition("\n")[0]
        raise RunError(f"{notebook}: its parameters cannot be read ({reason})") from error
    return {name: parameter["inferred_type_name"] for name, parameter in found.items()}


def check_parameters(notebook, parameters: dict, *, known: dict[str, str] | None = None) -> None:
    """Raise RunError for a parameter the notebook does not have, or a value of another type than its default.

    `known`: what `known_parameters(notebook)` returned, for who checks many.
    """
    known = known_parameters(notebook) if known is None else known
    for name, value in parameters.items():
        _check_known(notebook, name, known)
        kind = known[name]
        if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise RunError(f"{Path(notebook).stem}: {name} is {value!r}, expected {kind}")
    if parameters.get("profile", PROFILES[0]) not in PROFILES:
        expected = ", ".join(PROFILES)
        raise RunError(f"{Path(notebook).stem}: profile is {parameters['profile']!r}, expected one of {expected}")


def parse_parameters(notebook, pairs) -> dict:
    """Read command-line (name, text) pairs as the types that the notebook's parameters have. Raises RunError."""
    known, parameters = known_parameters(notebook), {}
    readers = {"str": str, "int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}
    for name, text in pairs:
        _check_known(notebook, name, known)
        try:
            parameters[name] = readers[known[name]](text.lower() if known[name] == "bool" else text)
        except (ValueError, KeyError):
            raise RunError(f"{Path(notebook).stem}: {name} is {text!r}, expected {known[name]}") from None
    check_parameters(notebook, parameters)
    return parameters


def _check_known(notebook, name: str, known: dict[str, str]) -> None:
    if name not in known:
        names = ", ".join(known) or "none"
        raise RunError(f"{Path(notebook).stem}: unknown parameter {name!r}; the parameters are {names}")
    if known[name] not in KINDS:
        raise RunError(f"{Path(notebook).stem}: the type of {name} is {known[name]!r}, expected {', '.join(KINDS)}")


def _run_child(job, *, log, environment, **limits) -> tuple[tuple[str, str] | None, str]:
    """Execute in a process of its own: why it had to be ended (name and text of an error), and what it died of."""
    inherited = {key: value for key, value in os.environ.items() if key != "JPY_SESSION_NAME"}  # no live front end
    # Waiting threads sleep: spinning ones make two runs on two cores ten times slower.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | inherited | environment
    command = (sys.executable, "-m", "helpers.runner", "--child", json.dumps(job))
    return run_process(command, environment=environment, log=log, **limits)


def _execute(notebook: str, target: str, parameters: dict, cell_timeout: float) -> None:
    """Execute with papermill, a line per cell; only a failing start-up is repeated. Errors end up in `target`."""
    name = Path(notebook).stem
    total = sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells) + bool(parameters)
    begun = []

    def begin(cell, cell_index):
        begun.append((cell_index, time.monotonic()))

    def done(cell, cell_index, execute_reply):
        print(f"{name}  cell {len(begun)}/{total}  {time.monotonic() - begun[-1][1]:.1f} s", flush=True)

    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            papermill.execute_notebook(
                notebook,
                target,
                parameters,
                kernel_name="python3",
                cwd=str(Path(notebook).parent),
                progress_bar=False,
                execution_timeout=cell_timeout,
                coalesce_streams=True,
                on_cell_execute=begin,
                on_cell_executed=done,
            )
            return
        except PapermillExecutionError:  # its traceback is in the cell
            raise
        except Exception as error:
            if begun or attempt == START_ATTEMPTS:
                _mark_error(Path(target), type(error).__name__, str(error), cell_index=begun[-1][0] if begun else None)
                raise


def _mark_error(path: Path, name: str, text: str, *, cell_index: int | None = None) -> None:
    """Put an error that no kernel reported into the notebook: at that cell, else at the one that was running."""
    notebook = nbformat.read(path, as_version=4)
    if not any(cell.cell_type == "code" for cell in notebook.cells):
        notebook.cells.append(nbformat.v4.new_code_cell())
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    states = [cell.metadata.get("papermill", {}).get("status", "pending") for cell in cells]
    open_cells = [cell for cell, state in zip(cells, states, strict=True) if state in ("running", "pending")]
    cell = notebook.cells[cell_index] if cell_index is not None else (open_cells or cells[-1:])[0]
    error = nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
    kinds = [output.output_type for output in cell.outputs] + ["error"]
    cell.outputs.insert(kinds.index("error"), error)  # before the KeyboardInterrupt that it may have caused
    write_atomic(path, nbformat.writes(notebook).encode())


def _no_record(folder: Path) -> str:
    """What is wrong with a run's record; empty if nothing is."""
    if not (folder / "metrics.json").exists():
        return "the notebook left no record (run.save was not reached)"
    try:
        read_record(folder / "metrics.json")
    except ValueError as error:
        return str(error)
    return ""


def _export_html(source: Path, target: Path) -> None:
    from nbconvert import HTMLExporter  # here, because the process that executes needs none

    page, _ = HTMLExporter().from_filename(str(source))
    write_atomic(target, page.encode())


def main(arguments=None) -> int:
    """The command line; 0 if every notebook succeeded, 1 if one failed, 2 if a parameter was refused."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.child:
        try:
            *job, parent = json.loads(options.child)
            end_with(parent)
            _execute(*job)
        except Exception:  # told by the notebook, where the traceback is
            return 1
        return 0
    if not options.notebooks:
        parser.error("no notebook given")
    try:
        plan = [(notebook, parse_parameters(notebook, options.parameter)) for notebook in options.notebooks]
    except RunError as error:
        print(error, file=sys.stderr)
        return 2
    limits, failed, start = {"cell_timeout": options.cell_timeout, "timeout": options.timeout}, 0, time.monotonic()
    for notebook, parameters in plan:
        try:
            run_notebook(notebook, options.out, parameters, **limits)
        except RunError as error:
            failed += 1
            print(error, file=sys.stderr)
    index = write_overview(options.out)
    print(f"\n{len(plan) - failed} of {len(plan)} notebooks ran, in {time.monotonic() - start:.0f} s")
    print(f"executed notebooks  {options.out}")
    print(f"records             {options.out / '*' / 'metrics.json'}")
    print(f"overview            {index}")
    return int(failed > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.runner", description="Run notebooks and keep the records.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--out", type=Path, default=repo_root() / "runs" / "book", help="folder for what is written")
    parser.add_argument("--cell-timeout", type=float, default=600, help="seconds for one cell (600)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one notebook (3600)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
