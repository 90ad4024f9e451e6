# From the notebooks to build/<profile>/html. `make book` runs this through `python -m ica.build.book`;
# by hand: snakemake --cores 2 --rerun-triggers params --config profile=ci
# What must run again follows from content, never from time stamps: each rule carries a digest of what it
# depends on as a parameter, so a fresh clone, a rebase or a touched file runs nothing.
# The shell gets names and hashes of ours alone: what a user may set comes by files (settings.json, jobs of shards).
import os
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))
from ica.build import book, jobs, mend, notebooks, settings, site
from ica.record.provenance import write_json

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "ci")
ASKED = settings.Settings(profile=PROFILE)
if jobs.BUILD in os.environ:
    SETTINGS = f"{ASKED.out}/settings.json"
    ASKED = settings.read(Path(SETTINGS))
else:  # by hand: the defaults, in a file of their own
    SETTINGS = ASKED.write(ROOT, "settings-by-hand.json").relative_to(ROOT).as_posix()
OUT = ASKED.out
OVERRIDES = notebooks.overrides(ROOT, PROFILE, ASKED.parameters)
DIGESTS = {name: notebooks.digest(ROOT, name, values) for name, values in OVERRIDES.items()}
# Training runs: one job per configuration and seed group (ica/synthetic/training/runs.yml), shared by notebooks and profiles.
STORED = ASKED.stored if ASKED.target == "stored" else ""
SPREAD = ASKED.target in ("sweep", "paper_llm")  # what `make` runs in one process, but with CLUSTER
JOBS, NEEDED, KEPT, CODE = {}, {name: [] for name in DIGESTS}, {}, ""
if STORED or any(notebooks.runs(ROOT, name) for name in DIGESTS):
    from ica.synthetic.training import run, workflow as training

    CODE = run.code_digest(ROOT)
    NEEDED = training.needed(ROOT, OVERRIDES)
    DIGESTS = training.digests(DIGESTS, NEEDED, CODE)
    KEPT = {job.stem: job for job in training.to_store(STORED, " ".join(ASKED.runs))} if STORED else {}
    JOBS = {job.id: job for jobs_ in [*NEEDED.values(), KEPT.values()] for job in jobs_}
# Language models: one job per model and category of BBQ (ica/llm/protocol/runs.yml), after the files that they need are there.
from ica.llm.model import assets
from ica.llm.protocol import results as readings, shards, workflow as reading

MODELS = reading.to_store(" ".join(ASKED.models)) if ASKED.target == "ladder" else []
READ = reading.needed(ROOT, OVERRIDES)
LOADED = reading.models(ROOT, OVERRIDES)
LADDER = [shard for model in MODELS for shard in shards.shards("ladder", model)]
ATTACKED = reading.attacked(MODELS)
SHARDS = {shard.id: shard for group in [*READ.values(), LADDER] for shard in group}
READING = shards.code_digest(ROOT) if SHARDS else ""
if book.MEND in os.environ:
    reading.check(LOADED, READ)  # before anything is read in whole
DIGESTS = reading.digests(DIGESTS, READ, LOADED, READING)
for shard in SHARDS.values():
    write_json(ROOT / f"build/llm/jobs/{shard.id}.json", shards.job(shard))
if SPREAD:

    include: "workflow/rules/spread.smk"


REGISTRY, SOURCES = site.registry_digest(ROOT, DIGESTS), site.source_digest(ROOT, DIGESTS)
# What is there of an earlier build is whole, or it is made again.
# Of what the target asks for alone: `make stored THREADS=8` has no word on the book's own runs.
if os.environ.pop(book.MEND, ""):
    BOOK, UNITS = ASKED.target == "all", []
    if BOOK:
        UNITS += [
            mend.sealed(f"notebook {name}", (Path(f"{OUT}/executed/{name}.ipynb"), Path(f"{OUT}/record/{name}")), Path(f"{OUT}/{name}.seal.json"), digest)
            for name, digest in DIGESTS.items()
        ]
        UNITS.append(mend.sealed("the ledger of claims", (Path(f"{OUT}/claims.json"), Path(f"{OUT}/paper_claims.json")), Path(f"{OUT}/ledger.seal.json"), REGISTRY))
        UNITS.append(mend.sealed("the site", (Path(f"{OUT}/html"),), Path(f"{OUT}/{site.SEAL}"), SOURCES))
    UNITS += [
        mend.Unit(f"training run {job.stem}", (Path(f"build/runs/{job.id}"),), lambda job=job: run.faults(job, Path(f"build/runs/{job.id}"), ASKED.threads))
        for job in {one.id: one for group in (NEEDED.values() if BOOK else [KEPT.values()]) for one in group}.values()
    ]
    UNITS += [
        mend.Unit(f"shard {shard.stem}", (Path(f"build/llm/{shard.id}.json"),), lambda shard=shard: readings.faults(shard, Path(f"build/llm/{shard.id}.json")))
        for shard in {one.id: one for group in (READ.values() if BOOK else [LADDER]) for one in group}.values()
    ]
    if ATTACKED:
        from ica.llm.jailbreak import results as attacked
    UNITS += SPREAD_UNITS if SPREAD else []
    UNITS += [
        mend.Unit(f"attacks on {model}", (Path(f"build/llm/secret/{model}.json"),), lambda model=model, count=count: attacked.faults(model, count, Path(f"build/llm/secret/{model}.json")))
        for model, count in ATTACKED.items()
    ]
    mend.want(UNITS, ROOT / f"{OUT}/status/{book.WANTED}")
    if MENDED := mend.mend(UNITS):
        Path(f"{OUT}/status/{book.MENDED}").write_text("\n".join(MENDED) + "\n", encoding="utf-8")


# In seconds, or with the network, which the nodes of a cluster may lack: where `make` runs.
localrules: all, keep, stored, fetch, ladder, claims, site


wildcard_constraints:
    id="[0-9a-f]{12}",
    shard="[0-9a-f]{12}",


# Everything by name, not the site alone: of a target that is there Snakemake would not miss what it was made from.
rule all:
    input:
        f"{OUT}/html",
        f"{OUT}/claims.json",
        f"{OUT}/paper_claims.json",
        expand(f"{OUT}/executed/{{name}}.ipynb", name=DIGESTS),
        expand(f"{OUT}/record/{{name}}", name=DIGESTS),
        [f"build/runs/{job.id}/result.json" for group in NEEDED.values() for job in group],
        [f"build/llm/{shard.id}.json" for group in READ.values() for shard in group],


rule train:
    output:
        result="build/runs/{id}/result.json",
        weights="build/runs/{id}/weights.safetensors",
        seal="build/runs/{id}/seal.json",
    params:
        code=CODE,
        job=lambda wildcards: run.command(JOBS[wildcards.id]),
        name=lambda wildcards: JOBS[wildcards.id].stem,
    priority: 1
    threads: ASKED.threads
    resources:
        gpu=lambda wildcards: run.gpus(JOBS[wildcards.id]),
    shell:
        "exec {sys.executable:q} -m ica.synthetic.training.run {params.job} --threads {threads} --status {OUT}/status/{params.name}.json"


rule keep:
    input:
        lambda wildcards: f"build/runs/{KEPT[wildcards.stem].id}/result.json",
    output:
        "results/paper/{stem}.json",
    params:
        job=lambda wildcards: run.command(KEPT[wildcards.stem]),
        code=CODE,
    shell:
        "exec {sys.executable:q} -m ica.synthetic.training.run {params.job} --threads {ASKED.threads} --store"


rule stored:
    input:
        [f"results/paper/{stem}.json" for stem in KEPT],


rule fetch:
    output:
        "build/assets/{asset}.json",
    params:
        asset=lambda wildcards: assets.named(wildcards.asset).sha256,
    priority: 3
    shell:
        "exec {sys.executable:q} -m ica.llm.model.prepare {wildcards.asset} --out {output} --status {OUT}/status/fetch-{wildcards.asset}.json"


rule read:
    input:
        lambda wildcards: ancient([f"build/assets/{name}.json" for name in reading.assets_of(SHARDS[wildcards.shard])]),
    output:
        "build/llm/{shard}.json",
    params:
        code=READING,
        source=lambda wildcards: [reading.content(one) for one in (SHARDS[wildcards.shard].model, SHARDS[wildcards.shard].items)],
        name=lambda wildcards: SHARDS[wildcards.shard].stem,
    priority: 2
    threads: 1
    shell:
        "exec {sys.executable:q} -m ica.llm.protocol.measure --job build/llm/jobs/{wildcards.shard}.json --threads {threads} "
        "--status {OUT}/status/{params.name}.json"


rule attack:
    input:
        lambda wildcards: ancient(f"build/assets/{wildcards.model}.json"),
    output:
        "build/llm/secret/{model}.json",
    params:
        code=reading.attack_digest(ROOT) if ATTACKED else "",
        attacks=lambda wildcards: ATTACKED[wildcards.model],
        source=lambda wildcards: reading.content(wildcards.model),
    threads: 1
    shell:
        "exec {sys.executable:q} -m ica.llm.jailbreak.attack {wildcards.model} --attacks {params.attacks} --out {output} "
        "--status {OUT}/status/attack-{wildcards.model}.json"


rule ladder:
    input:
        [f"build/llm/{shard.id}.json" for shard in LADDER],
        attacks=[f"build/llm/secret/{model}.json" for model in ATTACKED],
    params:
        models=" ".join(MODELS),
    shell:
        "{sys.executable:q} -m ica.llm.protocol.results {params.models} && exec {sys.executable:q} -m ica.llm.jailbreak.results {input.attacks}"


rule execute:
    input:
        ancient("notebooks/{name}.ipynb"),
        lambda wildcards: [f"build/llm/{shard.id}.json" for shard in READ[wildcards.name]],
        lambda wildcards: ancient([f"build/assets/{name}.json" for name in LOADED[wildcards.name] if name in assets.table()]),
        lambda wildcards: [f"build/runs/{job.id}/result.json" for job in NEEDED[wildcards.name]],
    output:
        notebook=f"{OUT}/executed/{{name}}.ipynb",
        record=directory(f"{OUT}/record/{{name}}"),
    params:
        # What of the settings concerns this notebook is in its digest.
        digest=lambda wildcards: DIGESTS[wildcards.name],
    # Long ones begin as soon as they can, so that none is left alone at the end.
    priority: lambda wildcards: 4 if notebooks.long(ROOT, wildcards.name) else 0
    threads: 1
    shell:
        "exec {sys.executable:q} -m ica.build.execute {wildcards.name} --settings {SETTINGS} --out {OUT} --digest {params.digest} --status {OUT}/status/{wildcards.name}.json"


rule claims:
    input:
        expand(f"{OUT}/record/{{name}}", name=DIGESTS),
    output:
        ours=f"{OUT}/claims.json",
        paper=f"{OUT}/paper_claims.json",
    params:
        digest=REGISTRY,
    shell:
        "exec {sys.executable:q} -m ica.build.ledger {input} --out {output.ours} --paper {output.paper} --seal {OUT}/ledger.seal.json --digest {params.digest} "
        "--status {OUT}/status/claims.json"


rule site:
    input:
        claims=[f"{OUT}/claims.json", f"{OUT}/paper_claims.json"],
        executed=expand(f"{OUT}/executed/{{name}}.ipynb", name=DIGESTS),
    output:
        directory(f"{OUT}/html"),
    params:
        digest=SOURCES,
    shell:
        "exec {sys.executable:q} -m ica.build.site {OUT} --digest {params.digest} --status {OUT}/status/site.json"
