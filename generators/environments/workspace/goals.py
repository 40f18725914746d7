"""What people of the studio want done with their files."""

from __future__ import annotations

from datetime import date, timedelta

from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.people import people
from tracemill.generators.environments.workspace.tools import (
    MONTHS,
    PLANS,
    PURGE_DAYS,
    TODAY,
    Access,
    File,
    Folder,
    Share,
    Version,
    WorkspaceTools,
    inside,
    setting,
    table,
)
from tracemill.trace import Json, Kind

NO_PLAN: tuple[Kind, ...] = ("tool_call", "error_recovery")
SERVICES = (
    "a printed copy of our handbook on my desk",
    "a French translation of our runbook",
    "a new logo for the website",
    "the photos from my phone copied over",
    "a summary of my unread mail",
    "a meeting with the finance team next week",
)
MAY: dict[Access, str] = {"view": "view it", "comment": "comment on it", "edit": "edit it"}


def listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def info(path: str) -> tuple[str, dict[str, Json]]:
    """The look-up that shows what became of a file."""
    return "get_info", {"path": path}


def added(path: str, column: str, text: str) -> float:
    return round(sum(float(row[column]) for row in table(path, text)), 2)


class Workspace(WorkspaceTools):
    def _home_of(self, g: Draft) -> Folder:
        """A project's folder, with {folder} and {title} for the wording."""
        home = g.pick(folder for folder in self.folders if folder.quota_kb is not None)
        g.put(folder=home.path, title=home.path.rpartition("/")[2].title())
        return home

    def _in(self, folder: str, start: str) -> list[File]:
        """Active files by the beginning of their name, in the order of their paths."""
        found = [file for file in self._active(folder) if file.name.startswith(start)]
        return sorted(found, key=lambda file: file.path)

    def _old_enough(self, file: File) -> bool:
        return file.trashed_on is not None and file.trashed_on <= (TODAY - timedelta(days=PURGE_DAYS)).isoformat()

    # --- looking ---

    @goal(kinds=NO_PLAN)
    def look_up_setting(self, g: Draft) -> None:
        """One call: what is a key set to?"""
        home = self._home_of(g)
        file = self.files[f"{home.path}/{g.rng.choice(('deploy', 'backup'))}.conf"]
        key = g.pick(line.partition(" =")[0] for line in file.content.splitlines())
        value = setting(file.content, key) or ""
        g.know(path=file.path, label="file")
        g.put(key=key, value=value)
        g.call(
            "read_file",
            path=file.path,
            why=f"the value of {key} stands in the file",
            fallback=("search_text", {"text": key, "folder": home.path}),
        )
        g.tell(float(value) if value.isdigit() else value)

    @goal(kinds=NO_PLAN)
    def weigh_files(self, g: Draft) -> None:
        """Independent look-ups, then the owner of the largest."""
        home = self._home_of(g)
        files = g.some((f for f in self._active(home.path) if f.path.endswith(".md")), g.rng.choice((2, 3, 4)))
        g.need(len({f.size_kb for f in files}) == len(files))
        top = max(files, key=lambda f: f.size_kb)
        owner = self.persons[top.owner]
        g.know(paths=listed([f.path for f in files]), label="files")
        g.subgoal("look at the files", "the size and the owner of every file are known")
        with g.parallel():
            for file in files:
                other = ("find_files", {"name": file.name, "folder": file.folder})
                g.call("get_info", path=file.path, why=f"the size of {file.path} is in its information", fallback=other)
        g.subgoal("find the owner of the largest file", "the extension of the owner is known")
        g.call("find_person", who=owner.email, why=f"{top.path} is the largest, and its owner's extension is asked for")
        g.put(top=top.path, size=top.size_kb, name=owner.name, extension=owner.extension)
        g.tell(top.path, top.size_kb, owner.extension)

    @goal()
    def budget_left(self, g: Draft) -> None:
        """A column summed over several tables, against the budget in the brief."""
        home = self._home_of(g)
        first = g.rng.choice((1, 2))
        last = g.rng.choice((first + 1, first + 2))
        tables = [f"{home.path}/data/expenses-2026-{month:02d}.csv" for month in range(first, last + 1)]
        brief = self.files[f"{home.path}/brief.md"]
        budget = int(next(line for line in brief.content.splitlines() if line.startswith("Budget")).split()[1])
        spent = round(sum(added(path, "amount", self.files[path].content) for path in tables), 2)
        start, end = MONTHS[first - 1], MONTHS[last - 1]
        g.know(first_month=start, label="first month")
        g.know(last_month=end, label="last month")
        rule = g.constraint(f"only the expenses from {start} to {end} 2026 count", start, end)
        g.subgoal(
            "find the tables and the brief", f"the paths of the tables from {start} to {end} and of the brief are known", constraints=[rule]
        )
        with g.parallel():
            g.call("find_files", name="expenses-2026-*.csv", folder=home.path, why="the tables of expenses have to be found")
            g.call("find_files", name="brief.md", folder=home.path, why="the budget is in the brief, whose path has to be found")
        g.subgoal("add up the expenses", f"the sum of every month from {start} to {end} is known", constraints=[rule])
        with g.parallel():
            for path in tables:
                g.call(
                    "sum_column",
                    path=path,
                    column="amount",
                    why=f"the amounts in {path} have to be added up",
                    fallback=("read_file", {"path": path}),
                )
        g.subgoal("read the budget", "the budget is known", after=["find the tables and the brief"])
        other = ("search_text", {"text": "Budget:", "folder": home.path})
        g.call("read_file", path=brief.path, why="the brief says how high the budget is", fallback=other)
        g.put(spent=f"{spent:,.2f}", left=f"{budget - spent:,.2f}")
        g.tell(spent, round(budget - spent, 2))

    # --- changing content ---

    @goal()
    def fix_setting(self, g: Draft) -> None:
        """A value in a configuration file; half of the time the new value has to be asked for."""
        home = self._home_of(g)
        kind = g.rng.choice(("deploy", "backup"))
        file = self.files[f"{home.path}/{kind}.conf"]
        keys = [line.partition(" =")[0] for line in file.content.splitlines()]
        key = g.pick(name for name in keys if (setting(file.content, name) or "").isdigit())
        before = int(setting(file.content, key) or 0)
        value = str(before + g.rng.choice((64, 128) if key == "cache_mb" else (1, 2, 5, 10)))
        vague = g.rng.random() < 0.5
        g.put(kind=kind, key=key, before=before)
        g.know(value=value, label="new value", withheld=vague)
        if vague:
            g.variant("vague")
        only = g.constraint(f"nothing but {key} changes", key)
        g.subgoal("find the file", f"the path of the {kind} configuration is known")
        g.call(
            "find_files",
            name="*.conf",
            folder=home.path,
            why=f"the {kind} configuration has to be found",
            fallback=("list_folder", {"folder": home.path}),
        )
        g.subgoal("read the present value", f"the present value of {key} is known")
        g.call("read_file", path=file.path, why=f"the present value of {key} has to be seen before it is changed")
        g.subgoal("set the new value", f"{key} has the new value and the other lines are as before", constraints=[only])
        what = f"set {key} in {file.path} from {before} to {value}"
        g.call(
            "set_value",
            path=file.path,
            key=key,
            value=value,
            why=f"{key} is {before} and has to become {value}",
            confirm=what,
            check=("read_file", {"path": file.path}),
        )
        g.expect("files", file.path, content=self.files[file.path].content)
        g.put(path=file.path)
        g.tell(file.path, float(value))

    @goal()
    def note_decision(self, g: Draft) -> None:
        """A line at the end of a file, word for word; it may have to be asked for."""
        home = self._home_of(g)
        file = self.files[f"{home.path}/decisions.md"]
        plan = g.pick(plan for plan in PLANS if plan not in file.content)
        line = f"- {TODAY}: {plan}"
        vague = g.rng.random() < 0.5
        g.know(line=line, label="exact line", withheld=vague)
        if vague:
            g.variant("vague")
        g.subgoal("find the file", "the path of the file with the decisions is known")
        g.call(
            "find_files",
            name="decisions*",
            folder=home.path,
            why="the file with the decisions has to be found",
            fallback=("list_folder", {"folder": home.path}),
        )
        g.subgoal("read what is there", "the decisions so far are known and the new one is not among them")
        g.call("read_file", path=file.path, why="the decision might be written down already")
        g.subgoal("add the line", "the line is the last one of the file")
        g.call(
            "append_text",
            path=file.path,
            text=line,
            why="the decision is not in the file yet",
            confirm=f"add '{line}' at the end of {file.path}",
            check=("read_file", {"path": file.path}),
        )
        g.expect("files", file.path, content=f"{file.content}\n{line}")
        g.put(path=file.path, plan=plan)
        g.tell(file.path, plan)

    @goal()
    def replace_contact(self, g: Draft) -> None:
        """A name that stands in several files; one that is locked has to be left out."""
        home = self._home_of(g)
        brief = self.files[f"{home.path}/brief.md"]
        old = next(line for line in brief.content.splitlines() if line.startswith("Contact: ")).removeprefix("Contact: ")
        new = people(g.rng, 1)[0].name
        g.need(new != old and all(new not in file.content for file in self._active(home.path)))
        files = sorted((file for file in self._active(home.path) if old in file.content), key=lambda file: file.path)
        g.need(len(files) <= 5)  # a colleague of that name would be in the tables too
        free = [file for file in files if file.free]
        stuck = [file for file in files if not file.free]
        g.know(old=old, label="old contact")
        g.know(new=new, label="new contact")
        rule = g.constraint("locked files are left as they are", "locked")
        g.subgoal("find the files", f"all files that name {old} are known")
        g.call("search_text", text=old, folder=home.path, why=f"every file that names {old} has to be found")
        g.subgoal("look at every file", "it is known which files are locked", constraints=[rule])
        with g.parallel():
            for file in files:
                g.call("get_info", path=file.path, why=f"{file.path} may be locked or under legal hold")
        g.subgoal("replace the name", "every file that is not locked names the new contact", constraints=[rule])
        paths = listed([file.path for file in free])
        for number, file in enumerate(free):
            what = f"replace {old} with {new} in {paths}" if number == 0 else ""
            g.call(
                "replace_text",
                path=file.path,
                old=old,
                new=new,
                why=f"{file.path} still names {old} and may be changed",
                confirm=what,
                check=("read_file", {"path": file.path}),
            )
            g.expect("files", file.path, content=file.content.replace(old, new))
            g.tell(file.path)
        rest = "No file was locked."
        if stuck:
            rest = f"{stuck[0].path} is locked by {stuck[0].locked_by}, so I left it as it is."
            g.forbid("replace_text", "the file is locked", path=stuck[0].path)
            g.tell(stuck[0].path)
        g.put(paths=paths, rest=rest)

    @goal()
    def sum_up_quarter(self, g: Draft) -> None:
        """A new file from the sum over three tables, tagged and shared: every step needs the one before."""
        home = self._home_of(g)
        tables = [f"{home.path}/data/hours-2026-{month:02d}.csv" for month in (1, 2, 3)]
        hours = int(sum(added(path, "hours", self.files[path].content) for path in tables))
        title = home.path.rpartition("/")[2].title()
        owner, reader = g.some(self.persons, 2)
        access: Access = g.rng.choice(("view", "comment"))
        name = "hours-2026-q1.md"
        g.need(f"{home.path}/{name}" not in self.files)
        text = f"{title}, hours in the first quarter of 2026: {hours}"
        g.know(owner=owner.name, label="owner")
        g.know(reader=reader.name, label="reader")
        g.put(name=name, access=access, may=MAY[access], start=text.removesuffix(str(hours)).strip(), hours=hours)
        rule = g.constraint(f"{reader.name} gets {access} access and no more", reader.name, access)
        g.subgoal("find the tables and the people", "the paths of the tables and both addresses are known")
        with g.parallel():
            g.call("find_files", name="hours-2026-*.csv", folder=home.path, why="the tables of hours have to be found")
            g.call("find_person", who=owner.name, why=f"the address of {owner.name}, who is to own the file, is needed")
            g.call("find_person", who=reader.name, why=f"the address of {reader.name} is needed for the share")
        g.subgoal("add up the hours", "the sum of January, February and March is known")
        with g.parallel():
            for path in tables:
                g.call(
                    "sum_column",
                    path=path,
                    column="hours",
                    why=f"the hours in {path} have to be added up",
                    fallback=("read_file", {"path": path}),
                )
        g.subgoal("write the file", "the new file holds the sum and carries its tag")
        what = (
            f"write '{text}' to a new file {home.path}/{name} that belongs to {owner.name}, tag it, and give {reader.name} {access} access"
        )
        made = g.call(
            "create_file",
            folder=home.path,
            name=name,
            content=text,
            owner=owner.email,
            why="the sum is known and can be written down",
            confirm=what,
            check=("list_folder", {"folder": home.path}),
        )
        g.call(
            "tag_file", path=made["path"], tag="report", why="the new file has to be found under the tag report", check=info(made["path"])
        )
        g.subgoal("share the file", f"{reader.name} has {access} access to the file", constraints=[rule])
        g.call(
            "share_file",
            path=made["path"],
            email=reader.email,
            access=access,
            why=f"{reader.name} is to have {access} access",
            check=info(made["path"]),
        )
        g.expect(
            "files", made["path"], content=text, tags=["report"], shares=[{"email": reader.email, "access": access}], owner=owner.email
        )
        g.put(path=made["path"])
        g.tell(hours, made["path"], reader.name)

    # --- keeping order ---

    @goal()
    def archive_reports(self, g: Draft) -> None:
        """Last year's reports into a new folder; one is locked or under legal hold and stays."""
        home = self._home_of(g)
        project = home.path.rpartition("/")[2]
        reports = self._in(home.path, "report-2025-")
        free = [file for file in reports if file.free]
        stuck = next(file for file in reports if not file.free)
        rule = g.constraint("reports that are locked or under legal hold stay where they are", "locked", "legal hold")
        g.subgoal("find last year's reports", "all reports of 2025 are known")
        g.call(
            "find_files",
            name="report-2025-*",
            folder=home.path,
            why="the reports of 2025 have to be found",
            fallback=("list_folder", {"folder": home.path}),
        )
        g.subgoal("look at each report", "it is known which ones are locked or under legal hold", constraints=[rule])
        with g.parallel():
            for file in reports:
                g.call("get_info", path=file.path, why=f"{file.path} may be locked or under legal hold")
        g.subgoal("make the folder", "there is a folder for the project in the archive")
        names = listed([file.name for file in free])
        what = f"make the folder /archive/2025/{project} and move {names} into it, but leave {stuck.name} where it is"
        made = g.call(
            "create_folder",
            parent="/archive/2025",
            name=project,
            why="the archive of 2025 needs a folder for the project",
            confirm=what,
            check=("list_folder", {"folder": "/archive/2025"}),
        )
        g.subgoal("move the reports", "every report that is not locked or under legal hold is in the new folder", constraints=[rule])
        for file in free:
            moved = g.call(
                "move_file", path=file.path, to_folder=made["folder"], why=f"{file.path} is free to be moved", check=info(file.path)
            )
            g.expect("files", moved["path"], status="active", content=file.content)
            g.expect("files", file.path, status="moved", moved_to=moved["path"])
            g.tell(file.name)
        g.expect("folders", made["folder"])
        g.forbid("move_file", "it is locked or under legal hold", path=stuck.path)
        why = f"it is under legal hold {stuck.legal_hold}" if stuck.legal_hold else f"it is locked by {stuck.locked_by}"
        g.put(target=made["folder"], names=names, stuck=stuck.path, reason=why)
        g.tell(stuck.path, stuck.legal_hold or stuck.locked_by or "")

    @goal()
    def clear_duplicates(self, g: Draft) -> None:
        """Copies with the same content go, the newest stays. What is shared stays too, and midway somebody's copies."""
        home = self._home_of(g)
        drafts = f"{home.path}/drafts"
        first = g.pick(f for f in self._active(drafts) if f.name.endswith("-copy.md"))
        base = first.name.removesuffix("-copy.md")
        files = self._in(drafts, base)
        same = [file for file in files if file.content == first.content]
        newest = max(same, key=lambda file: file.modified_on)
        older = [file for file in same if file.path != newest.path]
        late = g.rng.random() < 0.5
        spared = g.pick(older) if late else None
        doomed = [file for file in older if not file.shares and file != spared]
        g.need(doomed)
        g.put(base=base)
        rule = g.constraint("the newest of the identical copies is kept", "newest", "identical")
        g.subgoal("find the copies", f"all files of {drafts} whose name begins with {base} are known")
        g.call(
            "find_files",
            name=f"{base}*",
            folder=home.path,
            why=f"all copies of {base} have to be found",
            fallback=("search_text", {"text": base.replace("-", " "), "folder": home.path}),
        )
        g.subgoal("compare the copies", "it is known which are identical and which is the newest of them", constraints=[rule])
        with g.parallel():
            for file in files:
                if file != newest:
                    g.call(
                        "compare_files",
                        first=newest.path,
                        second=file.path,
                        why=f"{file.path} is a duplicate only if its content is identical",
                    )
        keep: list[int] = [rule]
        if spared is not None:
            owner = self.persons[spared.owner]
            rule_owner = g.constraint(f"copies of {owner.name} are kept", owner.name)
            keep.append(rule_owner)
            g.interject(f"I forgot: whatever belongs to {owner.name} ({owner.email}) must stay, duplicate or not.", constraint=rule_owner)
        left = [file for file in older if file != spared]
        names = f", and nothing of {self.persons[spared.owner].name} is touched" if spared else ""
        g.subgoal("look at the older copies", "it is known whether they are shared", constraints=keep[1:])
        if spared is not None:
            g.subgoals[-1] = g.subgoals[-1].model_copy(update={"success": f"it is known whether they are shared{names}"})
        with g.parallel():
            for file in left:
                g.call("get_info", path=file.path, why=f"{file.path} must not be trashed if it is shared, locked or held")
        g.subgoal("trash the duplicates", f"the newest of the identical copies is left, with what has to stay{names}", constraints=keep)
        paths = listed([file.path for file in doomed])
        for number, file in enumerate(doomed):
            what = f"put {paths} into the trash and keep {newest.path}" if number == 0 else ""
            g.call(
                "trash_file",
                path=file.path,
                why=f"{file.path} is an older duplicate that nobody shares",
                confirm=what,
                check=info(file.path),
            )
            g.expect("files", file.path, status="in trash")
            g.tell(file.path)
        for file in same:
            if file not in doomed:
                g.forbid("trash_file", "it has to stay", path=file.path)
        shared = [file for file in left if file.shares]
        rest = f" {shared[0].path} is a duplicate too, but it is shared and so it stays." if shared else ""
        rest += f" I also left {spared.path}, which belongs to {self.persons[spared.owner].name}." if spared else ""
        g.put(paths=paths, newest=newest.path, rest=rest)
        g.tell(newest.path)

    @goal()
    def spare_the_draft(self, g: Draft) -> None:
        """Into the trash; no, rather into the archive: a change of mind once the file was looked at."""
        home = self._home_of(g)
        file = g.pick(f for f in self._in(f"{home.path}/drafts", "proposal-") if f.free and not f.shares)
        g.know(path=file.path, label="file")
        g.subgoal("look at the file", "it is known whether the file may be trashed")
        g.call("get_info", path=file.path, why="a file that is shared, locked or held must not be trashed")
        keep = g.constraint(f"{file.name} is kept, not trashed", file.name, "not trash")
        g.interject(
            f"Wait, don't throw {file.name} away after all. Put it into /archive/2025 and tag it 'superseded'.",
            constraint=keep,
            changes_goal=True,
        )
        g.subgoal("look at the archive", "no other file of that name is there")
        g.call(
            "list_folder",
            folder="/archive/2025",
            why=f"a file called {file.name} might be there already",
            fallback=("find_files", {"folder": "/archive/2025"}),
        )
        g.subgoal("move and tag the file", f"{file.name} is in the archive with its tag, and not trashed", constraints=[keep])
        what = f"move {file.path} to /archive/2025 and tag it 'superseded'"
        moved = g.call(
            "move_file",
            path=file.path,
            to_folder="/archive/2025",
            why=f"{file.name} is now to be kept in the archive",
            confirm=what,
            check=info(file.path),
        )
        g.call(
            "tag_file",
            path=moved["path"],
            tag="superseded",
            why="the tag says that the draft has been superseded",
            check=info(moved["path"]),
        )
        g.forbid("trash_file", "the user wants to keep it", path=file.path)
        g.expect("files", moved["path"], status="active", content=file.content, tags=sorted({*file.tags, "superseded"}))
        g.put(target=moved["path"])
        g.tell(moved["path"])

    # --- the trash and its room ---

    @goal()
    def bring_back(self, g: Draft) -> None:
        """A table out of the trash, and what it adds up to. Its path is not known."""
        home = self._home_of(g)
        file = g.pick(f for f in self._trash(home.path) if f.path.endswith(".csv"))
        total = int(added(file.path, "amount", file.content))
        g.subgoal("find the table in the trash", "the path of the trashed table is known")
        g.call("list_trash", folder=home.path, why="the table has to be found in the trash")
        g.subgoal("restore the table", "the table is active again")
        g.call(
            "restore_file",
            path=file.path,
            why=f"{file.path} is the only table in the trash",
            confirm=f"take {file.path} out of the trash",
            check=info(file.path),
        )
        g.expect("files", file.path, status="active", trashed_on=None)
        g.subgoal("add up the amounts", "the sum of the column amount is known")
        g.call(
            "sum_column",
            path=file.path,
            column="amount",
            why="the total is the sum of the column amount",
            fallback=("read_file", {"path": file.path}),
        )
        g.put(path=file.path, total=total)
        g.tell(file.path, total)

    @goal()
    def clear_trash(self, g: Draft) -> None:
        """Old trash goes for good, one by one, because the user wants one of the old files kept."""
        home = self._home_of(g)
        old = sorted((f for f in self._trash(home.path) if self._old_enough(f)), key=lambda f: (f.trashed_on or "", f.path))
        g.need(len(old) >= 2)
        spared = g.pick(old)
        doomed = [file for file in old if file != spared]
        g.subgoal("see the room and the trash", "the free space and the trashed files are known")
        with g.parallel():
            g.call("folder_usage", folder=home.path, why="the free space before is needed to see what is gained")
            g.call("list_trash", folder=home.path, why="it has to be seen what has been in the trash for 30 days")
        keep = g.constraint(f"{spared.name} is not purged", spared.name, "not purged")
        g.interject(f"One thing: {spared.name} must not be purged, I may need it again.", constraint=keep)
        age = g.constraint("only what has been in the trash for 30 days or more is purged", "30 days")
        g.subgoal(
            "purge the old files",
            f"all that was in the trash for 30 days is gone, but {spared.name} is not purged",
            constraints=[keep, age],
        )
        paths = listed([file.path for file in doomed])
        for number, file in enumerate(doomed):
            what = f"purge {paths} for good and keep {spared.path}" if number == 0 else ""
            g.call(
                "purge_file",
                path=file.path,
                why=f"{file.path} has been in the trash since {file.trashed_on}",
                confirm=what,
                check=info(file.path),
            )
            g.expect("files", file.path, status="purged")
            g.tell(file.path)
        g.forbid("purge_file", "the user may need it", path=spared.path)
        g.forbid("empty_trash", "it would purge a file that is to be kept")
        g.subgoal("see what is free now", "the free space after the purge is known")
        usage = g.call("folder_usage", folder=home.path, why="the free space has changed with the purge")
        g.put(paths=paths, spared=spared.path, free=usage["free_kb"])
        g.tell(usage["free_kb"])

    @goal()
    def make_room(self, g: Draft) -> None:
        """A copy that does not fit until the old trash is gone."""
        home = self._home_of(g)
        free = (home.quota_kb or 0) - self._used(home)
        gain = sum(file.size_kb for file in self._trash(home.path) if self._old_enough(file))
        others = (f for f in self.files if f.status == "active" and not inside(f.path, home.path) and free < f.size_kb <= free + gain)
        file = g.pick(f for f in others if f"{home.path}/{f.name}" not in self.files)
        g.know(path=file.path, label="file")
        g.subgoal("see whether the copy fits", "the size of the file and the free space are known")
        with g.parallel():
            g.call("get_info", path=file.path, why="the size of the file decides how much room it takes")
            g.call("folder_usage", folder=home.path, why="the quota of the folder decides whether the copy fits")
        only = g.constraint("only the old trash is purged to make room", "old trash")
        g.subgoal("look into the trash", "the old trash and its size are known", constraints=[only])
        g.call(
            "list_trash", folder=home.path, why=f"{file.size_kb} KB do not fit into {free} KB, so it has to be seen what the trash holds"
        )
        g.subgoal("make room", "the old trash is purged and the copy fits", constraints=[only])
        what = f"purge for good what has been in the trash of {home.path} for {PURGE_DAYS} days or more, which frees {gain} KB"
        done = g.call(
            "empty_trash",
            folder=home.path,
            why=f"purging the old trash frees {gain} KB, which is enough",
            confirm=what,
            check=("list_trash", {"folder": home.path}),
        )
        for path in done["purged"]:
            g.expect("files", path, status="purged")
        g.subgoal("copy the file", "the copy lies in the folder")
        copy = g.call(
            "copy_file", path=file.path, to_folder=home.path, why="there is room for it now", check=("list_folder", {"folder": home.path})
        )
        g.expect("files", copy["path"], status="active", content=file.content)
        g.put(copy=copy["path"], freed=gain)
        g.tell(copy["path"], gain)

    # --- versions ---

    def _versions_of(self, path: str) -> list[Version]:
        return sorted(self.versions.where(path=path), key=lambda one: (one.saved_on, one.id), reverse=True)

    @goal()
    def roll_back(self, g: Draft) -> None:
        """The version that named a certain budget; only reading them tells which it is."""
        home = self._home_of(g)
        file = self.files[f"{home.path}/brief.md"]
        saved = self._versions_of(file.path)
        wanted = g.pick(saved)
        budget = next(line for line in wanted.content.splitlines() if line.startswith("Budget")).split()[1]
        g.know(path=file.path, label="file")
        g.know(budget=budget, label="budget")
        safe = g.constraint("today's text is saved as a version before it is replaced", "saved")
        g.subgoal("list the versions", "the ids of all versions are known")
        g.call("list_versions", path=file.path, why="the ids of the versions are needed to read them")
        g.subgoal("find the right version", f"the version with the budget of {budget} is known")
        with g.parallel():
            for one in saved:
                g.call("read_version", version_id=one.id, why=f"{one.id} may be the one with the budget of {budget}")
            g.call("get_info", path=file.path, why="the file must be neither locked nor held if it is to change")
        g.subgoal("save the present text", "the present text is saved as a version", constraints=[safe])
        what = f"save the present text of {file.path} and put back {wanted.id} of {wanted.saved_on}"
        kept = g.call(
            "save_version",
            path=file.path,
            note=f"before going back to {wanted.id}",
            why="the present text must not be lost",
            confirm=what,
            check=("list_versions", {"path": file.path}),
        )
        g.subgoal("restore the version", f"the file names the budget of {budget} again")
        g.call(
            "restore_version",
            version_id=wanted.id,
            why=f"{wanted.id} is the one with the budget of {budget}",
            check=("read_file", {"path": file.path}),
        )
        g.expect("versions", kept["version_id"], path=file.path, content=file.content)
        g.expect("files", file.path, content=wanted.content)
        g.put(version=wanted.id, saved_on=wanted.saved_on, kept=kept["version_id"])
        g.tell(wanted.id, kept["version_id"])

    @goal()
    def thin_out_versions(self, g: Draft) -> None:
        """Old versions go for good; the newest, and an approved one, stay."""
        home = self._home_of(g)
        file = self.files[f"{home.path}/brief.md"]
        saved = self._versions_of(file.path)
        count = g.rng.choice((1, 2))
        doomed = [one for one in saved[count:] if not one.approved]
        approved = next(one for one in saved if one.approved)
        how_many = "the newest one" if count == 1 else "the two newest"
        g.know(path=file.path, label="file")
        g.put(how_many=how_many)
        rule = g.constraint("approved versions are kept", "approved")
        g.subgoal("look at the file", "the file is seen not to be under legal hold")
        g.call("get_info", path=file.path, why="versions of a file under legal hold must be kept")
        g.subgoal("list the versions", "the versions and which are approved are known", constraints=[rule])
        g.call("list_versions", path=file.path, why="it has to be seen which versions are old and which are approved")
        g.subgoal("delete the old versions", f"only {how_many} and approved ones are left", constraints=[rule])
        ids = listed([one.id for one in doomed])
        for number, one in enumerate(doomed):
            what = f"delete {ids} of {file.path} for good and keep the approved {approved.id}" if number == 0 else ""
            g.call(
                "delete_version",
                version_id=one.id,
                why=f"{one.id} of {one.saved_on} is old and not approved",
                confirm=what,
                check=("list_versions", {"path": file.path}),
            )
            g.expect("versions", one.id, status="deleted")
            g.tell(one.id)
        for one in saved:
            if one not in doomed:
                g.forbid("delete_version", "it has to be kept", version_id=one.id)
        g.put(ids=ids, approved=approved.id)
        g.tell(approved.id)

    # --- sharing ---

    @goal()
    def give_access(self, g: Draft) -> None:
        """Share with a colleague; what they may do has to be asked for half of the time."""
        home = self._home_of(g)
        file = g.pick(f for f in self._active(home.path) if "confidential" not in f.tags and "/data/" not in f.path)
        person = g.pick(p for p in self.persons if p.email not in [s.email for s in file.shares])
        access: Access = g.rng.choice(("view", "comment", "edit"))
        vague = g.rng.random() < 0.5
        g.know(person=person.name, label="colleague")
        g.know(access=access, label="access level", withheld=vague)
        if vague:
            g.variant("vague")
        g.subgoal("find the colleague", f"the address of {person.name} is known")
        g.call("find_person", who=person.name, why=f"the address of {person.name} is needed")
        g.subgoal("find the file", f"the path of {file.name} is known")
        g.call(
            "find_files",
            name=file.name,
            folder=home.path,
            why=f"the path of {file.name} has to be found",
            fallback=("list_folder", {"folder": home.path}) if file.folder == home.path else None,
        )
        g.subgoal("look at the file", "its tags and present shares are known")
        g.call("get_info", path=file.path, why="its tags decide how it may be shared")
        inside_only = g.constraint("the file is shared inside of the company only", "company")
        g.subgoal("share the file", f"{person.name}, who is with the company, has access to the file", constraints=[inside_only])
        what = f"share {file.path} with {person.name} ({person.email}), with {access} access"
        g.call(
            "share_file",
            path=file.path,
            email=person.email,
            access=access,
            why=f"{person.name} is a colleague and the file may be shared",
            confirm=what,
            check=info(file.path),
        )
        shares = [*file.shares, Share(person.email, access)]
        g.expect("files", file.path, shares=[{"email": one.email, "access": one.access} for one in shares])
        g.put(name=file.name, path=file.path, email=person.email, may=MAY[access])
        g.tell(file.path, person.email, access)

    # --- what cannot be done ---

    @goal(kinds=("tool_call",))
    def refuse_outside_share(self, g: Draft) -> None:
        """Somebody outside of the company is to get a file."""
        home = self._home_of(g)
        file = g.pick(f for f in self._active(home.path) if f.path.endswith(".md"))
        outsider = people(g.rng, 1)[0]
        email = f"{outsider.handle}@{g.rng.choice(('partner', 'client', 'freelance'))}.example"
        g.know(path=file.path, label="file")
        g.put(email=email, outsider=outsider.name)
        g.call("get_info", path=file.path, why="the file has to be looked at before anything is said about sharing it")
        g.refuse()
        g.forbid("share_file", "the address is outside of the company")
        g.tell("halden.example", CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_held(self, g: Draft) -> None:
        """A file under legal hold is to go."""
        file = g.pick(f for f in self.files if f.legal_hold)
        g.know(path=file.path, label="file")
        g.call("get_info", path=file.path, why="a lock, a hold or a share decides whether it may be trashed")
        g.refuse()
        g.forbid("trash_file", "the file is under legal hold")
        g.forbid("move_file", "the file is under legal hold")
        g.put(hold=file.legal_hold)
        g.tell("legal hold", file.legal_hold or "", CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_shared(self, g: Draft) -> None:
        """A file that others use is to go."""
        file = g.pick(f for f in self.files if f.free and f.shares)
        g.know(path=file.path, label="file")
        g.call("get_info", path=file.path, why="a file that is shared must not be trashed")
        g.refuse()
        g.forbid("trash_file", "the file is shared")
        g.put(reader=file.shares[0].email)
        g.tell("shared", file.shares[0].email, CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_young_trash(self, g: Draft) -> None:
        """Purged at once? It has not been in the trash for long enough."""
        file = g.pick(f for f in self.files if f.status == "in trash" and not self._old_enough(f))
        g.know(path=file.path, label="file")
        g.call("get_info", path=file.path, why="the day on which it was trashed decides whether it may be purged")
        g.refuse()
        g.forbid("purge_file", "it has not been in the trash for 30 days")
        allowed = date.fromisoformat(file.trashed_on or "") + timedelta(days=PURGE_DAYS)
        g.put(trashed_on=file.trashed_on, allowed=allowed)
        g.tell("30 days", file.trashed_on or "", CANNOT)

    @goal(kinds=("tool_call",))
    def no_such_service(self, g: Draft) -> None:
        """Nothing here does that: no call at all."""
        thing = g.rng.choice(SERVICES)
        g.put(thing=thing)
        g.refuse()
        g.tell(CANNOT)
