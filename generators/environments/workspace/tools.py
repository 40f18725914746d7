"""The shared files of a small studio: folders, files, versions, trash, shares, locks, holds, and what can be done with them."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tracemill.generators.environments.base import Environment, Row, Table, ToolError
from tracemill.generators.environments.people import people
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

TODAY = date(2026, 5, 14)
DOMAIN = "halden.example"
PURGE_DAYS = 30
SHOWN = 12  # a longer list would drown the conversation; the rest is counted
PROJECTS = (
    "atlas", "beacon", "cobalt", "delta", "ember", "fathom", "garnet", "harbor", "indigo", "juniper", "kestrel", "lumen",
)  # fmt: skip
CLIENTS = (
    "Norwell Ferries", "Pine & Partner", "Quayside Museum", "Redmoor Energy", "Sable Hotels", "Tarn Outdoor", "Umbra Optics",
    "Vale Dairy", "Wexcombe Library", "Yarrow Trains", "Zinnia Foods", "Osier Bank",
)  # fmt: skip
TEAMS = ("design", "research", "engineering", "finance", "operations")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
TASKS = ("interviews", "wireframes", "prototype", "testing", "workshop", "copywriting", "layout")
BUYS = ("train tickets", "stock photos", "user panel", "printing", "font licence", "room hire", "courier", "catering")
DOUBLES = ("logo-brief", "press-kit", "site-map", "survey-guide", "pricing", "persona-set")
PLANS = ("keep the blue palette", "drop the second survey", "use one typeface", "test with eight people", "move the launch to June")
MATTERS = ("tax audit of 2025", "dispute with a supplier", "claim about image rights")

Access = Literal["view", "comment", "edit"]
FilePath = Annotated[
    str, Field(pattern=r"^/[a-z0-9/_-]+\.[a-z]+$", description="Full path of a file, such as '/meetings/weekly-2026-04-06.md'.")
]
FolderPath = Annotated[str, Field(pattern=r"^/[a-z0-9/_-]*$", description="Full path of a folder, such as '/finance'; '/' is the top.")]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+\.(md|csv|conf|txt)$", description="Name without folders, such as 'plan.md'.")]
Email = Annotated[str, Field(json_schema_extra={"format": "email"}, description="Work e-mail address.")]
VersionId = Annotated[str, Field(pattern=r"^V-\d{4}$", description="Version id, such as 'V-3012'.")]
Tag = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", description="One word in lower case.")]


@dataclass(frozen=True)
class Person(Row):
    email: str
    name: str
    team: str
    extension: int


@dataclass(frozen=True)
class Folder(Row):
    path: str
    quota_kb: int | None = None


@dataclass(frozen=True)
class Hold(Row):
    id: str
    matter: str


@dataclass(frozen=True)
class Share(Row):
    email: str
    access: Access


@dataclass(frozen=True)
class File(Row):
    """A path keeps its row when the file is moved or purged, so that its fate can be looked up."""

    path: str
    owner: str
    size_kb: int
    modified_on: str
    content: str
    tags: tuple[str, ...] = ()
    status: Literal["active", "in trash", "moved", "purged"] = "active"
    shares: tuple[Share, ...] = ()
    locked_by: str | None = None
    legal_hold: str | None = None
    trashed_on: str | None = None
    moved_to: str | None = None

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def free(self) -> bool:
        """Whether it may be changed."""
        return self.status == "active" and self.locked_by is None and self.legal_hold is None


@dataclass(frozen=True)
class Version(Row):
    id: str
    path: str
    saved_on: str
    saved_by: str
    content: str
    approved: bool = False
    status: Literal["kept", "deleted"] = "kept"
    note: str = ""
    volatile = ("note",)


def inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def table(path: str, text: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    if not path.endswith(".csv"):
        raise ToolError("not_allowed", f"{path} is no table; columns are found in .csv files only")
    return list(csv.DictReader(io.StringIO(text)))


def setting(text: str, key: str) -> str | None:
    """The value of a key in the text of a configuration file."""
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == key:
            return value.strip()
    return None


class WorkspaceTools(Environment):
    """State and tools; the goals are in goals.py."""

    name = "workspace"
    policy = Path(__file__).with_name("policy.md")
    words = Path(__file__).with_name("words.yaml")
    departments = ("file services", "legal", "it support")

    persons: Table[Person]
    folders: Table[Folder]
    holds: Table[Hold]
    files: Table[File]
    versions: Table[Version]

    # --- the world ---

    def build(self, rng: random.Random) -> None:
        for number, one in enumerate(people(rng, 18)):
            self.persons.put(Person(f"{one.handle}@{DOMAIN}", one.name, TEAMS[number % len(TEAMS)], 200 + 7 * number + rng.randint(0, 6)))
        emails = [one.key for one in self.persons]
        for number, matter in zip(rng.sample(range(11, 90), 3), MATTERS, strict=True):
            self.holds.put(Hold(f"LH-{number}", matter))
        for folder in ("/archive", "/archive/2024", "/archive/2025", "/finance", "/meetings", "/ops", "/people", "/projects"):
            self.folders.put(Folder(folder))
        clients = rng.sample(CLIENTS, 6)
        for project, client in zip(sorted(rng.sample(PROJECTS, 6)), clients, strict=True):
            self._project(rng, project, client, emails)
        self._common(rng, emails)

    def _add(self, rng: random.Random, path: str, content: str, owner: str, modified: date | None = None, **more: Any) -> File:
        on = modified or TODAY - timedelta(days=rng.randint(8, 160))
        size = rng.randint(30, 900) if path.endswith(".md") else rng.randint(2, 24)
        return self.files.put(File(path, owner, size, on.isoformat(), content, **more))

    def _project(self, rng: random.Random, project: str, client: str, emails: list[str]) -> None:
        home = f"/projects/{project}"
        for folder in (home, f"{home}/data", f"{home}/drafts", f"{home}/notes"):
            self.folders.put(Folder(folder))
        crew = rng.sample(emails, 4)
        lead = self.persons[crew[0]]
        budget = rng.randrange(24, 96) * 1000
        contact = people(rng, 1)[0].name
        title = project.title()
        head = f"# {title}\nClient: {client}\nContact: {contact}\n"
        budgets = [budget, *(budget - 500 * step for step in rng.sample(range(2, 20), 4))]
        briefs = [f"{head}Budget: {one} EUR\nDeadline: 2026-{9 + k % 3:02d}-15\nLead: {lead.name}" for k, one in enumerate(budgets)]
        self._add(rng, f"{home}/brief.md", briefs[0], lead.email, date(2026, 4, rng.randint(2, 28)), tags=("client",))
        approved = rng.randrange(1, 5)
        for number, text in enumerate(reversed(briefs[1:]), 1):  # the oldest first
            saved = date(2026, 1, 5) + timedelta(days=18 * number + rng.randint(0, 12))
            note = rng.choice(("after the client call", "figures revised", "before the review", "small edits"))
            number_id = self.versions.next_id("V-", 3001 + rng.randint(0, 8))
            self.versions.put(
                Version(number_id, f"{home}/brief.md", saved.isoformat(), rng.choice(crew), text, number == approved, note=note)
            )
        roadmap = f"# {title}: roadmap\nPhase 1: research until 2026-03\nPhase 2: design until 2026-07\nSign-off by {contact} in 2026-09"
        lock = rng.choice(crew) if rng.random() < 0.4 else None
        self._add(rng, f"{home}/roadmap.md", roadmap, rng.choice(crew), locked_by=lock)
        self._add(rng, f"{home}/readme.md", f"# {title}\nWork for {client}. Questions go to {contact} or to {lead.name}.", lead.email)
        lines = [
            f"- 2026-0{m}-{rng.randint(10, 27)}: {plan} (agreed with {contact})"
            for m, plan in zip((2, 3, 4), rng.sample(PLANS, 3), strict=True)
        ]
        self._add(rng, f"{home}/decisions.md", f"# {title}: decisions\n" + "\n".join(lines), rng.choice(crew))
        self._reports(rng, home, title, client, crew)
        workers, limit = rng.randint(2, 12), rng.randint(2, 6)
        keys = f"region = {rng.choice(('north', 'west', 'south'))}\nworkers = {workers}\nretry_limit = {limit}\n"
        keys += f"timeout_seconds = {rng.randrange(20, 95, 5)}\ncache_mb = {rng.choice((128, 192, 256, 384))}"
        self._add(rng, f"{home}/deploy.conf", keys, rng.choice(crew))
        keys = f"schedule = {rng.choice(('daily', 'hourly', 'weekly'))}\nkeep_days = {rng.randint(14, 60)}\ncopies = {rng.randint(2, 4)}"
        self._add(rng, f"{home}/backup.conf", keys, rng.choice(crew))
        for month in range(1, 5):
            end = date(2026, month, 28)
            hours = [f"{self.persons[who].name},{task},{rng.randint(6, 48)}" for who, task in zip(crew, rng.sample(TASKS, 4), strict=True)]
            self._add(rng, f"{home}/data/hours-2026-{month:02d}.csv", "person,task,hours\n" + "\n".join(hours), lead.email, end)
            spent = [
                f"2026-{month:02d}-{rng.randint(1, 28):02d},{item},{rng.randint(1500, 90000) / 100:.2f}"
                for item in rng.sample(BUYS, rng.randint(3, 5))
            ]
            self._add(rng, f"{home}/data/expenses-2026-{month:02d}.csv", "date,item,amount\n" + "\n".join(spent), rng.choice(crew), end)
        for number, day in enumerate(rng.sample(range(1, 28), 3)):
            month = 2 + number
            text = f"# Notes of 2026-{month:02d}-{day:02d}\n- {rng.choice(PLANS)}\n- next: {rng.choice(TASKS)}"
            self._add(rng, f"{home}/notes/notes-2026-{month:02d}-{day:02d}.md", text, rng.choice(crew), date(2026, month, day))
        self._drafts(rng, home, title, crew)
        used = sum(file.size_kb for file in self.files if inside(file.path, home))
        self.folders.put(Folder(home, used + rng.randint(120, 500)))

    def _reports(self, rng: random.Random, home: str, title: str, client: str, crew: list[str]) -> None:
        """Eight monthly ones. Of last year's four, one is locked or held and so must stay where it is."""
        stays = rng.randrange(4)
        held = rng.random() < 0.5
        for number, (year, month) in enumerate((*((2025, m) for m in range(9, 13)), *((2026, m) for m in range(1, 5)))):
            done = f"Hours spent: {rng.randint(60, 180)}\nBudget used: {rng.randrange(2, 12) * 450} EUR"
            text = f"# {title}: {MONTHS[month - 1]} {year}\nClient: {client}\n{done}"
            written = date(year, month, 28) + timedelta(days=rng.randint(0, 9))
            stuck = number == stays
            lock = rng.choice(crew) if stuck and not held else None
            hold = rng.choice(list(self.holds)).id if stuck and held else None
            self._add(
                rng, f"{home}/report-{year}-{month:02d}.md", text, crew[0], written, tags=("report",), locked_by=lock, legal_hold=hold
            )

    def _drafts(self, rng: random.Random, home: str, title: str, crew: list[str]) -> None:
        for number in (1, 2, 3):
            text = (
                f"# {title}: proposal, draft {number}\nScope: {', '.join(rng.sample(TASKS, 3))}\nPrice: {rng.randrange(80, 240) * 250} EUR"
            )
            shares = (self._share(rng, crew[number]),) if rng.random() < 0.5 else ()
            self._add(rng, f"{home}/drafts/proposal-v{number}.md", text, crew[0], date(2026, number, 20), tags=("draft",), shares=shares)
        double = rng.choice(DOUBLES)
        same = f"# {double.replace('-', ' ').title()}\nFor {title}. Audience: {rng.choice(('visitors', 'staff', 'members'))}."
        days = rng.sample(range(5, 60), 4)
        names = (f"{double}.md", f"{double}-copy.md", f"{double}-copy-2.md", f"{double}-final.md")
        shared = rng.randrange(8)  # sometimes one of the three copies is shared
        for number, (name, who, age) in enumerate(zip(names, crew, days, strict=True)):
            text = same if number < 3 else same + "\nApproved wording; not the same as the others."
            shares = (self._share(rng, crew[(number + 1) % 4]),) if number == shared else ()
            self._add(rng, f"{home}/drafts/{name}", text, who, TODAY - timedelta(days=age), tags=("draft",), shares=shares)
        gone = [
            (
                f"costs-draft-{rng.randint(2, 9)}.csv",
                "item,amount\n" + "\n".join(f"{one},{rng.randint(90, 900)}" for one in rng.sample(BUYS, 4)),
            ),
            (f"banner-{rng.randint(10, 99)}.psd", "(image)"),
            (f"export-{rng.randint(100, 999)}.zip", "(archive)"),
            (f"scans-{rng.randint(10, 99)}.zip", "(archive)"),
            (f"outline-{rng.randint(2, 9)}.md", f"# {title}: an outline that was dropped"),
        ]
        ages = [rng.randint(2, 25), rng.randint(31, 90), rng.randint(31, 90), rng.choice((9, 40)), rng.randint(3, 28)]
        for (name, text), age in zip(gone, ages, strict=True):
            on = TODAY - timedelta(days=age)
            file = self._add(rng, f"{home}/drafts/{name}", text, rng.choice(crew), on - timedelta(days=5))
            size = file.size_kb if name.endswith((".csv", ".md")) else rng.randint(400, 1900)
            self.files.update(file, status="in trash", trashed_on=on.isoformat(), size_kb=size)

    def _common(self, rng: random.Random, emails: list[str]) -> None:
        for month in range(1, 5):
            rows = "\n".join(f"INV-{rng.randint(1000, 9999)},{rng.choice(CLIENTS)},{rng.randrange(20, 190) * 50}" for _ in range(4))
            path = f"/finance/invoices-2026-{month:02d}.csv"
            self._add(rng, path, f"invoice,client,amount\n{rows}", rng.choice(emails), date(2026, month, 28), tags=("confidential",))
        bands = "\n".join(f"{team},{rng.randint(30, 40) * 1000},{rng.randint(45, 70) * 1000}" for team in TEAMS)
        self._add(rng, "/people/salary-bands.csv", f"team,low,high\n{bands}", rng.choice(emails), tags=("confidential",))
        budgets = "\n".join(f"{team},{rng.randint(20, 90) * 500}" for team in TEAMS)
        self._add(rng, "/finance/budget-2026.csv", f"team,amount\n{budgets}", rng.choice(emails), tags=("confidential",))
        for path, text in (
            ("/people/handbook.md", f"# Handbook\nDays of leave: {rng.randint(25, 30)}\nNotice for leave: {rng.randint(2, 4)} weeks"),
            ("/people/onboarding.md", f"# First week\nBuddy for {rng.randint(2, 4)} weeks\nKeys come from operations"),
            ("/ops/runbook.md", f"# Runbook\nRestart takes {rng.randint(3, 9)} minutes\nOn call: operations"),
            ("/ops/alerts.conf", f"disk_percent = {rng.randint(80, 95)}\nmail_after = {rng.randint(2, 9)}"),
            ("/finance/forecast-2027.md", f"# Forecast for 2027\nExpected income: {rng.randint(60, 99) * 10000} EUR"),
        ):
            shares = (self._share(rng, rng.choice(emails)),) if rng.random() < 0.6 else ()
            self._add(rng, path, text, rng.choice(emails), shares=shares)
        for week in range(6):
            on = date(2026, 3, 30) + timedelta(weeks=week)
            self._add(
                rng, f"/meetings/weekly-{on}.md", f"# Weekly of {on}\n- {rng.choice(PLANS)}", rng.choice(emails), on, tags=("minutes",)
            )
        for month in range(1, 13):
            hold = rng.choice(list(self.holds)).id if month % 5 == 2 else None
            text = f"# Studio report {MONTHS[month - 1]} 2024\nIncome: {rng.randint(300, 900) * 100} EUR"
            on = date(2024, month, 28)
            self._add(rng, f"/archive/2024/studio-{on:%Y-%m}.md", text, rng.choice(emails), on, tags=("report",), legal_hold=hold)

    def _share(self, rng: random.Random, email: str) -> Share:
        return Share(email, rng.choice(("view", "comment", "edit")))

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        for row in changed:
            if isinstance(row, File):
                yield from self._wrong_with(row)
            elif isinstance(row, Version):
                if row.path not in self.files:
                    yield f"version {row.id} belongs to no file"
                if row.status == "deleted" and (row.approved or self.files[row.path].legal_hold):
                    yield f"version {row.id} must not be deleted"
            elif isinstance(row, Folder):
                parent = row.path.rpartition("/")[0]
                if parent and parent not in self.folders:
                    yield f"the folder {row.path} hangs in the air"

    def _wrong_with(self, file: File) -> Iterator[str]:
        if file.folder not in self.folders:
            yield f"{file.path} lies in no folder"
        if (file.trashed_on is not None) != (file.status == "in trash"):
            yield f"{file.path} is {file.status}, which does not fit its trash date"
        if (file.moved_to is not None) != (file.status == "moved"):
            yield f"{file.path} is {file.status}, which does not fit its new place"
        if file.status in ("in trash", "purged") and file.shares:
            yield f"{file.path} is shared and must not be trashed"
        if (file.locked_by or file.legal_hold) and (file.status != "active" or file.modified_on == TODAY.isoformat()):
            yield f"{file.path} is locked or held and must stay as it is"
        if any(not share.email.endswith("@" + DOMAIN) for share in file.shares):
            yield f"{file.path} is shared outside of the company"
        if "confidential" in file.tags and any(share.access != "view" for share in file.shares):
            yield f"{file.path} is confidential and can be shared for viewing only"
        home = self._home(file.folder) if file.size_kb else None
        if home is not None and home.quota_kb is not None and self._used(home) > home.quota_kb:
            yield f"{home.path} is over its quota"

    # --- tools: looking ---

    @tool("read")
    def list_folder(self, folder: FolderPath) -> Json:
        """The sub-folders and files that lie directly in a folder."""
        if folder != "/":
            self._folder(folder)
        depth = folder.rstrip("/").count("/") + 1
        below = [one.path for one in self.folders if inside(one.path, folder) and one.path.count("/") == depth]
        files = [file for file in self.files if file.status == "active" and file.folder == folder]
        return {"folder": folder, "folders": sorted(below), **self._listed(files, ("size_kb", "modified_on"), 20)}

    @tool("read")
    def find_files(
        self,
        name: Annotated[str | None, Field(description="Name pattern with * and ?, such as 'report-*.md'.")] = None,
        folder: Annotated[str | None, Field(description="Search only here and below, such as '/finance'.")] = None,
        tag: Annotated[str | None, Field(description="Only files with this tag.")] = None,
        owner: Annotated[str | None, Field(description="Only files of this owner, by e-mail.")] = None,
    ) -> Json:
        """Find files by name, folder, tag or owner. Trashed files are not found."""
        if name is None and folder is None and tag is None and owner is None:
            raise ToolError("invalid_arguments", "give at least one of 'name', 'folder', 'tag', 'owner'")
        if folder is not None:
            self._folder(folder)
        found = [
            file
            for file in self._active(folder)
            if (name is None or fnmatchcase(file.name, name))
            and (tag is None or tag in file.tags)
            and (owner is None or file.owner == owner)
        ]
        return self._listed(found, ("owner", "size_kb", "modified_on"), SHOWN)

    @tool("read")
    def search_text(
        self,
        text: Annotated[str, Field(min_length=3, description="What to look for; upper and lower case are the same.")],
        folder: FolderPath,
    ) -> Json:
        """Lines that contain a text, in all files in a folder and below."""
        if folder != "/":
            self._folder(folder)
        wanted = text.lower()
        found = [
            {"path": file.path, "line": line}
            for file in sorted(self._active(folder), key=lambda one: one.path)
            if wanted in file.content.lower()
            for line in file.content.splitlines()
            if wanted in line.lower()
        ]
        return {"text": text, "matches": found[:SHOWN], "not_shown": max(0, len(found) - SHOWN)}

    @tool("read")
    def read_file(self, path: FilePath) -> Json:
        """The content of a file."""
        file = self._there(path)
        return {"path": file.path, "modified_on": file.modified_on, "content": file.content}

    @tool("read")
    def get_info(self, path: FilePath) -> Json:
        """Owner, size, date, tags, shares, lock and legal hold of a file; also what became of one that was moved, trashed or purged."""
        file = self._file(path)
        known = {"path": file.path, "status": file.status, "owner": file.owner, "size_kb": file.size_kb, "modified_on": file.modified_on}
        if file.status == "moved":
            return {"path": file.path, "status": file.status, "moved_to": file.moved_to}
        if file.trashed_on is not None:
            known["trashed_on"] = file.trashed_on
        return {**known, "tags": file.tags, "shared_with": file.shares, "locked_by": file.locked_by, "legal_hold": file.legal_hold}

    @tool("read")
    def compare_files(self, first: FilePath, second: FilePath) -> Json:
        """Whether the content of two files is identical, which was modified last, and the lines that differ."""
        one, two = self._there(first), self._there(second)
        only_first = [line for line in one.content.splitlines() if line not in two.content.splitlines()]
        only_second = [line for line in two.content.splitlines() if line not in one.content.splitlines()]
        return {
            "first": one.path,
            "second": two.path,
            "identical": one.content == two.content,
            "newer": max((one, two), key=lambda file: file.modified_on).path,
            "only_in_first": only_first[:5],
            "only_in_second": only_second[:5],
        }

    @tool("read")
    def sum_column(self, path: FilePath, column: Annotated[str, Field(description="Name of the column, as in the first line.")]) -> Json:
        """Add up the numbers of a column of a .csv file."""
        rows = table(path, self._there(path).content)
        names = list(rows[0]) if rows else []
        if column not in names:
            raise ToolError("not_found", f"{path} has no column {column!r}; there are {', '.join(names)}")
        try:
            total = round(sum(float(row[column]) for row in rows), 2)
        except ValueError:
            raise ToolError("not_allowed", f"the column {column!r} of {path} does not hold numbers") from None
        return {"path": path, "column": column, "rows": len(rows), "sum": total}

    @tool("read")
    def folder_usage(self, folder: FolderPath) -> Json:
        """Quota, space in use and free space of the folder, with what lies below it and in its trash."""
        home = self._home(self._folder(folder).path)
        if home is None:
            raise ToolError("not_found", f"{folder} has no quota")
        used, quota = self._used(home), home.quota_kb or 0
        old = self._old_trash(home.path)
        return {
            "folder": home.path,
            "quota_kb": quota,
            "used_kb": used,
            "free_kb": quota - used,
            "purgeable_kb": sum(file.size_kb for file in old),
        }

    @tool("read")
    def list_trash(self, folder: FolderPath) -> Json:
        """What was trashed from a folder and from below it, the oldest first, and the paths that were purged there."""
        if folder != "/":
            self._folder(folder)
        found = sorted((f for f in self._trash(folder)), key=lambda one: (one.trashed_on or "", one.path))
        shown = [{"path": one.path, "size_kb": one.size_kb, "trashed_on": one.trashed_on} for one in found[:SHOWN]]
        purged = [one.path for one in self.files if one.status == "purged" and inside(one.path, folder)]
        return {"folder": folder, "files": shown, "purged": purged, "not_shown": max(0, len(found) - SHOWN)}

    @tool("read")
    def list_versions(self, path: FilePath) -> Json:
        """The saved versions of a file, newest first."""
        file = self._file(path)
        saved = sorted(self.versions.where(path=file.path), key=lambda one: (one.saved_on, one.id), reverse=True)
        shown = [{"version_id": v.id, "saved_on": v.saved_on, "approved": v.approved, "status": v.status, "note": v.note} for v in saved]
        return {"path": file.path, "versions": shown}

    @tool("read")
    def read_version(self, version_id: VersionId) -> Json:
        """The content of a saved version."""
        version = self._version(version_id)
        return {"version_id": version.id, "path": version.path, "saved_on": version.saved_on, "content": version.content}

    @tool("read")
    def find_person(self, who: Annotated[str, Field(min_length=3, description="Full name or e-mail.")]) -> Person:
        """A colleague's name, e-mail, team and extension."""
        found = [one for one in self.persons if who.lower() in (one.name.lower(), one.email)]
        if not found:
            raise ToolError("not_found", f"nobody at Halden is called {who!r}; give the full name or the e-mail")
        return found[0]

    # --- tools: changing ---

    @tool("write")
    def create_folder(
        self, parent: FolderPath, name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", description="Name of the new folder.")]
    ) -> Json:
        """Make a folder in another one."""
        path = f"{parent.rstrip('/')}/{name}"
        if parent != "/":
            self._folder(parent)
        if path in self.folders:
            raise ToolError("not_allowed", f"there is a folder {path} already")
        return {"folder": self.folders.put(Folder(path)).path}

    @tool("write")
    def create_file(self, folder: FolderPath, name: FileName, content: Annotated[str, Field(min_length=1)], owner: Email) -> Json:
        """Make a file in a folder. `owner` is a colleague."""
        path = self._vacant(folder, name)
        if owner not in self.persons:
            raise ToolError("not_found", f"nobody at Halden has the address {owner}")
        self._fits(folder, 1)
        self.files.put(File(path, owner, 1, TODAY.isoformat(), content.strip()))
        return {"path": path, "owner": owner, "size_kb": 1}

    @tool("write")
    def append_text(self, path: FilePath, text: Annotated[str, Field(min_length=1, description="Lines to add.")]) -> Json:
        """Add lines at the end of a file."""
        file = self._changeable(path)
        self._rewrite(file, f"{file.content}\n{text.strip()}")
        return {"path": path, "lines": file.content.count("\n") + 2, "last_line": text.strip().splitlines()[-1]}

    @tool("write")
    def replace_text(
        self,
        path: FilePath,
        old: Annotated[str, Field(min_length=2, description="Text that is in the file, letter by letter.")],
        new: Annotated[str, Field(description="What to put in its place.")],
    ) -> Json:
        """Replace a text by another one, wherever it stands in a file."""
        file = self._changeable(path)
        times = file.content.count(old)
        if not times:
            raise ToolError("not_found", f"{path} does not contain {old!r}")
        self._rewrite(file, file.content.replace(old, new))
        return {"path": path, "replaced": times}

    @tool("write")
    def set_value(self, path: FilePath, key: str, value: Annotated[str, Field(min_length=1, pattern=r"^\S+$")]) -> Json:
        """Set a key of a .conf file to another value. The rest of the file stays as it is."""
        file = self._changeable(path)
        if not path.endswith(".conf"):
            raise ToolError("not_allowed", f"{path} is no configuration file; use replace_text")
        before = setting(file.content, key)
        if before is None:
            keys = ", ".join(line.partition("=")[0].strip() for line in file.content.splitlines())
            raise ToolError("not_found", f"{path} has no key {key!r}; there are {keys}")
        lines = [f"{key} = {value}" if line.partition("=")[0].strip() == key else line for line in file.content.splitlines()]
        self._rewrite(file, "\n".join(lines))
        return {"path": path, "key": key, "before": before, "now": value}

    @tool("write")
    def move_file(self, path: FilePath, to_folder: FolderPath) -> Json:
        """Move a file to another folder; its name stays."""
        file = self._changeable(path)
        target = self._vacant(to_folder, file.name)
        if self._home(to_folder) != self._home(file.folder):
            self._fits(to_folder, file.size_kb)
        self.files.update(file, path=target)
        self.files.update(file, status="moved", moved_to=target, shares=(), tags=(), content="", size_kb=0)
        for version in self.versions.where(path=path):
            self.versions.update(version, path=target)
        return {"moved_from": path, "path": target}

    @tool("write")
    def copy_file(self, path: FilePath, to_folder: FolderPath) -> Json:
        """Copy a file to another folder under the same name. Shares, lock and hold are not copied."""
        file = self._there(path)
        target = self._vacant(to_folder, file.name)
        self._fits(to_folder, file.size_kb)
        self.files.put(File(target, file.owner, file.size_kb, TODAY.isoformat(), file.content, file.tags))
        return {"copied_from": path, "path": target, "size_kb": file.size_kb}

    @tool("write")
    def tag_file(self, path: FilePath, tag: Tag) -> Json:
        """Put a tag on a file."""
        file = self._changeable(path)
        changed = self.files.update(file, tags=tuple(sorted({*file.tags, tag})))
        return {"path": path, "tags": changed.tags}

    @tool("write")
    def share_file(
        self,
        path: FilePath,
        email: Email,
        access: Annotated[Access, Field(description="What the person may do.")],
    ) -> Json:
        """Share a file with a colleague. Someone who has access already gets the new access."""
        file = self._there(path)
        if not email.endswith("@" + DOMAIN):
            raise ToolError("not_allowed", f"{email} is outside of the company; files are shared with addresses at {DOMAIN} only")
        if email not in self.persons:
            raise ToolError("not_found", f"nobody at Halden has the address {email}")
        if "confidential" in file.tags and access != "view":
            raise ToolError("not_allowed", f"{path} is confidential and can be shared for viewing only")
        others = tuple(share for share in file.shares if share.email != email)
        self.files.update(file, shares=(*others, Share(email, access)))
        return {"path": path, "email": email, "access": access}

    @tool("write")
    def trash_file(self, path: FilePath) -> Json:
        """Put a file into the trash, from where it can be restored."""
        file = self._changeable(path)
        if file.shares:
            names = ", ".join(share.email for share in file.shares)
            raise ToolError("not_allowed", f"{path} is shared with {names}; a shared file is not trashed")
        self.files.update(file, status="in trash", trashed_on=TODAY.isoformat())
        return {"path": path, "status": "in trash"}

    @tool("write")
    def restore_file(self, path: FilePath) -> Json:
        """Take a file out of the trash, back to where it was."""
        file = self.files.update(self._trashed(path), status="active", trashed_on=None)
        return {"path": path, "status": file.status, "size_kb": file.size_kb}

    @tool("write")
    def save_version(self, path: FilePath, note: Annotated[str, Field(min_length=3, description="Why it is saved.")]) -> Json:
        """Save the present content of a file as a version."""
        file = self._there(path)
        version = Version(self.versions.next_id("V-", 3001), path, TODAY.isoformat(), file.owner, file.content, note=note)
        return {"version_id": self.versions.put(version).id, "path": path}

    @tool("write")
    def restore_version(self, version_id: VersionId) -> Json:
        """Put the content of a saved version back into its file. What the file holds now is lost unless it was saved."""
        version = self._version(version_id)
        self._rewrite(self._changeable(version.path), version.content)
        return {"path": version.path, "restored": version.id, "saved_on": version.saved_on}

    # --- tools: for good ---

    @tool("irreversible")
    def purge_file(self, path: FilePath) -> Json:
        """Remove one trashed file for good. It must have been in the trash for 30 days or more."""
        file = self._trashed(path)
        if file not in self._old_trash(file.folder):
            raise ToolError("not_allowed", f"{path} went to the trash on {file.trashed_on}; it must lie there for {PURGE_DAYS} days first")
        self._purge([file])
        return {"path": path, "status": "purged", "freed_kb": file.size_kb}

    @tool("irreversible")
    def empty_trash(self, folder: FolderPath) -> Json:
        """Remove for good all that was trashed from a folder, and from below it, 30 days ago or earlier. Younger trash stays."""
        old = self._old_trash(self._folder(folder).path)
        if not old:
            raise ToolError("not_allowed", f"nothing from {folder} has been in the trash for {PURGE_DAYS} days")
        self._purge(old)
        return {
            "folder": folder,
            "purged": [file.path for file in old],
            "freed_kb": sum(file.size_kb for file in old),
            "kept": [file.path for file in self._trash(folder)],
        }

    @tool("irreversible")
    def delete_version(self, version_id: VersionId) -> Json:
        """Delete a saved version for good. An approved version cannot be deleted."""
        version = self._version(version_id)
        if version.approved:
            raise ToolError("not_allowed", f"version {version.id} is approved and must be kept")
        hold = self._file(version.path).legal_hold
        if hold:
            raise ToolError("not_allowed", f"{version.path} is under legal hold {hold}; its versions must be kept")
        self.versions.update(version, status="deleted", content="")
        return {"version_id": version.id, "path": version.path, "status": "deleted"}

    # --- what the tools share ---

    def _folder(self, path: str) -> Folder:
        found = self.folders.get(path)
        if found is None:
            raise ToolError("not_found", f"there is no folder {path!r}; list_folder shows what there is")
        return found

    def _file(self, path: str) -> File:
        found = self.files.get(path)
        if found is None:
            raise ToolError("not_found", f"there is no file {path!r}; find_files and list_folder show what there is")
        return found

    def _there(self, path: str) -> File:
        file = self._file(path)
        if file.status == "moved":
            raise ToolError("not_found", f"{path} was moved to {file.moved_to}")
        if file.status != "active":
            raise ToolError("not_found", f"{path} is {'in the trash' if file.status == 'in trash' else 'purged'}")
        return file

    def _changeable(self, path: str) -> File:
        file = self._there(path)
        if file.legal_hold:
            raise ToolError("not_allowed", f"{path} is under legal hold {file.legal_hold} and must stay as it is")
        if file.locked_by:
            raise ToolError("not_allowed", f"{path} is locked by {file.locked_by} and is read-only")
        return file

    def _trashed(self, path: str) -> File:
        file = self._file(path)
        if file.status != "in trash":
            raise ToolError("not_allowed", f"{path} is not in the trash")
        return file

    def _version(self, version_id: str) -> Version:
        version = self.versions.get(version_id)
        if version is None or version.status == "deleted":
            raise ToolError("not_found", f"there is no version {version_id}; list_versions shows those of a file")
        return version

    def _vacant(self, folder: str, name: str) -> str:
        """The path that a new file gets."""
        path = f"{self._folder(folder).path}/{name}"
        there = self.files.get(path)
        if there is not None and there.status in ("active", "in trash"):
            raise ToolError("not_allowed", f"there is a file {path} already" + (", in the trash" if there.trashed_on else ""))
        return path

    def _home(self, folder: str) -> Folder | None:
        """The nearest folder upwards that has a quota."""
        while folder:
            found = self.folders.get(folder)
            if found is not None and found.quota_kb is not None:
                return found
            folder = folder.rpartition("/")[0]
        return None

    def _used(self, home: Folder) -> int:
        below = home.path + "/"  # moved and purged files have no size
        return sum([file.size_kb for file in self.files if file.path.startswith(below)])

    def _fits(self, folder: str, size_kb: int) -> None:
        home = self._home(folder)
        if home is not None and home.quota_kb is not None and (free := home.quota_kb - self._used(home)) < size_kb:
            raise ToolError("not_allowed", f"{size_kb} KB do not fit into {home.path}: {free} KB of its quota are free")

    def _active(self, folder: str | None) -> list[File]:
        below = "/" if folder is None else folder.rstrip("/") + "/"
        return [file for file in self.files if file.status == "active" and file.path.startswith(below)]

    def _trash(self, folder: str) -> list[File]:
        return [file for file in self.files if file.status == "in trash" and inside(file.path, folder)]

    def _old_trash(self, folder: str) -> list[File]:
        last = (TODAY - timedelta(days=PURGE_DAYS)).isoformat()
        return [file for file in self._trash(folder) if file.trashed_on is not None and file.trashed_on <= last]

    def _purge(self, files: Iterable[File]) -> None:
        for file in files:
            self.files.update(file, status="purged", trashed_on=None, content="", size_kb=0)

    def _rewrite(self, file: File, content: str) -> None:
        self.files.update(file, content=content, modified_on=TODAY.isoformat())

    def _listed(self, files: list[File], fields: tuple[str, ...], most: int) -> dict[str, Json]:
        found = sorted(files, key=lambda one: one.path)
        shown = [{"path": one.path, **{name: getattr(one, name) for name in fields}} for one in found[:most]]
        return {"files": shown, "not_shown": max(0, len(found) - most)}
