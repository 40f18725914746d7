"""The help desk: employees, their accounts and devices, tickets, services, software, and the desk's tools."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from tracemill.generators.environments.base import Environment, Row, Table, ToolError
from tracemill.generators.environments.people import Person, people
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

TODAY = date(2026, 5, 14)
WARRANTY_DAYS = 3 * 365
MAX_OPEN = 8
"""Open tickets that one technician may have."""

Department = Literal["Finance", "Sales", "Engineering", "Marketing", "Operations", "Legal"]
Category = Literal["account", "access", "hardware", "software", "service", "lost or stolen"]
Team = Literal["identity", "devices", "applications", "operations", "security"]
Priority = Literal["low", "normal", "high"]
TicketStatus = Literal["new", "in progress", "waiting for user", "closed"]
Resolution = Literal["solved", "found again", "no longer needed"]
DeviceKind = Literal["laptop", "phone"]
ServiceName = Literal[
    "VPN", "e-mail", "wiki", "file share", "single sign-on", "video conferencing", "print queue", "expense tool", "build server",
    "travel portal",
]  # fmt: skip
SoftwareKind = Literal["statistics", "diagrams", "photo editing", "PDF editing", "project planning", "video editing"]

DEPARTMENTS: tuple[Department, ...] = get_args(Department)
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)
TEAM_OF: dict[Category, Team] = {
    "account": "identity",
    "access": "identity",
    "hardware": "devices",
    "software": "applications",
    "service": "operations",
    "lost or stolen": "security",
}
TITLES: dict[Department, tuple[str, ...]] = {
    "Finance": ("accountant", "controller", "analyst"),
    "Sales": ("account manager", "sales assistant", "key account manager"),
    "Engineering": ("developer", "test engineer", "site engineer"),
    "Marketing": ("designer", "editor", "campaign manager"),
    "Operations": ("planner", "dispatcher", "buyer"),
    "Legal": ("counsel", "paralegal", "contract manager"),
}
GROUPS: tuple[tuple[str, bool, Department], ...] = (  # name, privileged, the department whose head owns it
    ("all-staff-mail", False, "Operations"),
    ("remote-workers", False, "Operations"),
    ("ledger-view", False, "Finance"),
    ("ledger-post", True, "Finance"),
    ("payment-runs", True, "Finance"),
    ("crm-users", False, "Sales"),
    ("crm-export", True, "Sales"),
    ("code-readers", False, "Engineering"),
    ("prod-deploy", True, "Engineering"),
    ("build-admins", True, "Engineering"),
    ("brand-assets", False, "Marketing"),
    ("newsletter-send", True, "Marketing"),
    ("warehouse-view", False, "Operations"),
    ("warehouse-adjust", True, "Operations"),
    ("contract-archive", False, "Legal"),
    ("contract-signoff", True, "Legal"),
)
EVERYONE = ("all-staff-mail", "remote-workers")
PROGRAMS: dict[SoftwareKind, tuple[tuple[str, float, int, tuple[Department, ...]], ...]] = {  # name, cost, memory, departments
    "statistics": (("Tallyplot", 18.0, 8, ()), ("Meanwise", 24.0, 8, ()), ("Regressa", 32.0, 16, ("Finance", "Engineering"))),
    "diagrams": (("Boxline", 9.0, 8, ()), ("Chartmason", 12.5, 8, ()), ("Nodeweaver", 14.5, 16, ())),
    "photo editing": (("Pixelry", 16.0, 8, ("Marketing", "Sales")), ("Lumenworks", 21.0, 16, ()), ("Darkroom One", 27.5, 16, ())),
    "PDF editing": (("Leafpress", 6.5, 8, ()), ("Foliomark", 8.0, 8, ()), ("Quirepad", 11.0, 8, ("Legal", "Finance"))),
    "project planning": (("Mileboard", 10.0, 8, ()), ("Taskloom", 13.0, 8, ()), ("Ganttry", 19.5, 16, ("Operations", "Engineering"))),
    "video editing": (("Cutbench", 22.0, 16, ()), ("Framewright", 29.0, 16, ()), ("Reelhaus", 35.0, 32, ("Marketing",))),
}
MODELS: tuple[tuple[str, DeviceKind, int, float], ...] = (
    ("Lapwing 13", "laptop", 8, 640.0),
    ("Lapwing 15", "laptop", 16, 820.0),
    ("Heron 14", "laptop", 16, 990.0),
    ("Heron 16", "laptop", 32, 1380.0),
    ("Osprey 14", "laptop", 32, 1290.0),
    ("Osprey 16", "laptop", 64, 1940.0),
    ("Wren 5", "phone", 6, 320.0),
    ("Wren 6", "phone", 8, 460.0),
    ("Finch Plus", "phone", 8, 590.0),
)
WORKAROUNDS: dict[ServiceName, tuple[str, str]] = {  # what to do, and the words that matter
    "VPN": ("In the client, choose gateway GW-7 instead of the default.", "GW-7"),
    "e-mail": ("Use the web mailbox at mail2.tarnfield.example until the client connects again.", "mail2.tarnfield.example"),
    "wiki": ("Read the copy at wiki-copy.tarnfield.example; it cannot be edited.", "wiki-copy.tarnfield.example"),
    "file share": ("Map drive R: in place of drive S:; it is served by the standby machine.", "drive R"),
    "single sign-on": ("Sign in at login-b.tarnfield.example, which does not depend on the main server.", "login-b.tarnfield.example"),
    "video conferencing": ("Dial in by phone on extension 7700 and enter the meeting number.", "7700"),
    "print queue": ("Send the job to the queue FLOOR-2 and collect it there.", "FLOOR-2"),
    "expense tool": ("Fill in form F-19 and hand it to the finance desk.", "F-19"),
    "build server": ("Give the job the label STANDBY to run it on the spare machine.", "STANDBY"),
    "travel portal": ("Call the travel desk on extension 7311 for bookings within the week.", "7311"),
}
HOW_TO: tuple[tuple[str, str, str], ...] = (  # topic, what to do, the words that matter
    ("connect a second screen", "Plug it into the dock, press F9 and pick 'extend'.", "F9"),
    ("join the guest wireless network", "Choose TARN-GUEST and ask the reception for the code of the day.", "TARN-GUEST"),
    ("record a meeting", "The host presses R6 in the toolbar; the file is in the team folder within an hour.", "R6"),
    ("encrypt a memory stick", "Right-click the drive, choose 'lock with VaultKey', and set a phrase of 14 characters.", "VaultKey"),
    ("set an out-of-office reply", "Open the mailbox rules, tab 4, and enter the dates.", "tab 4"),
    ("share a large file", "Put it on DropDock; the link works for 7 days.", "DropDock"),
    ("move to a new phone", "Open PhoneShift on the old phone, then scan its code with the new one.", "PhoneShift"),
    ("book a meeting room", "Add the room as a guest; rooms on floor 3 need the approval of the reception.", "floor 3"),
)
SUBJECTS: dict[Category, tuple[str, ...]] = {
    "account": ("Cannot sign in since this morning", "Name is spelled wrongly in the directory", "Code on the phone is not accepted"),
    "access": ("Folder of the team is not visible", "Report opens with 'no permission'", "Shared mailbox is missing"),
    "hardware": ("Battery lasts twenty minutes", "Screen flickers", "Keyboard misses letters", "Fan is very loud"),
    "software": ("Program closes when saving", "Update asks for a password", "Macro stopped working"),
    "service": ("Pages load very slowly", "Connection drops every hour", "Nothing is printed"),
    "lost or stolen": ("Left on the train", "Taken from the car", "Missing since the trade fair"),
}
TROUBLE = (
    "slow for many users",
    "unreachable from the branch offices",
    "failing after the nightly update",
    "rejecting about half of all requests",
)

Badge = Annotated[str, Field(pattern=r"^\d{6}$", description="Six-digit number on the employee's badge; only the employee can tell it.")]
EmployeeId = Annotated[str, Field(pattern=r"^EMP-\d{4}$", description="Employee id, such as 'EMP-1042', as the look-ups return it.")]
AccountId = Annotated[str, Field(pattern=r"^AC-\d{4}$", description="Account id, such as 'AC-3042'; it stands in the employee record.")]
DeviceId = Annotated[str, Field(pattern=r"^(LT|PH)-\d{4}$", description="Device id: 'LT-2041' is a laptop, 'PH-2042' a phone.")]
TicketId = Annotated[str, Field(pattern=r"^TCK-\d{5}$", description="Ticket number, such as 'TCK-30421'.")]
GroupId = Annotated[str, Field(pattern=r"^GRP-\d{2}$", description="Group id, such as 'GRP-14'.")]
RequestId = Annotated[str, Field(pattern=r"^REQ-\d{4}$", description="Access request, such as 'REQ-5012'.")]
SoftwareId = Annotated[str, Field(pattern=r"^SW-\d{3}$", description="Software id, such as 'SW-102'.")]
HardwareId = Annotated[str, Field(pattern=r"^HW-\d{2}$", description="Hardware id, such as 'HW-31'.")]
TechnicianId = Annotated[str, Field(pattern=r"^TECH-\d{2}$", description="Technician id, such as 'TECH-12'.")]
Day = Annotated[str, Field(json_schema_extra={"format": "date"}, description="A date, such as '2026-06-30'.")]


@dataclass(frozen=True)
class Employee(Row):
    id: str
    name: str
    email: str
    department: Department
    title: str
    manager_id: str | None
    cost_centre_id: str
    account_id: str
    phone_ending: str
    badge: str


@dataclass(frozen=True)
class Membership(Row):
    group_id: str
    name: str
    until: str | None = None


@dataclass(frozen=True)
class Account(Row):
    id: str
    employee_id: str
    state: Literal["active", "locked", "security hold"]
    failed_logins: int
    sessions: int
    password_changed: str
    groups: tuple[Membership, ...]


@dataclass(frozen=True)
class Installed(Row):
    software_id: str
    name: str


@dataclass(frozen=True)
class Device(Row):
    id: str
    employee_id: str
    kind: DeviceKind
    model: str
    memory_gb: int
    os_version: str
    warranty_until: str
    status: Literal["in use", "lost", "wiped"]
    software: tuple[Installed, ...] = ()


@dataclass(frozen=True)
class Group(Row):
    id: str
    name: str
    privileged: bool
    owner_id: str


@dataclass(frozen=True)
class AccessRequest(Row):
    id: str
    employee_id: str
    group_id: str
    group: str
    status: Literal["pending", "approved", "declined", "fulfilled"]
    approver_id: str
    requested_on: str
    decided_on: str | None
    reason: str
    volatile = ("reason",)


@dataclass(frozen=True)
class Software(Row):
    id: str
    name: str
    category: SoftwareKind
    monthly_cost: float
    min_memory_gb: int
    open_to: tuple[Department, ...]  # empty: everyone
    seats: int
    used: int


@dataclass(frozen=True)
class Hardware(Row):
    id: str
    name: str
    kind: DeviceKind
    memory_gb: int
    price: float
    stock: int
    lead_days: int


@dataclass(frozen=True)
class CostCentre(Row):
    id: str
    department: Department
    budget_left: float


@dataclass(frozen=True)
class Order(Row):
    id: str
    employee_id: str
    hardware_id: str
    replaces: str
    ticket_id: str
    price: float
    arrives_on: str


@dataclass(frozen=True)
class Service(Row):
    id: str
    name: ServiceName
    status: Literal["operational", "degraded", "down"]
    incident_id: str | None


@dataclass(frozen=True)
class Incident(Row):
    id: str
    service: ServiceName
    summary: str
    started_on: str
    expected_by: str


@dataclass(frozen=True)
class Article(Row):
    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Technician(Row):
    id: str
    name: str
    team: Team


@dataclass(frozen=True)
class Ticket(Row):
    id: str
    employee_id: str
    category: Category
    subject: str
    priority: Priority
    status: TicketStatus
    opened_on: str
    device_id: str | None = None
    service: ServiceName | None = None
    incident_id: str | None = None
    technician_id: str | None = None
    resolution: Resolution | None = None
    note: str = ""
    volatile = ("subject", "note")


def working_day(days: int) -> str:
    """The date that many working days after today."""
    day = TODAY
    while days:
        day += timedelta(days=1)
        days -= day.weekday() < 5
    return day.isoformat()


class HelpdeskTools(Environment):
    """State and tools; the goals are in goals.py."""

    name = "helpdesk"
    policy = Path(__file__).parent / "policy.md"
    words = Path(__file__).parent / "words.yaml"
    departments = ("security", "devices", "identity")

    employees: Table[Employee]
    accounts: Table[Account]
    devices: Table[Device]
    groups: Table[Group]
    access_requests: Table[AccessRequest]
    software: Table[Software]
    hardware: Table[Hardware]
    cost_centres: Table[CostCentre]
    orders: Table[Order]
    services: Table[Service]
    incidents: Table[Incident]
    articles: Table[Article]
    technicians: Table[Technician]
    tickets: Table[Ticket]

    # --- the world ---

    def build(self, rng: random.Random) -> None:
        crowd = people(rng, 64)
        self._build_catalogue(rng)
        self._build_services(rng)
        for number, person in enumerate(crowd[52:], 11):
            self.technicians.put(Technician(f"TECH-{number}", person.name, get_args(Team)[number % 5]))
        self._build_staff(rng, crowd[:52])
        self._build_accounts(rng)
        self._build_devices(rng)
        self._build_tickets(rng)

    def _build_catalogue(self, rng: random.Random) -> None:
        for number, (model, kind, memory, price) in enumerate(MODELS, 31):
            asked = round(price * rng.choice((0.9, 0.95, 1, 1.05)), 2)
            self.hardware.put(Hardware(f"HW-{number}", model, kind, memory, asked, rng.choice((0, 2, 4, 9, 15)), rng.randint(2, 7)))
        for number, department in enumerate(DEPARTMENTS, 1):
            self.cost_centres.put(CostCentre(f"CC-{number}10", department, float(rng.randrange(850, 4200, 25))))
        for shelf, (category, programs) in enumerate(PROGRAMS.items(), 1):
            for place, (name, cost, memory, open_to) in enumerate(programs, 1):
                used = rng.randint(4, 30)
                free = rng.choice((0, 0, 1, 3, 8))
                asked = round(cost * rng.choice((1, 1, 1.2)), 2)
                self.software.put(Software(f"SW-{shelf}0{place}", name, category, asked, memory, open_to, used + free, used))

    def _build_services(self, rng: random.Random) -> None:
        shaky = rng.sample(SERVICES, 4)
        incident = rng.randint(40, 90)
        for number, name in enumerate(SERVICES, 1):
            if name not in shaky:
                self.services.put(Service(f"SVC-{number:02}", name, "operational", None))
                continue
            incident += rng.randint(1, 4)
            started = TODAY - timedelta(days=rng.randint(0, 2))
            found = Incident(
                f"INC-{incident}", name, f"{name} is {rng.choice(TROUBLE)}", started.isoformat(), working_day(rng.randint(1, 4))
            )
            self.incidents.put(found)
            self.services.put(Service(f"SVC-{number:02}", name, "degraded" if rng.random() < 0.5 else "down", found.id))
        for number, (service, (text, _)) in enumerate(WORKAROUNDS.items(), 101):
            self.articles.put(Article(f"KB-{number}", f"Workaround when {service} is not available", text))
        for number, (topic, text, _) in enumerate(HOW_TO, 121):
            self.articles.put(Article(f"KB-{number}", f"How to {topic}", text))

    def _build_staff(self, rng: random.Random, crowd: list[Person]) -> None:
        number = rng.randint(1000, 1400)
        heads: dict[Department, str] = {}
        badges = rng.sample(range(100_000, 1_000_000), len(crowd))
        for place, person in enumerate(crowd):
            number += rng.randint(1, 9)
            department = DEPARTMENTS[place % len(DEPARTMENTS)]
            head = heads.get(department)
            heads.setdefault(department, f"EMP-{number}")
            title = rng.choice(TITLES[department]) if head else f"head of {department}"
            centre = f"CC-{DEPARTMENTS.index(department) + 1}10"
            self.employees.put(
                Employee(
                    f"EMP-{number}", person.name, f"{person.handle}@tarnfield.example", department, title, head, centre,
                    f"AC-{number + 2000}", f"{rng.randint(1000, 9999)}", f"{badges[place]}",
                )
            )  # fmt: skip
        for place, (name, privileged, department) in enumerate(GROUPS, 11):
            self.groups.put(Group(f"GRP-{place}", name, privileged, heads[department]))

    def _build_accounts(self, rng: random.Random) -> None:
        staff = list(self.employees)
        reports = [one for one in staff if one.manager_id]
        locked = {one.id for one in rng.sample(reports, 11)}
        held = set(rng.sample(sorted(locked), 4))
        everyone = [one for one in self.groups if one.name in EVERYONE]
        open_groups = [one for one in self.groups if not one.privileged and one.name not in EVERYONE]
        closed_groups = [one for one in self.groups if one.privileged]
        trusted = {one.id for one in rng.sample(reports, 12)}
        number = rng.randint(5000, 5400)
        asking = rng.sample(reports, 28)
        for employee in staff:
            held_groups = everyone + rng.sample(open_groups, rng.randint(0, 2))
            if employee.id in trusted:
                extra = rng.sample(closed_groups, rng.randint(1, 3))
                held_groups += extra
                for group in extra:
                    number += rng.randint(1, 5)
                    self._build_request(rng, f"REQ-{number}", employee, group, "fulfilled")
            state: Literal["active", "locked", "security hold"] = "active"
            if employee.id in locked:
                state = "security hold" if employee.id in held else "locked"
            memberships = tuple(Membership(one.id, one.name) for one in held_groups)
            changed = (TODAY - timedelta(days=rng.randint(5, 300))).isoformat()
            failed = 0 if state == "active" else rng.randint(5, 9)
            sessions = rng.randint(1, 4) if state == "active" else 0
            self.accounts.put(Account(employee.account_id, employee.id, state, failed, sessions, changed, memberships))
        for place, employee in enumerate(asking):
            member_of = {one.group_id for one in self.accounts[employee.account_id].groups}
            pool = [one for one in (open_groups, closed_groups)[place % 2] if one.id not in member_of]
            number += rng.randint(1, 5)
            self._build_request(
                rng,
                f"REQ-{number}",
                employee,
                rng.choice(pool),
                ("pending", "approved", "approved")[place // 2 % 3] if place < 25 else "declined",
            )

    def _build_request(self, rng: random.Random, id: str, employee: Employee, group: Group, status: str) -> None:
        requested = TODAY - timedelta(days=rng.randint(3, 20) if status != "fulfilled" else rng.randint(30, 400))
        decided = None if status == "pending" else (requested + timedelta(days=rng.randint(0, 2))).isoformat()
        reason = rng.choice(("new duties", "cover during leave", "project work", "month-end closing"))
        self.access_requests.put(
            AccessRequest(
                id, employee.id, group.id, group.name, status, self._approver(employee, group), requested.isoformat(), decided, reason,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    def _build_devices(self, rng: random.Random) -> None:
        laptops = [one for one in MODELS if one[1] == "laptop"]
        phones = [one for one in MODELS if one[1] == "phone"]
        number = rng.randint(2000, 4000)
        titles = list(self.software)
        for employee in self.employees:
            allowed = [one for one in titles if _may_use(one, employee.department)]
            kit = [(rng.choice(laptops), rng.randint(20, 1500))]
            if rng.random() < 0.35:
                kit.append((rng.choice([one for one in laptops if one != kit[0][0]]), rng.randint(700, 1900)))
            if rng.random() < 0.6:
                kit.append((rng.choice(phones), rng.randint(20, 1400)))
            for (model, kind, memory, _), age in kit:
                number += rng.randint(1, 9)
                until = (TODAY - timedelta(days=age) + timedelta(days=WARRANTY_DAYS)).isoformat()
                programs: tuple[Installed, ...] = ()
                if kind == "laptop":
                    fitting = [one for one in allowed if one.min_memory_gb <= memory]
                    programs = tuple(Installed(s.id, s.name) for s in rng.sample(fitting, rng.randint(0, 3)))
                version = f"{rng.randint(11, 15)}.{rng.randint(0, 6)}"
                mark = "LT" if kind == "laptop" else "PH"
                self.devices.put(Device(f"{mark}-{number}", employee.id, kind, model, memory, version, until, "in use", programs))
        counts = Counter(one.software_id for device in self.devices for one in device.software)
        for title in titles:  # every installed copy holds a seat, whatever was drawn before
            more = max(0, counts[title.id] - title.used)
            self.software.update(title, seats=title.seats + more, used=title.used + more)

    def _build_tickets(self, rng: random.Random) -> None:
        number = rng.randint(20000, 60000)
        load: Counter[str] = Counter()
        teams = {team: [one.id for one in self.technicians.where(team=team)] for team in TEAM_OF.values()}
        healthy = [one.name for one in self.services if not one.incident_id]

        def add(employee: str, category: Category, status: TicketStatus, device: str | None = None) -> None:
            nonlocal number
            number += rng.randint(1, 60)
            age = rng.randint(0, 12) if status != "closed" else rng.randint(10, 90)
            priority: Priority = "high" if category == "lost or stolen" else "normal" if rng.random() < 0.75 else "low"
            service = rng.choice(healthy) if category == "service" else None
            team = teams[TEAM_OF[category]]
            free = [one for one in team if load[one] < MAX_OPEN - 1]
            if status in ("in progress", "waiting for user") and not free:
                status = "new"
            technician = rng.choice(team if status == "closed" else free) if status != "new" else None
            if technician and status != "closed":
                load[technician] += 1
            self.tickets.put(
                Ticket(
                    f"TCK-{number}", employee, category, rng.choice(SUBJECTS[category]), priority, status,
                    (TODAY - timedelta(days=age)).isoformat(), device, service, None, technician, "solved" if status == "closed" else None,
                )
            )  # fmt: skip

        for account in self.accounts.where(state="locked"):
            add(account.employee_id, "account", "in progress")
        lost = rng.sample(list(self.devices), 6)
        for device in lost:
            add(device.employee_id, "lost or stolen", "in progress", device.id)
            self.devices.update(device, status="lost")
        gone = {one.id for one in lost}
        aged = [one for one in self.devices if one.id not in gone and one.warranty_until < TODAY.isoformat()]
        for device in rng.sample(aged, min(12, len(aged))):
            add(device.employee_id, "hardware", rng.choice(("new", "in progress")), device.id)
        staff = list(self.employees)
        plain: tuple[Category, ...] = ("account", "access", "software", "software", "service")
        states: tuple[TicketStatus, ...] = ("new", "new", "in progress", "waiting for user", "closed", "closed", "closed")
        for _ in range(80):
            add(rng.choice(staff).id, rng.choice(plain), rng.choice(states))

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        for row in changed:
            if isinstance(row, Account):
                yield from self._account_problems(row)
            if isinstance(row, Device) and row.status == "wiped":
                if row.software:
                    yield f"device {row.id} is wiped and yet has software"
                if not self.tickets.where(device_id=row.id, category="lost or stolen"):
                    yield f"device {row.id} is wiped without a lost-or-stolen ticket"
            if isinstance(row, Software) and not 0 <= row.used <= row.seats:
                yield f"{row.name}: {row.used} of {row.seats} seats would be in use"
            if isinstance(row, Hardware) and row.stock < 0:
                yield f"{row.name} would have a negative stock"
            if isinstance(row, CostCentre) and row.budget_left < 0:
                yield f"cost centre {row.id} would be overdrawn"
            if isinstance(row, AccessRequest):
                if row.approver_id == row.employee_id:
                    yield f"request {row.id} would be decided by the person who made it"
                if (row.status == "pending") != (row.decided_on is None):
                    yield f"request {row.id}: status and date of decision contradict each other"
            if isinstance(row, Ticket):
                if row.status == "closed" and not (row.technician_id and row.resolution):
                    yield f"ticket {row.id} would be closed without a technician or a resolution"
                if row.technician_id and self._load(row.technician_id) > MAX_OPEN:
                    yield f"technician {row.technician_id} would have more than {MAX_OPEN} open tickets"

    def _account_problems(self, account: Account) -> Iterator[str]:
        if account.sessions < 0 or (account.sessions and account.state != "active"):
            yield f"account {account.id} is {account.state} with {account.sessions} sessions"
        ids = [one.group_id for one in account.groups]
        if len(ids) != len(set(ids)):
            yield f"account {account.id} would be twice in a group"
        for id in ids:
            if self.groups[id].privileged and not self.access_requests.where(
                employee_id=account.employee_id, group_id=id, status="fulfilled"
            ):
                yield f"account {account.id} would be in the privileged group {id} without a request"

    # --- people ---

    @tool("read")
    def find_employee_by_email(
        self, email: Annotated[str, Field(json_schema_extra={"format": "email"}, description="Company e-mail address.")]
    ) -> Json:
        """Find an employee by e-mail address."""
        for one in self.employees.where(email=email.lower()):
            return {"employee_id": one.id, "name": one.name, "department": one.department}
        raise ToolError("not_found", f"no employee has the e-mail {email!r}")

    @tool("read")
    def find_employee_by_name(self, name: Annotated[str, Field(description="First and last name.")], department: Department) -> Json:
        """Find an employee by full name and department."""
        for one in self.employees.where(department=department):
            if one.name.lower() == name.lower():
                return {"employee_id": one.id, "name": one.name, "department": one.department}
        raise ToolError("not_found", f"no employee named {name!r} in {department}")

    @tool("read")
    def get_employee(self, employee_id: EmployeeId) -> Json:
        """Department, manager, account and cost centre of an employee."""
        one = self.employees[employee_id]
        manager = self.employees.get(one.manager_id) if one.manager_id else None
        return {
            "employee_id": one.id, "name": one.name, "email": one.email, "department": one.department, "title": one.title,
            "manager_id": one.manager_id, "manager": manager.name if manager else None, "account_id": one.account_id,
            "cost_centre_id": one.cost_centre_id, "phone_ending": one.phone_ending,
        }  # fmt: skip

    # --- accounts ---

    @tool("read")
    def get_account(self, account_id: AccountId) -> Account:
        """State of an account, its sessions, and the groups it is in."""
        return self.accounts[account_id]

    @tool("irreversible")
    def reset_password(self, account_id: AccountId, badge_number: Badge) -> Json:
        """Set a temporary password and send it to the employee's phone. All sessions end; a locked account is open again."""
        account, employee = self._identified(account_id, badge_number)
        self.accounts.update(account, state="active", failed_logins=0, sessions=0, password_changed=TODAY.isoformat())
        return {
            "account_id": account.id,
            "state": "active",
            "sessions_ended": account.sessions,
            "sent_to": f"phone ending in {employee.phone_ending}",
        }

    @tool("write")
    def unlock_account(self, account_id: AccountId, badge_number: Badge) -> Json:
        """Open an account that was locked by failed sign-ins; the password stays."""
        account, _ = self._identified(account_id, badge_number)
        if account.state != "locked":
            raise ToolError("not_allowed", f"account {account.id} is {account.state}; there is nothing to unlock")
        self.accounts.update(account, state="active", failed_logins=0)
        return {"account_id": account.id, "state": "active", "failed_logins": 0}

    def _identified(self, account_id: str, badge: str) -> tuple[Account, Employee]:
        account = self.accounts[account_id]
        employee = self.employees[account.employee_id]
        if employee.badge != badge:
            raise ToolError("not_allowed", "the badge number does not belong to this account")
        if account.state == "security hold":
            raise ToolError("not_allowed", f"account {account.id} is on security hold; only the security team can release it")
        return account, employee

    # --- groups and access requests ---

    @tool("read")
    def get_group(self, name: Annotated[str, Field(description="Name of the group, such as 'ledger-view'.")]) -> Json:
        """A group by its name: whether it is privileged, and who owns it."""
        for one in self.groups.where(name=name.lower()):
            approver = "manager of the person who asks" if one.privileged else "owner of the group"
            owner = self.employees[one.owner_id]
            return {"group_id": one.id, "name": one.name, "privileged": one.privileged, "owner": owner.name, "approved_by": approver}
        raise ToolError("not_found", f"no group is named {name!r}")

    @tool("read")
    def list_access_requests(self, employee_id: EmployeeId) -> list[AccessRequest]:
        """The latest access requests of an employee, newest first, with status and approver."""
        found = self.access_requests.where(employee_id=self.employees[employee_id].id)
        return sorted(found, key=lambda one: (one.requested_on, one.id), reverse=True)[:5]

    @tool("read")
    def get_access_request(self, request_id: RequestId) -> AccessRequest:
        """One access request: who asks for which group, its status and approver."""
        return self.access_requests[request_id]

    @tool("write")
    def request_access(self, employee_id: EmployeeId, group_id: GroupId, reason: str) -> Json:
        """Ask for membership in a group on an employee's behalf. The request waits for its approver."""
        employee, group = self.employees[employee_id], self.groups[group_id]
        if group.id in [one.group_id for one in self.accounts[employee.account_id].groups]:
            raise ToolError("conflict", f"{employee.name} is in {group.name} already")
        for one in self.access_requests.where(employee_id=employee.id, group_id=group.id):
            if one.status in ("pending", "approved"):
                raise ToolError("conflict", f"request {one.id} for {group.name} is {one.status} already")
        approver = self.employees[self._approver(employee, group)]
        new = AccessRequest(
            self.access_requests.next_id("REQ-", 5000), employee.id, group.id, group.name, "pending", approver.id,
            TODAY.isoformat(), None, reason,
        )  # fmt: skip
        self.access_requests.put(new)
        return {"request_id": new.id, "status": "pending", "group": group.name, "approver": approver.name}

    @tool("write")
    def decide_request(self, request_id: RequestId, approver_id: EmployeeId, decision: Literal["approved", "declined"]) -> Json:
        """Record the decision of the approver on a pending request. It grants nothing by itself."""
        request = self.access_requests[request_id]
        if request.status != "pending":
            raise ToolError("not_allowed", f"request {request.id} is {request.status} already")
        if request.approver_id != self.employees[approver_id].id:
            raise ToolError("not_allowed", f"request {request.id} is for {request.approver_id} to decide, not for {approver_id}")
        self.access_requests.update(request, status=decision, decided_on=TODAY.isoformat())
        return {"request_id": request.id, "status": decision}

    @tool("write")
    def grant_group(self, account_id: AccountId, group_id: GroupId, request_id: RequestId, until: Day | None = None) -> Json:
        """Put an account in a group on an approved request, for good or until a date."""
        account, group, request = self.accounts[account_id], self.groups[group_id], self.access_requests[request_id]
        if (request.employee_id, request.group_id) != (account.employee_id, group.id):
            raise ToolError("not_allowed", f"request {request.id} is for another person or group")
        if request.status != "approved":
            raise ToolError("not_allowed", f"request {request.id} is {request.status}; only an approved request is granted")
        if until is not None and until <= TODAY.isoformat():
            raise ToolError("not_allowed", "the end of the membership has to be in the future")
        groups = (*account.groups, Membership(group.id, group.name, until))
        self.accounts.update(account, groups=groups)
        self.access_requests.update(request, status="fulfilled")
        return {"account_id": account.id, "group": group.name, "until": until, "request_id": request.id}

    @tool("write")
    def revoke_group(self, account_id: AccountId, group_id: GroupId) -> Json:
        """Take an account out of a group."""
        account, group = self.accounts[account_id], self.groups[group_id]
        left = tuple(one for one in account.groups if one.group_id != group.id)
        if len(left) == len(account.groups):
            raise ToolError("not_found", f"account {account.id} is not in {group.name}")
        self.accounts.update(account, groups=left)
        return {"account_id": account.id, "revoked": group.name, "groups_left": [one.name for one in left]}

    def _approver(self, employee: Employee, group: Group) -> str:
        return employee.manager_id if group.privileged and employee.manager_id else group.owner_id

    # --- devices ---

    @tool("read")
    def list_devices(self, employee_id: EmployeeId) -> Json:
        """An employee's devices: id, kind, model and status."""
        found = self.devices.where(employee_id=self.employees[employee_id].id)
        return [{"device_id": one.id, "kind": one.kind, "model": one.model, "status": one.status} for one in found]

    @tool("read")
    def get_device(self, device_id: DeviceId) -> Device:
        """Everything about one device: owner, model, memory, system, warranty, status, software."""
        return self.devices[device_id]

    @tool("irreversible")
    def wipe_device(self, device_id: DeviceId, ticket_id: TicketId) -> Json:
        """Erase a lost or stolen device for good. Needs the open lost-or-stolen ticket about it."""
        device, ticket = self.devices[device_id], self.tickets[ticket_id]
        if ticket.category != "lost or stolen" or ticket.device_id != device.id or ticket.employee_id != device.employee_id:
            raise ToolError("not_allowed", f"ticket {ticket.id} is no lost-or-stolen ticket of the owner of {device.id}")
        if ticket.status == "closed":
            raise ToolError("not_allowed", f"ticket {ticket.id} is closed")
        if device.status == "wiped":
            raise ToolError("not_allowed", f"device {device.id} is wiped already")
        for one in device.software:
            title = self.software[one.software_id]
            self.software.update(title, used=title.used - 1)
        self.devices.update(device, status="wiped", software=())
        return {"device_id": device.id, "status": "wiped", "seats_freed": [one.name for one in device.software]}

    @tool("read")
    def list_hardware(
        self,
        kind: DeviceKind,
        max_price: Annotated[float | None, Field(gt=0, description="Only models up to this price.")] = None,
    ) -> Json:
        """Models that can be ordered, cheapest first, with price, memory and stock."""
        found = [one for one in self.hardware.where(kind=kind) if max_price is None or one.price <= max_price]
        return sorted(found, key=lambda one: (one.price, one.id))

    @tool("read")
    def get_cost_centre(self, cost_centre_id: Annotated[str, Field(pattern=r"^CC-\d{3}$", description="Such as 'CC-410'.")]) -> CostCentre:
        """What is left of a department's budget for hardware."""
        return self.cost_centres[cost_centre_id]

    @tool("irreversible")
    def order_replacement(self, employee_id: EmployeeId, device_id: DeviceId, hardware_id: HardwareId, ticket_id: TicketId) -> Json:
        """Order a new device in place of an old one. The price is booked on the department's budget at once."""
        employee, old, new = self.employees[employee_id], self.devices[device_id], self.hardware[hardware_id]
        ticket = self.tickets[ticket_id]
        if old.employee_id != employee.id or ticket.employee_id != employee.id:
            raise ToolError("not_allowed", f"device {old.id} or ticket {ticket.id} is not one of {employee.name}'s")
        if ticket.device_id != old.id or ticket.status == "closed":
            raise ToolError("not_allowed", f"ticket {ticket.id} is no open ticket about {old.id}")
        if old.status == "in use" and old.warranty_until >= TODAY.isoformat():
            raise ToolError("not_allowed", f"device {old.id} is under warranty until {old.warranty_until}; it is repaired instead")
        if new.kind != old.kind:
            raise ToolError("not_allowed", f"{new.name} is a {new.kind}, not a {old.kind}")
        if new.stock < 1:
            raise ToolError("not_allowed", f"{new.name} is out of stock")
        if self.orders.where(replaces=old.id):
            raise ToolError("conflict", f"a replacement for {old.id} is on order already")
        centre = self.cost_centres[employee.cost_centre_id]
        if new.price > centre.budget_left:
            raise ToolError("not_allowed", f"{new.price} is more than the {centre.budget_left} left in {centre.id}")
        self.hardware.update(new, stock=new.stock - 1)
        left = round(centre.budget_left - new.price, 2)
        self.cost_centres.update(centre, budget_left=left)
        id = self.orders.next_id("ORD-", 8801)
        order = self.orders.put(Order(id, employee.id, new.id, old.id, ticket.id, new.price, working_day(new.lead_days)))
        return {"order_id": order.id, "model": new.name, "price": new.price, "arrives_on": order.arrives_on, "budget_left": left}

    # --- software ---

    @tool("read")
    def list_software(self, category: SoftwareKind) -> Json:
        """Programs of a category, cheapest first: monthly cost, memory needed, free seats, and who may use them."""
        found = sorted(self.software.where(category=category), key=lambda one: (one.monthly_cost, one.id))
        return [
            {
                "software_id": one.id, "name": one.name, "monthly_cost": one.monthly_cost, "min_memory_gb": one.min_memory_gb,
                "open_to": list(one.open_to) or "all departments", "free_seats": one.seats - one.used,
            }
            for one in found
        ]  # fmt: skip

    @tool("write")
    def install_software(self, device_id: DeviceId, software_id: SoftwareId) -> Json:
        """Install a program on a laptop. It takes one seat of the licence."""
        device, title = self.devices[device_id], self.software[software_id]
        if device.kind != "laptop" or device.status != "in use":
            raise ToolError("not_allowed", f"{device.id} is a {device.kind} that is {device.status}; only a laptop in use gets software")
        if title.id in [one.software_id for one in device.software]:
            raise ToolError("conflict", f"{title.name} is on {device.id} already")
        if device.memory_gb < title.min_memory_gb:
            raise ToolError("not_allowed", f"{title.name} needs {title.min_memory_gb} GB of memory; {device.id} has {device.memory_gb}")
        if not _may_use(title, self.employees[device.employee_id].department):
            raise ToolError("not_allowed", f"{title.name} is open to {', '.join(title.open_to)} only")
        if title.used >= title.seats:
            raise ToolError("not_allowed", f"all {title.seats} seats of {title.name} are in use")
        self.software.update(title, used=title.used + 1)
        self.devices.update(device, software=(*device.software, Installed(title.id, title.name)))
        return {
            "device_id": device.id,
            "installed": title.name,
            "monthly_cost": title.monthly_cost,
            "free_seats": title.seats - title.used - 1,
        }

    @tool("write")
    def remove_software(self, device_id: DeviceId, software_id: SoftwareId) -> Json:
        """Remove a program from a laptop and give its seat back."""
        device, title = self.devices[device_id], self.software[software_id]
        left = tuple(one for one in device.software if one.software_id != title.id)
        if len(left) == len(device.software):
            raise ToolError("not_found", f"{title.name} is not on {device.id}")
        self.software.update(title, used=title.used - 1)
        self.devices.update(device, software=left)
        return {"device_id": device.id, "removed": title.name, "free_seats": title.seats - title.used + 1}

    # --- services and articles ---

    @tool("read")
    def get_service_status(self, service: ServiceName) -> Json:
        """Whether a service works, and the open incident if there is one."""
        one = self.services.where(name=service)[0]
        incident = self.incidents.get(one.incident_id) if one.incident_id else None
        return {"service_id": one.id, "service": one.name, "status": one.status, "incident": incident}

    @tool("read")
    def list_services(self, only_with_incident: bool = False) -> Json:
        """All services with their status, and the open incidents."""
        found: list[dict[str, Json]] = []
        for one in self.services:
            if one.incident_id:
                incident = self.incidents[one.incident_id]
                ends = {"incident_id": incident.id, "summary": incident.summary, "expected_by": incident.expected_by}
                found.append({"service": one.name, "status": one.status, **ends})
            elif not only_with_incident:
                found.append({"service": one.name, "status": one.status})
        return found

    @tool("read")
    def search_articles(
        self, query: Annotated[str, Field(min_length=2, description="A few words, such as the name of a service.")]
    ) -> Json:
        """The knowledge-base articles that fit best, three at most, with their text."""
        wanted = set(_word_list(query)) - {"how", "to", "a", "the", "is", "when", "not"}
        scored = [(len(wanted & set(_word_list(one.title))) * 3 + len(wanted & set(_word_list(one.text))), one) for one in self.articles]
        return [one for score, one in sorted(scored, key=lambda pair: (-pair[0], pair[1].id)) if score][:3]

    # --- tickets ---

    @tool("read")
    def list_tickets(self, employee_id: EmployeeId) -> Json:
        """An employee's tickets that are not closed, newest first."""
        found = [one for one in self.tickets.where(employee_id=self.employees[employee_id].id) if one.status != "closed"]
        return [
            {
                "ticket_id": o.id, "category": o.category, "subject": o.subject, "status": o.status, "priority": o.priority,
                "device_id": o.device_id, "opened_on": o.opened_on,
            }
            for o in sorted(found, key=lambda one: (one.opened_on, one.id), reverse=True)[:6]
        ]  # fmt: skip

    @tool("read")
    def get_ticket(self, ticket_id: TicketId) -> Ticket:
        """Everything about one ticket."""
        return self.tickets[ticket_id]

    @tool("write")
    def create_ticket(
        self,
        employee_id: EmployeeId,
        category: Category,
        subject: Annotated[str, Field(min_length=5, description="What it is about, in a few words.")],
        device_id: DeviceId | None = None,
        service: ServiceName | None = None,
    ) -> Json:
        """Open a ticket for an employee. Category 'service' names the service; 'hardware' and 'lost or stolen' name the device, and
        'lost or stolen' is of high priority and marks the device as lost."""
        employee = self.employees[employee_id]
        if category in ("hardware", "lost or stolen") and device_id is None:
            raise ToolError("invalid_arguments", f"a {category} ticket lacks 'device_id'")
        if category == "service" and service is None:
            raise ToolError("invalid_arguments", "a service ticket lacks 'service'")
        if device_id is not None and self.devices[device_id].employee_id != employee.id:
            raise ToolError("not_allowed", f"device {device_id} does not belong to {employee.name}")
        if category == "lost or stolen" and device_id is not None:
            if self.devices[device_id].status != "in use":
                raise ToolError("conflict", f"device {device_id} has been reported as lost already")
            self.devices.update(self.devices[device_id], status="lost")
        priority: Priority = "high" if category == "lost or stolen" else "normal"
        id = self.tickets.next_id("TCK-", 20000)
        self.tickets.put(Ticket(id, employee.id, category, subject, priority, "new", TODAY.isoformat(), device_id, service))
        return {"ticket_id": id, "category": category, "priority": priority, "status": "new", "team": TEAM_OF[category]}

    @tool("write")
    def update_ticket(
        self,
        ticket_id: TicketId,
        priority: Priority | None = None,
        incident_id: Annotated[str | None, Field(pattern=r"^INC-\d+$", description="Link the ticket to this open incident.")] = None,
        note: Annotated[str | None, Field(description="Something to remember.")] = None,
    ) -> Json:
        """Change the priority of an open ticket, link it to an incident of its service, or add a note."""
        ticket = self._open(ticket_id)
        if priority is None and incident_id is None and note is None:
            raise ToolError("invalid_arguments", "nothing to change: give 'priority', 'incident_id' or 'note'")
        if incident_id is not None and self.incidents[incident_id].service != ticket.service:
            raise ToolError("not_allowed", f"incident {incident_id} is not about the service of ticket {ticket.id}")
        ticket = self.tickets.update(
            ticket, priority=priority or ticket.priority, incident_id=incident_id or ticket.incident_id, note=note or ticket.note
        )  # fmt: skip
        return {"ticket_id": ticket.id, "priority": ticket.priority, "incident_id": ticket.incident_id, "status": ticket.status}

    @tool("read")
    def list_technicians(self, team: Team) -> Json:
        """The technicians of a team, least busy first, each with the number of open tickets. Teams: identity (account, access), devices
        (hardware), applications (software), operations (service), security (lost or stolen)."""
        found = [
            {"technician_id": one.id, "name": one.name, "open_tickets": self._load(one.id)} for one in self.technicians.where(team=team)
        ]
        return sorted(found, key=lambda one: (one["open_tickets"], one["technician_id"]))

    @tool("write")
    def assign_ticket(self, ticket_id: TicketId, technician_id: TechnicianId) -> Json:
        """Give an open ticket to a technician of the right team."""
        ticket, technician = self._open(ticket_id), self.technicians[technician_id]
        if technician.team != TEAM_OF[ticket.category]:
            raise ToolError(
                "not_allowed", f"{ticket.category} tickets go to {TEAM_OF[ticket.category]}; {technician.name} is in {technician.team}"
            )
        if ticket.incident_id:
            raise ToolError("not_allowed", f"ticket {ticket.id} is linked to incident {ticket.incident_id} and is not assigned")
        if self._load(technician.id) >= MAX_OPEN:
            raise ToolError("not_allowed", f"{technician.name} has {MAX_OPEN} open tickets, which is the limit")
        self.tickets.update(ticket, technician_id=technician.id, status="in progress")
        return {"ticket_id": ticket.id, "status": "in progress", "technician": technician.name}

    @tool("write")
    def close_ticket(self, ticket_id: TicketId, resolution: Resolution) -> Json:
        """Close an assigned ticket. 'found again' is for a lost device that has turned up: it is in use again."""
        ticket = self._open(ticket_id)
        if ticket.technician_id is None:
            raise ToolError("not_allowed", f"ticket {ticket.id} has to be assigned before it is closed")
        if resolution == "found again":
            device = self.devices.get(ticket.device_id or "")
            if ticket.category != "lost or stolen" or device is None:
                raise ToolError("not_allowed", f"ticket {ticket.id} is not about a lost device")
            if device.status != "lost":
                raise ToolError("not_allowed", f"device {device.id} is {device.status}")
            self.devices.update(device, status="in use")
        self.tickets.update(ticket, status="closed", resolution=resolution)
        return {"ticket_id": ticket.id, "status": "closed", "resolution": resolution}

    def _open(self, ticket_id: str) -> Ticket:
        ticket = self.tickets[ticket_id]
        if ticket.status == "closed":
            raise ToolError("not_allowed", f"ticket {ticket.id} is closed")
        return ticket

    def _load(self, technician_id: str) -> int:
        return sum(1 for one in self.tickets if one.technician_id == technician_id and one.status != "closed")


def _may_use(title: Software, department: Department) -> bool:
    return not title.open_to or department in title.open_to


def _word_list(text: str) -> list[str]:
    return re.findall(r"[a-z0-9-]+", text.lower())
