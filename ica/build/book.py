"""`make book`: check the settings, run Snakemake, show progress, publish the finished site.

`make stored` and `make ladder` are other targets of the same, and with CLUSTER `make sweep` and `make paper-llm`. Snakemake's own messages go to build/<profile>/status/snakemake.log;
the screen gets one line for each finished notebook and, where something fails, the report of it last. Only a complete site
reaches build/book. A build holds the lock of its folder; whatever ends it, nothing that it started goes on.
"""

import argparse
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from ica.build import cluster, crate, jobs, mend, notebooks, peaks, stored
from ica.build.lock import alone
from ica.build.progress import Progress, failures
from ica.build.settings import PAPER, TARGETS, Settings
from ica.build.site import replace
from ica.build.stage import state
from ica.record.outside import plain_text
from ica.record.provenance import write_json

# By content alone (see the Snakefile); jobs that another notebook's failure does not touch still run.
FLAGS = ("--rerun-triggers", "params", "--rerun-incomplete", "--keep-going", "--nolock", "--nocolor")
# Snakemake would else solve an integer programme every second for as long as jobs run: a tenth of the time of a build on two slow cores.
FLAGS += ("--scheduler", "greedy")
LEDGERS = ("claims.json", "paper_claims.json")
# Options that build nothing, a part, or something else.
SHORT = ("-n", "-t", "-U", "-O", "-v", "-h", "-C", "-d", "-s", "-S", "-D", "-l", "-R", "-f", "-F")
OTHERWISE = (
    "--dry-run", "--dryrun", "--touch", "--until", "--omit-from", "--delete-all-output", "--delete-temp-output", "--list",
    "--version", "--help", "--config", "--configfile", "--list-rules", "--list-target-rules", "--directory", "--snakefile", "--summary", "--detailed-summary", "--dag", "--rulegraph",
    "--filegraph", "--d3dag", "--lint", "--report", "--archive", "--unlock", "--cleanup-metadata", "--print-compilation",
    "--allowed-rules", "--batch", "--rerun-triggers", "--containerize", "--export-cwl", "--runtime-source-cache-path",
)  # fmt: skip
OWN = ("ICA_RUNS", "ICA_OUTPUT", "ICA_PROFILE")  # variables of single runs, which would lead jobs elsewhere
MEND = "ICA_MEND"  # tells the Snakefile, once, to look at what is there
WANTED = "wanted.json"  # in the folder of the status: the seals that a finished build has
MENDED = "mended.txt"  # in the folder of the status: what the Snakefile found damaged and has made again


def _environment(root: Path, settings: Settings) -> dict[str, str]:
    """What Snakemake and all jobs run in, where it is not the user's own."""
    build = root / "build"
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    minutes = jobs.MINUTES.get(settings.profile, jobs.LONG) if settings.target == "all" else jobs.LONG
    return {
        **{name: value for name, value in os.environ.items() if name not in OWN},
        **jobs.ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(paths),
        "MPLCONFIGDIR": str(build / ".cache" / "matplotlib"),  # the home folder may be read-only
        "ICA_COMMIT": state(root)["commit"] or "",
        jobs.BUILD: settings.build,
        MEND: "1",
        jobs.FOLDER: str(build),
        jobs.LIMIT: os.environ.get(jobs.LIMIT, "").strip() or f"{minutes:g}",
    }


def _prepare(root: Path, settings: Settings) -> Path:
    """Remove what an earlier build left of itself, write the settings; the folder of the status."""
    out = root / settings.out
    jobs.sweep(jobs.FOLDER, str(root / "build"))  # of a killed build, what could not see that
    status = out / "status"
    if status.is_dir():
        peaks.gather(out)
    for old in (status, *out.glob(".*-*")):  # the latter: scratch folders of a build that was killed
        shutil.rmtree(old, ignore_errors=True)
    status.mkdir(parents=True)
    settings.write(root)
    return status


def _snakemake(root: Path, settings: Settings, cores: int, flags: list[str]) -> str:
    """Run Snakemake with its messages in the log; the report of what failed, or nothing."""
    status = _prepare(root, settings)
    log, count = status / "snakemake.log", str(cores)
    # --cores counts here, --jobs where SNAKEMAKE_FLAGS names a cluster
    command = [sys.executable, "-m", "ica.build.engine", "--cores", count, "--jobs", count, *FLAGS, *flags]
    command += ["--config", f"profile={settings.profile}", "--", settings.target]
    far = "--profile" in flags
    progress, mended = Progress(status, settings.build, log, far), status / MENDED
    with log.open("w", encoding="utf-8") as sink:
        engine = subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=_environment(root, settings),
            start_new_session=True,  # a Ctrl-C reaches this process alone, which ends the others in order
        )
        try:
            while engine.poll() is None:
                if mended and mended.is_file():
                    progress.say(mended.read_text(encoding="utf-8").rstrip())
                    mended = None
                progress.update()
                time.sleep(0.25)
        except BaseException:
            progress.clear()
            if far:  # so that Snakemake tells the cluster to end its jobs
                engine.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    engine.wait(jobs.GRACE)
            if engine.poll() is None:
                jobs.end_tree(psutil.Process(engine.pid))
            engine.wait()
            raise
        finally:
            jobs.sweep(jobs.BUILD, settings.build)
    progress.update()
    progress.clear()
    if engine.returncode < 0:
        name = signal.Signals(-engine.returncode).name
        return f"Snakemake was ended by {name}; `make book` goes on from here."
    return failures(status, settings.build, log) if engine.returncode else mend.unmade(status / WANTED)


def publish(root: Path, settings: Settings) -> Path:
    """Copy the finished site and its claims to build/book and build/claims.json, and say what was made; the first page.

    Raises:
        OSError: it cannot be written; the book that was there stays.
    """
    out, book = root / settings.out, root / "build" / "book"
    new = book.with_name(".book.new")
    copies = {out / name: root / "build" / f".{name}.new" for name in LEDGERS}
    shutil.rmtree(new, ignore_errors=True)
    try:
        shutil.copytree(out / "html", new, ignore=shutil.ignore_patterns(".snakemake*"))
        for source, copy in copies.items():
            shutil.copy(source, copy)
        made = crate.metadata(root, out, new)
        replace(new, book)
        for copy in copies.values():
            os.replace(copy, root / "build" / copy.name[1:].removesuffix(".new"))
        write_json(root / "build" / crate.FILE, made)
    except shutil.Error as error:  # of many files: the first says what is wrong
        raise OSError(0, str(error.args[0][0][2]), str(new)) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        for copy in copies.values():
            copy.unlink(missing_ok=True)
    return book / "index.html"


def build(root: Path, settings: Settings, cores: int = 2, flags: tuple[str, ...] = ()) -> int:
    """Make the target, while the caller holds the lock of the build folder; the exit status."""
    stored.check(root)
    if report := _snakemake(root, settings, cores, list(flags)):
        print(plain_text(report), file=sys.stderr, flush=True)
        return 1
    if settings.target != "all":
        if stored.files(root / "results"):  # none where OUT leads elsewhere
            print(stored.accept(root / "results"))
        return 0
    print(publish(root, settings))
    return 0


def _number(name: str, text: str) -> int:
    """A whole number of at least 1; ValueError naming the setting otherwise."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) >= 1):
        raise ValueError(f"{name}: {text!r} is not a whole number; accepted: 1 or more")
    return int(text)


def given(name: str, value: str) -> str:
    """A model or a folder as the jobs need it, which run in folders of their own; ValueError unless it is text."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: {value!r} is not UTF-8; rename the file") from error
    if "\0" in value:
        raise ValueError(f"{name}: {value!r} holds a NUL character")
    path = Path(value).expanduser()
    return str(path.absolute()) if path.exists() else value


def _settings(options: argparse.Namespace, root: Path) -> Settings:
    """The settings as they were asked for, checked before anything runs."""
    os.environ[jobs.LIMIT] = options.limit.strip() or os.environ.get(jobs.LIMIT, "")
    parameters = notebooks.assignments(options.set)
    for option, name, setting in (("model", "model", "MODEL"), ("items", "items", "BBQ")):
        if value := getattr(options, option):
            if name in parameters:
                raise ValueError(f"SET: {name} is given by {setting} already")
            parameters[name] = given(setting, value)
    settings = Settings(
        build=secrets.token_hex(6),
        profile=options.profile,
        parameters=parameters,
        target=options.target,
        stored=options.scale,
        runs=tuple(options.runs.split()),
        threads=_number("THREADS", options.threads),
        models=tuple(options.models.split()),
        words={name: os.environ.get(name, "") for name in PAPER} if options.target == "paper_llm" else {},
    )
    notebooks.overrides(root, settings.profile, parameters)
    jobs.limit()
    return settings


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ica.build.book", description="Build the book.")
    parser.add_argument("--profile", default="ci", help=f"scale: one of {', '.join(notebooks.PROFILES)}")
    parser.add_argument("--set", default="", metavar="'name=value ...'", help="parameters to override")
    parser.add_argument("--model", default="", help="language model of Part III, as parameter `model`")
    parser.add_argument("--items", default="", help="folder of the official BBQ, as parameter `items`")
    parser.add_argument("--jobs", default="2", help="notebooks run at once")
    parser.add_argument("--flags", default="", help="more options for Snakemake")
    parser.add_argument(
        "--cluster", default="", help="profile of workflow/profiles that sends jobs elsewhere"
    )
    parser.add_argument("--limit", default="", help="minutes that a job may take (0: any time)")
    parser.add_argument("--target", default="all", choices=TARGETS, help="all: the book")
    parser.add_argument("--scale", default="paper", help="of the training runs to store")
    parser.add_argument("--runs", default="", help="names of the training runs to store (default: all)")
    parser.add_argument("--threads", default="1", help="threads for each training run to store")
    parser.add_argument("--models", default="", help="models of the ladder (default: all)")
    parser.add_argument("--under-make", action="store_true", help="stop `make` quietly where this fails")
    return parser.parse_args(arguments)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def here() -> Path:
    """The current folder, which must be the checkout: what builds and removes does not go looking for it; ValueError otherwise."""
    root = Path.cwd()
    if not (root / "Snakefile").is_file() or not (root / "ica").is_dir():
        raise ValueError(f"{root} is not this project's folder; call it there")
    if os.pathsep in str(root):
        raise ValueError(f"{root}: no path of Python can hold a {os.pathsep!r}; move the checkout")
    return root


def once(root: Path, arguments: list[str] | None = None) -> int:
    """One build as it was asked for, while the caller holds the lock of the build folder; the exit status.

    Raises:
        ValueError: a setting that is not accepted, or a stored result that is not as it was stored; nothing was run then.
    """
    options, settings = _arguments(arguments), asked(root, arguments)
    return build(root, settings, _number("JOBS", options.jobs), _all_flags(root, options))


def asked(root: Path, arguments: list[str] | None = None) -> Settings:
    """The settings that the arguments mean, all of them checked; ValueError naming the first that is not accepted."""
    options = _arguments(arguments)
    _number("JOBS", options.jobs), _all_flags(root, options)
    return _settings(options, root)


def locked(root: Path, what: str, work: Callable[[], int], removes: bool = False) -> int:
    """Do the work while holding the lock of the build folder; the exit status, with what went wrong on the screen.

    Raises:
        KeyboardInterrupt: a signal asked for the end; nothing that was started goes on.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupted)
    try:
        with alone(root / "build", what, removes=removes):
            return work()
    except ValueError as error:
        print(plain_text(str(error)), file=sys.stderr)
    except OSError as error:
        print(plain_text(jobs.of_system(error)), file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\nInterrupted; `{what}` goes on from here.", file=sys.stderr)
        raise
    return 1


def _all_flags(root: Path, options: argparse.Namespace) -> tuple[str, ...]:
    """Those of the cluster, then the user's, which prevail; ValueError as `cluster.flags` and `_flags` say."""
    return cluster.flags(root, options.cluster.strip()) + _flags(options.flags)


def _flags(text: str) -> tuple[str, ...]:
    """The user's options for Snakemake; ValueError where the text cannot be split into words."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"SNAKEMAKE_FLAGS: {text!r} cannot be split into words: {error}") from error
    for word in words:
        name = word.partition("=")[0]
        if name in SHORT or (len(name) > 3 and any(option.startswith(name) for option in OTHERWISE)):
            raise ValueError(
                f"SNAKEMAKE_FLAGS: {name} does not build the book; accepted is what says where and how jobs run, as --executor"
            )
    return words


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    parent = os.getppid()
    if options.under_make:  # a make that was killed does not leave its build behind
        jobs.follow(lambda: os.getppid() != parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        root = here()
        asked(root, arguments)  # before anything is touched: a mistake leaves not even a folder
        name = {"all": "book"}.get(options.target, options.target.replace("_", "-"))
        code = locked(root, f"make {name}", lambda: once(root, arguments))
    except (ValueError, OSError) as error:
        print(plain_text(str(error)), file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    if code and options.under_make and os.getppid() == parent:
        # The report is to be the last thing on the screen, so make is stopped before it adds a line of its own.
        sys.stderr.flush()
        os.kill(parent, signal.SIGPIPE)
    return code


if __name__ == "__main__":
    sys.exit(main())
