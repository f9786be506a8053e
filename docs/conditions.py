"""Writes docs/conditions.md from the code that gives the reasons: ``python docs/conditions.py``.

Reasons of the operator are constants of ``fiduciary.decide.reasons`` with a docstring each. Reasons of the trainer and
of the registry's client are words in the code; their meaning is written here, and the scan fails on one that is not.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
REASONS = ROOT / "operator" / "fiduciary" / "decide" / "reasons.py"
REGISTRY = ROOT / "operator" / "fiduciary"
TRAINER = (ROOT / "trainer_image" / "fiduciary_trainer", ROOT / "trainer_image" / "fiduciary_features")
PAGE = ROOT / "docs" / "conditions.md"
OUTCOMES = ("DataRefused", "BadContract", "Diverged", "OutOfMemory", "Retryable", "TrainingEnded", "WorkerLost")

Row = tuple[str, str, str]  # word, meaning, what to do

FROM_TRAINER: dict[str, tuple[str, str]] = {
    "AccessDenied": ("The storage refused the credentials.", "Correct the Secret of `secretRef`."),
    "AmbiguousColumn": (
        "Two features of a feature service have one name, or the entity frame has a column of that name.",
        "Rename one in the feature service.",
    ),
    "ArtifactMismatch": (
        "MLflow holds another artifact than the decision log names (comparison).",
        "Restore it, or train again; find out who writes to MLflow.",
    ),
    "ArtifactMissing": (
        "The run of a version holds no artifact any more (comparison).",
        "Restore it, or train again.",
    ),
    "CheckpointNotWritten": ("The checkpoint cannot be written.", "Make room or give access there; it is retried."),
    "CheckpointUnreachable": ("The checkpoint cannot be read.", "Wait: it is retried."),
    "ConstantColumn": ("A column that is used has one value in all rows.", "Repair the data, or leave the column out."),
    "DeadColumn": (
        "A column that always moved has not moved for the last rows: its feed seems to have ended.",
        "Repair the feed, set `data.asOf` before its end, or leave the column out.",
    ),
    "DataChanged": (
        "The data up to asOf are not those that the version was measured on (comparison).",
        "Train the version again.",
    ),
    "DataDiffer": (
        "Two pods that train together have read different data: they changed in between, or a volume is not the same.",
        "Wait: it is retried. If it stays, mount the same data everywhere.",
    ),
    "DifferentLabels": (
        "The two versions predict different things (comparison).",
        "Compare versions of one label.",
    ),
    "DifferentOutcomes": (
        "The same day has other outcomes in the two ledgers: prices were revised (comparison).",
        "Train the champion's procedure again.",
    ),
    "Diverged": (
        "A loss or a forecast is no number.",
        "Lower `hyperparameters.learningRate`, or look for extreme values in the data.",
    ),
    "DuplicateRows": (
        "The same (entity, time) occurs more than once.",
        "Remove the repetitions; set `data.entity` for panel data.",
    ),
    "EmbargoTooSmall": (
        "Test rows would share inputs with training rows.",
        "Raise `validation.embargo` to what the message says.",
    ),
    "FutureUnknown": (
        "A view tells when its values were written, and Feast's offline store cannot leave out what was written later.",
        "Use a store that can, such as DuckDB or files.",
    ),
    "GridTooLarge": (
        "The smallest grid of `training.search.space` has more combinations than `trials`.",
        "Raise `trials`, search fewer hyperparameters, or use sampler TPE.",
    ),
    "InconsistentPrices": ("A high is below its low.", "Repair the data."),
    "InvalidHyperparameter": ("A hyperparameter is out of range; the range is named.", "Correct it."),
    "InvalidJson": ("The job document cannot be read. A foreign operator, or a bug.", "Report it."),
    "InvalidValue": (
        "A field of the job document is out of range for this trainer; it is named.",
        "Correct the field of the spec.",
    ),
    "LabelNotSupported": (
        "The architecture cannot predict this label, or the label needs other columns.",
        "Use one of those listed.",
    ),
    "LedgerExists": (
        "The scorer holds another ledger under this name; the first one counts (comparison).",
        "Nothing, unless it is wrong: then find out who posted it.",
    ),
    "LedgerRefused": (
        "The scorer does not take the ledger, or outcomes; the message has its words. A bug, or an older scorer.",
        "Update the scorer, or report it.",
    ),
    "MissingColumn": (
        "A column that the spec names is not in the data; those that are there are listed.",
        "Rename it, or correct the spec.",
    ),
    "MissingEntity": ("Rows have no value in the entity column.", "Repair the data."),
    "MissingValues": (
        "A column lacks a larger share of values than `checks.maxMissing`.",
        "Repair the data, or raise the limit.",
    ),
    "MixedSeries": (
        "Several instruments seem to take turns in one sequence.",
        "Name their column in `data.entity`, or deliver one instrument.",
    ),
    "NegativePrices": ("A price is zero or negative; logarithms are used.", "Repair the data."),
    "NoCommonDays": (
        "The two versions were tested on no common day (comparison).",
        "Train one of them with an asOf nearer to the other's.",
    ),
    "NoContract": ("The pod has no job document. A foreign operator, or a bug.", "Report it."),
    "NoFeatureStore": (
        "The Secret of `data.source.feast.configSecretRef` has no `feature_store.yaml`, or none that Feast takes.",
        "Put Feast's settings there, under that key; a store of its own needs an image that has its package.",
    ),
    "NoToken": (
        "The token for the scorer is not mounted (comparison).",
        "Report it.",
    ),
    "NotANumber": ("A column that is used holds text.", "Repair the data."),
    "NotAvailable": (
        "A part of the API that this trainer does not have yet.",
        "Use what the message offers, or an image of yours.",
    ),
    "OutOfMemory": (
        "The pod, or its GPU, has not the memory that the training needs; what was in use and the limit are named.",
        "Raise `training.resources.limits.memory`, or use fewer columns, rows, members or folds.",
    ),
    "QuantilesNotSupported": (
        "The label has no quantiles (Direction), or the architecture does not forecast them; those that do are listed.",
        "Remove `training.quantiles`, or use one of those.",
    ),
    "RepeatedRows": (
        "More bars than `checks.maxMissing` equal another bar in every column: filled gaps or copies.",
        "Leave gaps empty and remove copies.",
    ),
    "NoTrialSucceeded": (
        "No trial of the search came to its end; the message has the first one's reason.",
        "Narrow `training.search.space` to values that go together.",
    ),
    "SameVersion": (
        "Champion and challenger are the same artifact (comparison).",
        "Name two versions.",
    ),
    "ScorerUnauthorized": (
        "The scorer does not take the Job's token (comparison).",
        "Wait; if it stays, look at the scorer's list of subjects.",
    ),
    "ScorerUnreachable": (
        "The scorer did not answer in time (comparison).",
        "Wait: it is retried. Look at its Deployment and at NetworkPolicies.",
    ),
    "OutcomesRefused": (
        "The scorer refuses every outcome of the source; the first refusal is in the message (outcomes).",
        "Correct the column, or its unit.",
    ),
    "SearchedAndSet": (
        "`training.hyperparameters` sets what `training.search.space` searches.",
        "Keep one of the two.",
    ),
    "SourceNotFound": ("The dataset, bucket, claim or path does not exist.", "Correct `data.source`."),
    "SourceTooLarge": ("The answer of an HTTP source is larger than 1 GiB (outcomes).", "Offer newer rows alone."),
    "SourceUnreachable": ("The storage does not answer.", "Wait: it is retried."),
    "StaleData": (
        "The newest row is older, counted from asOf, than `checks.maxStaleness`.",
        "Deliver newer rows, or set `data.asOf`.",
    ),
    "TooManySplits": (
        "CombinatorialPurged would train more than 1,000 times.",
        "Use fewer folds, or `testFolds: 2`.",
    ),
    "Terminated": (
        "The pod was told to stop. A checkpoint was written where the spec has one.",
        "Wait: it is retried.",
    ),
    "TooFewRows": ("Fewer rows than `checks.minRows`, or than the folds need.", "Use a longer history or fewer folds."),
    "UnknownArchitecture": (
        "The image does not know the architecture; those that it knows are listed.",
        "Use one of them.",
    ),
    "UnknownCalendar": ("The exchange of `data.calendar` does not exist.", "Use a code such as XNYS."),
    "UnknownDataset": (
        "The trainer image has no such dataset; those that it has are listed.",
        "Correct `data.source.dataset.name`.",
    ),
    "UnknownFeatureSet": ("The image has no such feature set; those that it has are listed.", "Use one of them."),
    "UnknownHyperparameter": (
        "The architecture has no such hyperparameter; those that it has are listed.",
        "Correct it.",
    ),
    "UnorderedRows": (
        "Rows do not ascend in time, so what stands above a row may be its future.",
        "Sort the data where it is made.",
    ),
    "UnreadableFile": ("A file is not of the format that the spec names.", "Correct `files.format`."),
    "UnreadableLedger": (
        "A version's ledger.csv is not what this trainer writes (comparison).",
        "Set evidence.outcomes to Live, or train with this trainer.",
    ),
    "UnreadableTimes": ("The time column holds something that is no date.", "Repair the data, or correct `data.time`."),
    "UnreadableValues": ("A column of outcomes holds what is no number (outcomes).", "Repair the data, or the column."),
    "UnsupportedContractVersion": (
        "Operator and trainer image are of different releases.",
        "Use an image of the operator's release.",
    ),
    "WorkerLost": (
        "A pod ended since another that it trains with is gone; that one's end says why.",
        "Wait: all begin again, from the checkpoint where there is one.",
    ),
    "WorkersMissing": (
        "Not all pods of `training.nodes` ran at the same time and reached each other within half an hour.",
        "Make room for all of them (a Kueue queue admits all or none), and look at network policies.",
    ),
}

FROM_REGISTRY: dict[str, tuple[str, str]] = {
    "RegistryUnreachable": ("MLflow does not answer, or answers 5xx.", "Wait, or start it: nothing is lost meanwhile."),
    "RegistryHostRejected": (
        "MLflow answers 403 `Invalid Host header`: it does not know the name by which it was called.",
        "Add the name to the server's `--allowed-hosts`.",
    ),
    "RegistryUnauthorized": ("MLflow refuses the credentials.", "Correct the connection in the operator's settings."),
    "RegistryRefused": (
        "MLflow refuses the request; its words are quoted.",
        "Read them: most often a name or a plugin.",
    ),
    "RegistryUnknown": (
        "The connection that was used is not in the settings any more.",
        "Add it, or correct the spec.",
    ),
}

FROM_EVIDENCE: dict[str, tuple[str, str]] = {
    "LedgerAwaited": (
        "The scorer has no ledger of the replay yet: live sessions are folded after it.",
        "Wait; the condition Replayed says how far the replay is.",
    ),
    "LedgerBroken": (
        "A row of a ledger does not hash to what it says, or the scorer found its chain broken.",
        "Find out who wrote to the scorer's store, and restore it. Nothing of that ledger is judged.",
    ),
    "LedgerExists": (
        "The scorer holds another ledger under this name; the first one counts.",
        "Nothing, unless it is wrong: then find out who posted it.",
    ),
    "LedgerImpossible": (
        "No ledger can be begun for this model; the message says why.",
        "Correct what the message names.",
    ),
    "LedgerRewritten": (
        "The ledger is shorter than what was folded, or its rows do not follow it: the scorer's store was replaced.",
        "Restore the volume, or create another experiment.",
    ),
    "LedgerStands": (
        "The scorer closes no more sessions into the ledger; its words are quoted, mostly that its calendar ends.",
        "Use a newer image of the scorer.",
    ),
    "LedgerTooLong": (
        "The ledger says that it has more sessions than a ledger can have.",
        "Something else answers in the scorer's place: see its Service.",
    ),
    "PrometheusClockSkew": (
        "Prometheus' clock and the operator's differ by more than 3 s.",
        "Correct the clocks of the nodes.",
    ),
    "PrometheusOverloaded": (
        "Prometheus answers 5xx or 429, or a limit of its queries was reached.",
        "Give it more, or raise its query limits; it is asked again.",
    ),
    "PrometheusPartial": (
        "The answer has warnings: a store behind it (Thanos, Mimir) was away.",
        "Look at that store; half an answer is none.",
    ),
    "PrometheusRefused": (
        "Prometheus refuses the query, or cannot carry it out on the data that it holds; its words are quoted.",
        "Where it is a query of a DriftPolicy, correct it; else report it.",
    ),
    "PrometheusTimeout": (
        "Prometheus did not answer in time (prometheus.timeoutSeconds).",
        "See its load; it is asked again.",
    ),
    "PrometheusTooLarge": ("The answer is larger than 16 MiB.", "Find what makes so many series."),
    "PrometheusUnauthorized": ("Prometheus refuses the token.", "Correct prometheus.tokenFile of the settings."),
    "PrometheusUnreachable": (
        "No connection to Prometheus.",
        "See prometheus.url, its pod, and the operator's NetworkPolicy; it is asked again.",
    ),
    "PrometheusWrongSchema": (
        "The answer is not what Prometheus' API gives: something else answers at that address.",
        "Correct prometheus.url.",
    ),
    "ScorerRefused": (
        "The scorer refuses the request; its words are quoted.",
        "Most often images of different releases.",
    ),
    "ScorerTimeout": (
        "The scorer did not answer in time (outcomes.timeoutSeconds).",
        "See its load and its volume; it is asked again.",
    ),
    "ScorerTooLarge": ("The scorer's answer is larger than an answer may be.", "Report it."),
    "ScorerUnauthorized": (
        "The scorer does not take the operator's token, or the token cannot be made.",
        "See outcomes.issuer, outcomes.operator and outcomes.keysUrl of the settings.",
    ),
    "ScorerUnavailable": (
        "The scorer answers 503 or 429: it begins, ends, or cannot write.",
        "Look at its volume if it lasts.",
    ),
    "ScorerWrongSchema": (
        "The answer is not a scorer's of this release.",
        "Use images of the operator's own release.",
    ),
}


def of_operator() -> Iterator[tuple[str, list[Row]]]:
    """(title, rows) of each section of reasons.py, in its order."""
    text = REASONS.read_text()
    titles = [
        (number, match[1])
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.match(r"# --- (.+?) -+$", line))
    ]
    rows: list[tuple[int, Row]] = []
    body = ast.parse(text).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)):
            continue
        word = str(statement.value.value)
        if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
            raise ValueError(f"{word} in {REASONS.name} has no docstring; say what was seen and what to do")
        meaning, _, act = " ".join(str(following.value.value).split()).partition(". ")
        rows.append((statement.lineno, (word, f"{meaning.removesuffix('.')}.", act)))
    ends = [*(line for line, _ in titles[1:]), len(text.splitlines()) + 1]
    for (line, title), end in zip(titles, ends, strict=True):
        yield title, [row for at, row in rows if line < at < end]


def raised(folders: tuple[Path, ...]) -> set[str]:
    """Reasons that the trainer raises: the first argument of its typed refusals."""
    found: set[str] = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in OUTCOMES
                and node.args
            ):
                words = [leaf.value for leaf in ast.walk(node.args[0]) if isinstance(leaf, ast.Constant)]
                found |= {word for word in words if isinstance(word, str)}
    return found


def registry_words(folder: Path) -> set[str]:
    """Reasons with which the registry's client explains why it has no answer."""
    sources = (path.read_text() for name in ("clients", "engine") for path in (folder / name).rglob("*.py"))
    return {word for source in sources for word in re.findall(r'"(Registry[A-Z]\w+)"', source)}


def evidence_words(folder: Path, explained_above: set[str]) -> set[str]:
    """Reasons with which the clients of Prometheus and of the outcome scorers say why there is no answer."""
    sources = (path.read_text() for name in ("clients", "engine") for path in (folder / name).rglob("*.py"))
    found = {word for source in sources for word in re.findall(r'"((?:Prometheus|Scorer|Ledger)[A-Z]\w+)"', source)}
    return found - explained_above


def table(rows: list[Row]) -> str:
    lines = ["| Word | Meaning | What to do |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{word}` | {meaning} | {act} |" for word, meaning, act in rows)])


def explained(words: set[str], meanings: dict[str, tuple[str, str]], where: str) -> list[Row]:
    if unknown := sorted(words - set(meanings)):
        raise ValueError(f"{where} gives reasons that docs/conditions.py does not explain: {', '.join(unknown)}")
    return [(word, *meanings[word]) for word in sorted(words)]


def page() -> str:
    """The whole page."""
    parts = [
        "<!-- Generated by docs/conditions.py from the code; change the docstrings there. -->",
        "# Conditions and reasons",
        "`Ready`, `Reconciling` and `Stalled` follow kstatus. A message always says what was seen, what was expected\n"
        "and what to do; the words below are stable, so programs may rely on them. An empty last column: nothing\n"
        "needs to be done.",
    ]
    for title, rows in of_operator():
        parts += [f"## {title[0].upper()}{title[1:]}", table(rows)]
    trainer = explained(raised(TRAINER) - registry_words(REGISTRY), FROM_TRAINER, "the trainer")
    parts += [
        "## What the trainer says",
        "Reasons of a training that ended without numbers; they become the reason of `Trained`. Refused data (exit\n"
        "code 42), a loss that is no number (43), memory that ran out (44) and a contract that cannot be carried out\n"
        "(64) are not retried; what could not be reached (75) is.",
        table(trainer),
        "## What the registry's client says",
        table(explained(registry_words(REGISTRY), FROM_REGISTRY, "the registry's client")),
    ]
    above = {word for _, rows in of_operator() for word, _, _ in rows}
    parts += [
        "## What Prometheus and the outcome scorers answer",
        "Reasons of `Replayed`, the first word of the messages of `PrometheusSilent`, `CountersUnreachable` and\n"
        "`OutcomesUnread`, and the label `reason` of `fiduciary_prometheus_errors_total`.",
        table(explained(evidence_words(REGISTRY, above), FROM_EVIDENCE, "a client of evidence")),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
