"""The work calendar: people, rooms, meetings, and the assistant's tools. All times are Vienna time."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tracemill.generators.environments.base import Environment, Row, Table, ToolError
from tracemill.generators.environments.people import people
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

TODAY = date(2026, 5, 14)
TODAY_TEXT = TODAY.isoformat()
FIRST_DAY = date(2026, 5, 4)
DAYS = tuple((FIRST_DAY + timedelta(days=7 * week + day)).isoformat() for week in range(4) for day in range(5))
OPEN_DAYS = tuple(day for day in DAYS if day > TODAY_TEXT)
"""Days to which meetings can still be put."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LUNCH = (12 * 60, 13 * 60)
LENGTHS = (30, 30, 45, 60, 60, 90)
LONGEST_LEAVE = 10  # working days
USER = "P-100"
OFFSETS = {"Vienna": 0, "Oslo": 0, "Lisbon": -1, "Turku": 1, "Toronto": -6}
"""Hours by which an office is ahead of Vienna; no clock changes within the four weeks."""
TEAMS = {
    "Product": ("product manager", "product analyst"),
    "Engineering": ("engineer", "senior engineer", "test engineer"),
    "Design": ("designer", "researcher"),
    "Sales": ("account manager", "sales engineer"),
    "Finance": ("controller", "accountant"),
    "Support": ("support specialist", "support lead"),
}
PROJECTS = (
    "Heron",
    "Basalt",
    "Juniper",
    "Meridian",
    "Osprey",
    "Quartz",
    "Saffron",
    "Tundra",
    "Willow",
    "Zenith",
    "Lantern",
    "Cobalt",
    "Fjord",
    "Marlin",
)
MEETINGS = (
    "review", "planning", "kick-off", "budget round", "roadmap sync", "retrospective", "status call", "design critique",
    "risk check", "demo", "handover", "supplier call", "pricing talk", "hiring panel", "test day prep", "launch check",
    "data walkthrough", "contract review",
)  # fmt: skip
TITLES = tuple(f"{project} {kind}" for project in PROJECTS for kind in MEETINGS)
PRIVATE = ("Dentist", "School meeting", "Physiotherapy", "Bank appointment", "Eye test")
ROOMS: tuple[tuple[str, str, int, tuple[str, ...], str | None], ...] = (
    ("Danube", "Vienna", 3, ("screen",), None),
    ("Prater", "Vienna", 4, ("whiteboard",), None),
    ("Belvedere", "Vienna", 5, ("screen", "video"), None),
    ("Karlsplatz", "Vienna", 6, ("projector", "whiteboard"), None),
    ("Naschmarkt", "Vienna", 8, ("screen", "video", "whiteboard"), None),
    ("Kahlenberg", "Vienna", 12, ("projector", "video", "whiteboard"), None),
    ("Schönbrunn", "Vienna", 24, ("projector", "video"), "management"),
    ("Alfama", "Lisbon", 4, ("screen", "video"), None),
    ("Tejo", "Lisbon", 10, ("projector", "whiteboard"), None),
    ("Fram", "Oslo", 6, ("screen", "video"), None),
    ("Aura", "Turku", 6, ("screen", "video"), None),
    ("Humber", "Toronto", 5, ("screen", "video"), None),
    ("Rouge", "Toronto", 12, ("projector", "video", "whiteboard"), None),
)

Office = Literal["Vienna", "Oslo", "Lisbon", "Turku", "Toronto"]
Team = Literal["Product", "Engineering", "Design", "Sales", "Finance", "Support"]
Equipment = Literal["screen", "projector", "video", "whiteboard"]
Answer = Literal["accepted", "declined", "tentative"]
Response = Literal["accepted", "declined", "tentative", "pending"]
UNSURE: tuple[Response, ...] = ("tentative", "pending", "pending")
CancelReason = Literal["no longer needed", "postponed", "too few participants", "user away"]
EventId = Annotated[str, Field(pattern=r"^EV-\d{4}$", description="Event id, such as 'EV-1042'.")]
PersonId = Annotated[str, Field(pattern=r"^P-\d{3}$", description="Person id, such as 'P-117', as the directory returns it.")]
RoomId = Annotated[str, Field(pattern=r"^RM-\d{3}$", description="Room id, such as 'RM-204'.")]
Day = Annotated[str, Field(json_schema_extra={"format": "date"}, description="Day, such as '2026-05-18'.")]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="Vienna time, such as '14:30'.")]
Minutes = Annotated[int, Field(ge=15, le=240, multiple_of=15, description="Length in minutes.")]


@dataclass(frozen=True)
class Person(Row):
    """`starts` and `ends` are the working hours on the clock of the person's own office."""

    id: str
    name: str
    role: str
    team: str
    office: str
    starts: str
    ends: str


@dataclass(frozen=True)
class Room(Row):
    id: str
    name: str
    office: str
    capacity: int
    equipment: tuple[str, ...]
    reserved_for: str | None


@dataclass(frozen=True)
class Attendee(Row):
    person_id: str
    response: Response


@dataclass(frozen=True)
class Event(Row):
    """The organizer is one of the attendees."""

    id: str
    title: str
    day: str
    start: str
    minutes: int
    organizer_id: str
    attendees: tuple[Attendee, ...]
    room_id: str | None
    status: Literal["confirmed", "cancelled"] = "confirmed"
    private: bool = False
    cancel_reason: str | None = None

    def response(self, person_id: str) -> Response | None:
        return next((one.response for one in self.attendees if one.person_id == person_id), None)

    def keeps_busy(self, person_id: str) -> bool:
        return self.status == "confirmed" and self.response(person_id) not in (None, "declined")

    def overlaps(self, start: str, minutes: int) -> bool:
        begin, own = minute(start), minute(self.start)
        return own < begin + minutes and begin < own + self.minutes

    @property
    def others(self) -> list[str]:
        """Ids of everybody invited but the user."""
        return [one.person_id for one in self.attendees if one.person_id != USER]


@dataclass(frozen=True)
class Reminder(Row):
    id: str
    event_id: str
    minutes_before: int


@dataclass(frozen=True)
class Note(Row):
    id: str
    event_id: str
    text: str
    volatile = ("text",)


@dataclass(frozen=True)
class Absence(Row):
    id: str
    person_id: str
    first_day: str
    last_day: str
    deputy_id: str | None = None

    def covers(self, first: str, last: str) -> bool:
        """Whether it shares a day with this period."""
        return self.first_day <= last and first <= self.last_day


@functools.lru_cache(maxsize=2048)
def minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def spoken(day: str) -> str:
    """A day as people say it and tools take it: 'Monday, 2026-05-18'."""
    return f"{WEEKDAYS[date.fromisoformat(day).weekday()]}, {day}"


def working_hours(person: Person) -> tuple[int, int]:
    """In minutes of the Vienna day."""
    shift = 60 * OFFSETS[person.office]
    return minute(person.starts) - shift, minute(person.ends) - shift


class CalendarTools(Environment):
    """State and tools; the goals are in goals.py."""

    name = "calendar"
    policy = Path(__file__).parent / "policy.md"
    words = Path(__file__).parent / "words.yaml"
    departments = ("office management", "people team", "it desk")

    people: Table[Person]
    rooms: Table[Room]
    events: Table[Event]
    reminders: Table[Reminder]
    notes: Table[Note]
    absences: Table[Absence]

    # --- the world ---

    def build(self, rng: random.Random) -> None:
        self._hire(rng)
        number = rng.randint(101, 120)
        for name, office, capacity, equipment, reserved in ROOMS:
            number += rng.randint(1, 60)
            self.rooms.put(Room(f"RM-{number}", name, office, capacity, equipment, reserved))
        own = self.people[USER].team
        for place, number in enumerate(range(rng.randint(10, 60), 70)[:8]):  # three of the user's team, all in the days ahead
            person = rng.choice([one for one in self.people if one.id != USER and (one.team == own) == (place < 3)])
            first = rng.randint(9 if place < 3 else 5, 17)
            if not self._is_away(person.id, DAYS[0], DAYS[-1]):
                self.absences.put(Absence(f"OO-{number}", person.id, DAYS[first], DAYS[min(first + rng.randint(0, 4), 19)]))
        Diary(self, rng).fill()

    def _hire(self, rng: random.Random) -> None:
        own_team = rng.choice(tuple(TEAMS))
        number = int(USER[2:])
        for place, person in enumerate(people(rng, 50)):
            team = own_team if place < 9 else rng.choice(tuple(TEAMS))
            office = "Vienna" if place == 0 else rng.choice(("Vienna", "Vienna", "Vienna", "Oslo", "Lisbon", "Turku", "Toronto"))
            starts = 9 * 60 if place == 0 else rng.choice((480, 510, 540, 540))
            hours = (clock(starts), clock(starts + rng.choice((480, 510))))
            self.people.put(Person(f"P-{number}", person.name, rng.choice(TEAMS[team]), team, office, *hours))
            number += rng.randint(1, 9)

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        for row in changed:
            if isinstance(row, Event):
                yield from self._event_problems(row)
            if isinstance(row, Reminder | Note) and row.event_id not in self.events:
                yield f"{row.key} belongs to no event"
            if isinstance(row, Absence):
                if row.first_day > row.last_day:
                    yield f"absence {row.id} ends before it begins"
                if row.deputy_id == row.person_id:
                    yield f"absence {row.id}: nobody can be their own deputy"

    def _event_problems(self, event: Event) -> Iterator[str]:
        ids = [one.person_id for one in event.attendees]
        if len(set(ids)) < len(ids):
            yield f"event {event.id} has somebody twice"
        if event.response(event.organizer_id) != "accepted":
            yield f"event {event.id} goes on without its organizer"
        if minute(event.start) + event.minutes > 24 * 60:
            yield f"event {event.id} runs past midnight"
        if event.status == "cancelled":
            return
        if event.room_id is not None:
            if len(ids) > self.rooms[event.room_id].capacity:
                yield f"event {event.id}: the room is too small"
            if self._room_taken(event.room_id, event.day, event.start, event.minutes, event.id):
                yield f"event {event.id}: the room is booked twice"

    # --- what can be and what cannot ---

    def why_not(self, person_ids: Iterable[str], day: str, start: str, minutes: int, ignore: str = "") -> str | None:
        """What keeps these people from meeting then; None when nothing does. `ignore` is the event that is being moved."""
        if day not in OPEN_DAYS:
            return f"{day} is not a working day between {OPEN_DAYS[0]} and {OPEN_DAYS[-1]}"
        begin, end = minute(start), minute(start) + minutes
        if begin < LUNCH[1] and LUNCH[0] < end:
            return "nothing may be booked over lunch, 12:00 to 13:00"
        for person_id in person_ids:
            opens, closes = working_hours(self.people[person_id])
            if begin < opens or end > closes:
                return f"{person_id} works from {clock(opens)} to {clock(closes)} Vienna time"
            if self._is_away(person_id, day, day):
                return f"{person_id} is away on {day}"
        wanted = set(person_ids)
        for event in self.events:
            if event.day == day and event.id != ignore and event.overlaps(start, minutes):
                busy = [one.person_id for one in event.attendees if one.person_id in wanted and event.keeps_busy(one.person_id)]
                if busy:
                    return f"{busy[0]} is busy from {event.start} to {clock(minute(event.start) + event.minutes)} on {day}"
        return None

    def free_windows(self, person_ids: Iterable[str], day: str, minutes: int, not_before: str = "00:00") -> list[tuple[int, int]]:
        """Stretches of at least this length in which all of them can meet."""
        ids = set(person_ids)
        hours = [working_hours(self.people[one]) for one in ids]
        taken = [LUNCH]
        for event in self.events:
            if event.day == day and any(event.keeps_busy(one.person_id) for one in event.attendees if one.person_id in ids):
                taken.append((minute(event.start), minute(event.start) + event.minutes))
        at, end = max(minute(not_before), *(opens for opens, _ in hours)), min(closes for _, closes in hours)
        found: list[tuple[int, int]] = []
        for begin, until in [*sorted(taken), (end, end)]:
            if min(begin, end) - at >= minutes:
                found.append((at, min(begin, end)))
            at = max(at, until)
        return found

    def free_rooms(
        self, day: str, start: str, minutes: int, seats: int, office: str = "Vienna", equipment: str | None = None
    ) -> list[Room]:
        """Smallest first."""
        found = [
            room
            for room in self.rooms
            if room.office == office
            and room.capacity >= seats
            and room.reserved_for is None
            and (equipment is None or equipment in room.equipment)
            and not self._room_taken(room.id, day, start, minutes)
        ]
        return sorted(found, key=lambda room: (room.capacity, room.id))

    def _room_taken(self, room_id: str, day: str, start: str, minutes: int, ignore: str = "") -> bool:
        return any(
            event.room_id == room_id and event.day == day and event.status == "confirmed" and event.overlaps(start, minutes)
            for event in self.events
            if event.id != ignore
        )

    def _is_away(self, person_id: str, first: str, last: str) -> bool:
        return any(one.covers(first, last) for one in self.absences if one.person_id == person_id)

    def _own(self, event_id: str) -> Event:
        """An event that the user may change."""
        event = self.events[event_id]
        if event.organizer_id != USER:
            raise ToolError(
                "not_allowed", f"{event.id} is organized by {self._called(event.organizer_id)}; only the organizer can change it"
            )
        if event.status == "cancelled":
            raise ToolError("not_allowed", f"{event.id} has been cancelled")
        if event.day < TODAY_TEXT:
            raise ToolError("not_allowed", f"{event.id} was on {event.day} and is over")
        return event

    def _usable(self, room_id: str, seats: int, day: str, start: str, minutes: int, ignore: str = "") -> Room:
        room = self.rooms[room_id]
        if room.reserved_for is not None:
            raise ToolError("not_allowed", f"{room.name} ({room.id}) is reserved for the {room.reserved_for}")
        if seats > room.capacity:
            raise ToolError("not_allowed", f"{room.name} ({room.id}) has {room.capacity} seats, {seats} are needed")
        if self._room_taken(room.id, day, start, minutes, ignore):
            raise ToolError("not_allowed", f"{room.name} ({room.id}) is taken at {start} on {day}; find another room")
        return room

    def _possible(self, person_ids: list[str], day: str, start: str, minutes: int, ignore: str = "") -> None:
        reason = self.why_not(person_ids, day, start, minutes, ignore)
        if reason is not None:
            raise ToolError("not_allowed", reason)

    def _called(self, person_id: str) -> str:
        return "the user" if person_id == USER else self.people[person_id].name

    def _entry(self, event: Event) -> dict[str, Json]:
        """A line of the user's own calendar."""
        return {
            "event_id": event.id,
            "title": event.title,
            "day": event.day,
            "start": event.start,
            "end": clock(minute(event.start) + event.minutes),
            "room": None if event.room_id is None else self.rooms[event.room_id].name,
            "organizer": self._called(event.organizer_id),
            "your_response": event.response(USER),
        }

    # --- tools ---

    @tool("read")
    def find_person(self, name: Annotated[str, Field(min_length=2, description="Full name or a part of it.")]) -> Json:
        """Search the directory by name."""
        found = [one for one in self.people if name.lower() in one.name.lower()]
        if not found:
            raise ToolError("not_found", f"nobody in the directory is called {name!r}")
        return [{"person_id": one.id, "name": one.name, "team": one.team, "office": one.office} for one in found[:8]]

    @tool("read")
    def list_team(self, team: Team) -> Json:
        """The members of a team, with their ids."""
        return [{"person_id": one.id, "name": one.name, "role": one.role, "office": one.office} for one in self.people.where(team=team)]

    @tool("read")
    def get_person(self, person_id: PersonId) -> Json:
        """A colleague's role, office, time difference to Vienna, and working hours in Vienna time."""
        person = self.people[person_id]
        opens, closes = working_hours(person)
        return {
            "person_id": person.id,
            "name": person.name,
            "role": person.role,
            "team": person.team,
            "office": person.office,
            "hours_ahead_of_vienna": OFFSETS[person.office],
            "works_from": clock(opens),
            "works_until": clock(closes),
            "absences": self.list_absences(person_id),
        }

    @tool("read")
    def list_absences(
        self, person_id: Annotated[PersonId | None, Field(description="Whose absences; leave out for the user's own.")] = None
    ) -> Json:
        """Out-of-office periods of a person, with the deputy where one is named."""
        found = sorted(self.absences.where(person_id=self.people[person_id or USER].id), key=lambda one: one.first_day)
        return [
            {
                "absence_id": one.id,
                "first_day": one.first_day,
                "last_day": one.last_day,
                "deputy": one.deputy_id and self.people[one.deputy_id].name,
            }
            for one in found
        ]

    @tool("read")
    def list_events(
        self, day: Day, person_id: Annotated[PersonId | None, Field(description="Whose calendar; leave out for the user's own.")] = None
    ) -> Json:
        """One day of a calendar in order of time, without what was cancelled or declined. Private entries of others show no details."""
        if day not in DAYS:
            raise ToolError("not_found", f"{day} is no working day between {DAYS[0]} and {DAYS[-1]}")
        owner = self.people[person_id or USER].id
        found = sorted((one for one in self.events if one.day == day and one.keeps_busy(owner)), key=lambda one: (one.start, one.id))
        if owner == USER:
            return {"day": day, "count": len(found), "events": [self._entry(one) for one in found]}
        lines: list[Json] = []
        for one in found:
            hidden = one.private and one.response(USER) is None
            times = {"start": one.start, "end": clock(minute(one.start) + one.minutes)}
            lines.append({"title": "Private", **times} if hidden else {"event_id": one.id, "title": one.title, **times})
        return {"day": day, "person_id": owner, "count": len(lines), "events": lines}

    @tool("read")
    def search_events(self, text: Annotated[str, Field(min_length=3, description="Words of the title.")]) -> Json:
        """Search the user's own calendar, all four weeks, by title."""
        found = [one for one in self.events if text.lower() in one.title.lower() and one.keeps_busy(USER)]
        return [self._entry(one) for one in sorted(found, key=lambda one: (one.day, one.start))[:6]]

    @tool("read")
    def list_pending_invitations(self) -> Json:
        """Invitations from today on that the user has not answered."""
        found = [one for one in self.events if one.response(USER) == "pending" and one.status == "confirmed" and one.day >= TODAY_TEXT]
        keys = ("event_id", "title", "day", "start", "end", "organizer")
        return [{key: self._entry(one)[key] for key in keys} for one in sorted(found, key=lambda one: (one.day, one.start))]

    @tool("read")
    def get_event(self, event_id: EventId) -> Json:
        """Everything about one event: time, organizer, who is invited and their answers, room, reminders, notes sent."""
        event = self.events[event_id]
        if event.private and event.response(USER) is None:
            raise ToolError("not_allowed", f"{event.id} is private")
        return {
            "event_id": event.id,
            "title": event.title,
            "status": event.status,
            "day": event.day,
            "start": event.start,
            "end": clock(minute(event.start) + event.minutes),
            "minutes": event.minutes,
            "organizer": self._called(event.organizer_id),
            "attendees": [
                {"person_id": one.person_id, "name": self._called(one.person_id), "response": one.response} for one in event.attendees
            ],
            "room": None if event.room_id is None else {"room_id": event.room_id, "name": self.rooms[event.room_id].name},
            "reminders": [
                {"reminder_id": one.id, "minutes_before": one.minutes_before} for one in self.reminders if one.event_id == event.id
            ],
            "notes_sent": [one.id for one in self.notes if one.event_id == event.id],
        }

    @tool("read")
    def find_free_slots(
        self,
        person_ids: Annotated[list[PersonId], Field(max_length=8, description="Who has to be free besides the user.")],
        day: Day,
        minutes: Minutes,
        not_before: Annotated[Clock, Field(description="Earliest start, Vienna time.")] = "00:00",
    ) -> Json:
        """Stretches of a day, at least so long, in which the user and all these people are free and at work, lunch left out."""
        if day not in OPEN_DAYS:
            raise ToolError("not_allowed", f"{day} is not a working day between {OPEN_DAYS[0]} and {OPEN_DAYS[-1]}")
        everybody = [USER, *(self.people[one].id for one in person_ids)]
        away = [one for one in everybody if self._is_away(one, day, day)]
        found = [] if away else self.free_windows(everybody, day, minutes, not_before)
        return {"day": day, "minutes": minutes, "free": [{"from": clock(a), "to": clock(b)} for a, b in found], "away": away}

    @tool("read")
    def find_rooms(
        self,
        day: Day,
        start: Clock,
        minutes: Minutes,
        seats: Annotated[int, Field(ge=1, le=30, description="How many people, the user included.")],
        equipment: Annotated[Equipment | None, Field(description="What the room must have.")] = None,
        office: Office = "Vienna",
    ) -> Json:
        """Rooms of an office that are free then and large enough, smallest first."""
        found = self.free_rooms(day, start, minutes, seats, office, equipment)
        return [{"room_id": one.id, "name": one.name, "capacity": one.capacity, "equipment": one.equipment} for one in found]

    @tool("write")
    def create_event(
        self,
        title: Annotated[str, Field(min_length=3, max_length=80)],
        day: Day,
        start: Clock,
        minutes: Minutes,
        attendee_ids: Annotated[list[PersonId], Field(min_length=1, max_length=12, description="Who is invited besides the user.")],
        room_id: Annotated[RoomId | None, Field(description="Leave out for a call without a room.")] = None,
    ) -> Json:
        """Set up a meeting of the user and invite people to it."""
        invited = [USER, *(one for one in attendee_ids if one != USER)]
        self._possible(invited, day, start, minutes)
        if room_id is not None:
            self._usable(room_id, len(invited), day, start, minutes)
        attendees = tuple(Attendee(one, "accepted" if one == USER else "pending") for one in invited)
        event = self.events.put(Event(self.events.next_id("EV-", 1000), title, day, start, minutes, USER, attendees, room_id))
        return self._entry(event)

    @tool("write")
    def move_event(self, event_id: EventId, day: Day, start: Clock) -> Json:
        """Move a meeting of the user; length and room stay, and everybody else is asked again whether they can come."""
        event = self._own(event_id)
        coming = [one.person_id for one in event.attendees if one.response != "declined"]
        self._possible(coming, day, start, event.minutes, event.id)
        if event.room_id is not None:
            self._usable(event.room_id, len(event.attendees), day, start, event.minutes, event.id)
        asked = tuple(Attendee(one.person_id, "accepted" if one.person_id == USER else "pending") for one in event.attendees)
        return self._entry(self.events.update(event, day=day, start=start, attendees=asked))

    @tool("write")
    def add_attendee(self, event_id: EventId, person_id: PersonId) -> Json:
        """Invite one more person to a meeting of the user."""
        event, person = self._own(event_id), self.people[person_id]
        if event.response(person.id) is not None:
            raise ToolError("not_allowed", f"{person.name} is invited to {event.id} already")
        self._possible([person.id], event.day, event.start, event.minutes, event.id)
        if event.room_id is not None and len(event.attendees) >= self.rooms[event.room_id].capacity:
            raise ToolError("not_allowed", f"{self.rooms[event.room_id].name} has no seat left; book a larger room first")
        self.events.update(event, attendees=(*event.attendees, Attendee(person.id, "pending")))
        return {"event_id": event.id, "invited": person.name, "attendees": len(event.attendees) + 1}

    @tool("write")
    def remove_attendee(self, event_id: EventId, person_id: PersonId) -> Json:
        """Take a person off the list of a meeting of the user."""
        event, person = self._own(event_id), self.people[person_id]
        if person.id == USER or event.response(person.id) is None:
            raise ToolError("not_allowed", f"{person.id} is the organizer or not invited to {event.id}")
        left = tuple(one for one in event.attendees if one.person_id != person.id)
        self.events.update(event, attendees=left)
        return {"event_id": event.id, "removed": person.name, "attendees": len(left)}

    @tool("write")
    def book_room(self, event_id: EventId, room_id: RoomId) -> Json:
        """Give a meeting of the user a room for its time. A room it had before is released."""
        event = self._own(event_id)
        room = self._usable(room_id, len(event.attendees), event.day, event.start, event.minutes, event.id)
        self.events.update(event, room_id=room.id)
        return {"event_id": event.id, "room_id": room.id, "room": room.name}

    @tool("write")
    def respond_to_invitation(self, event_id: EventId, response: Answer) -> Json:
        """Answer an invitation from somebody else, or change the answer."""
        event = self.events[event_id]
        if event.response(USER) is None or event.organizer_id == USER:
            raise ToolError("not_allowed", f"{event.id} is no invitation to the user")
        if event.status == "cancelled" or event.day < TODAY_TEXT:
            raise ToolError("not_allowed", f"{event.id} is cancelled or over")
        if response == "accepted" and (clash := self.clash(event)):
            raise ToolError("not_allowed", f"the user has accepted {clash.id} ({clash.title}) at that time")
        answered = tuple(Attendee(USER, response) if one.person_id == USER else one for one in event.attendees)
        self.events.update(event, attendees=answered)
        return {"event_id": event.id, "title": event.title, "your_response": response}

    def clash(self, event: Event) -> Event | None:
        """Another event at the same time that the user has accepted."""
        for one in self.events:
            same_day = one.day == event.day and one.id != event.id and one.status == "confirmed"
            if same_day and one.response(USER) == "accepted" and one.overlaps(event.start, event.minutes):
                return one
        return None

    @tool("write")
    def set_out_of_office(self, first_day: Day, last_day: Day, deputy_id: PersonId) -> Json:
        """Mark the user as away and name the deputy."""
        if first_day not in OPEN_DAYS or last_day not in OPEN_DAYS or first_day > last_day:
            raise ToolError("not_allowed", f"first and last day must be working days between {OPEN_DAYS[0]} and {OPEN_DAYS[-1]}, in order")
        if sum(first_day <= day <= last_day for day in OPEN_DAYS) > LONGEST_LEAVE:
            raise ToolError("not_allowed", f"a period is at most {LONGEST_LEAVE} working days")
        deputy = self.people[deputy_id]
        if deputy.id == USER or deputy.team != self.people[USER].team:
            raise ToolError("not_allowed", f"{deputy.name} is not a colleague of the user's team, {self.people[USER].team}")
        if self._is_away(deputy.id, first_day, last_day):
            raise ToolError("not_allowed", f"{deputy.name} is away in that time")
        if self._is_away(USER, first_day, last_day):
            raise ToolError("not_allowed", "the user is marked as away in that time already")
        absence = self.absences.put(Absence(self.absences.next_id("OO-", 10), USER, first_day, last_day, deputy.id))
        return {"absence_id": absence.id, "first_day": first_day, "last_day": last_day, "deputy": deputy.name}

    @tool("write")
    def add_reminder(self, event_id: EventId, minutes_before: Annotated[int, Field(ge=5, le=1440)]) -> Json:
        """Remind the user some minutes before an event of their calendar."""
        event = self.events[event_id]
        if not event.keeps_busy(USER):
            raise ToolError("not_allowed", f"{event.id} is not in the user's calendar")
        if self.reminders.where(event_id=event.id, minutes_before=minutes_before):
            raise ToolError("not_allowed", f"{event.id} has a reminder {minutes_before} minutes before already")
        reminder = self.reminders.put(Reminder(self.reminders.next_id("RE-", 10), event.id, minutes_before))
        return {"reminder_id": reminder.id, "event_id": event.id, "minutes_before": minutes_before}

    @tool("irreversible")
    def cancel_event(self, event_id: EventId, reason: CancelReason) -> Json:
        """Cancel a meeting of the user for good. Everybody invited gets a notice at once, and the room is free again."""
        event = self._own(event_id)
        self.events.update(event, status="cancelled", cancel_reason=reason)
        return {"event_id": event.id, "status": "cancelled", "notices_sent": len(event.others)}

    @tool("irreversible")
    def send_invitation_note(self, event_id: EventId, text: Annotated[str, Field(min_length=5, max_length=400)]) -> Json:
        """Mail a note to everybody invited to a meeting of the user. It cannot be recalled."""
        event = self._own(event_id)
        note = self.notes.put(Note(self.notes.next_id("NT-", 10), event.id, text))
        return {"note_id": note.id, "event_id": event.id, "sent_to": len(event.others)}


class Diary:
    """Fills four weeks of calendars; nobody is in two places at once, but for invitations the user has not answered."""

    def __init__(self, env: CalendarTools, rng: random.Random) -> None:
        self.env, self.rng = env, rng
        self.staff = [one.id for one in env.people if one.id != USER]
        self.rooms = {office: [one for one in env.rooms if one.office == office and one.reserved_for is None] for office in OFFSETS}
        self.hours = {one.id: working_hours(one) for one in env.people}
        self.away = {(a.person_id, day) for a in env.absences for day in DAYS if a.covers(day, day)}
        self.taken: dict[tuple[str, str], int] = {}  # (person or room, day) -> one bit for each quarter of an hour
        self.attendees: dict[tuple[str, Response], Attendee] = {}
        self.title, self.stride = rng.randrange(len(TITLES)), rng.choice((5, 11, 13, 17, 19, 23))  # a walk that meets each title once
        self.number = rng.randint(1000, 7000)

    def fill(self) -> None:
        rng = self.rng
        for day in DAYS:
            ahead = day >= TODAY_TEXT
            for place in range(rng.choice((3, 4)) if ahead else rng.choice((1, 2))):
                guests = self._some(rng.choice((1, 2, 2, 3, 4)))
                self.meet(day, [USER, *guests] if place % 2 == 0 else [guests[0], USER, *guests[1:]])
        for day in rng.sample(OPEN_DAYS, 7):
            self.meet(day, self._some(rng.choice((1, 2, 3))), asks_user=True)
        for _ in range(115):
            self.meet(rng.choice(DAYS), self._some(rng.choice((2, 2, 3, 4))))
        for one in self._some(16):
            self.meet(rng.choice(DAYS), [one], private=True)
        self.meet(rng.choice(DAYS[:8]), [USER], private=True)
        mine = [one for one in self.env.events if one.keeps_busy(USER) and one.response(USER) == "accepted"]
        for number, event in enumerate(rng.sample(mine, 12), rng.randint(10, 400)):
            self.env.reminders.put(Reminder(f"RE-{number}", event.id, rng.choice((5, 10, 20))))

    def _some(self, count: int) -> list[str]:
        return self.rng.sample(self.staff, count)

    def meet(self, day: str, group: list[str], *, private: bool = False, asks_user: bool = False) -> None:
        """An event of the day, organized by the first of the group who is there, if there is a time for it."""
        rng = self.rng
        ids = [one for one in group if (one, day) not in self.away]
        extra = [USER] if asks_user else []
        minutes = LENGTHS[int(rng.random() * len(LENGTHS))]
        while ids:
            opens, closes = max(self.hours[one][0] for one in ids + extra), min(self.hours[one][1] for one in ids + extra)
            if closes - opens >= minutes + 60:
                break
            ids = ids[:-1]  # offices too far apart
        if not ids or len(ids + extra) < 1 + (not private) or (USER in group and USER not in ids):
            return
        busy = 0
        for one in ids:
            busy |= self.taken.get((one, day), 0)
        for _ in range(8):
            at = opens + 30 * int(rng.random() * ((closes - opens - minutes) // 30 + 1))
            bits = ((1 << minutes // 15) - 1) << at // 15
            if busy & bits or (at < LUNCH[1] and LUNCH[0] < at + minutes):
                continue
            for one in ids:
                self.taken[one, day] = self.taken.get((one, day), 0) | bits
            self._write(day, at, minutes, bits, ids, private, asks_user)
            return

    def _write(self, day: str, at: int, minutes: int, bits: int, ids: list[str], private: bool, asks_user: bool) -> None:
        rng = self.rng
        self.number += rng.randint(1, 9)
        sure = 1.0 if day < TODAY_TEXT else 0.6
        answers: list[Response] = [
            "accepted" if one in (ids[0], USER) or rng.random() < sure else UNSURE[int(rng.random() * 3)] for one in ids
        ]
        attendees = [self._attendee(one, response) for one, response in zip(ids, answers, strict=True)]
        if asks_user:
            attendees.append(self._attendee(USER, "pending"))
        self.title = (self.title + self.stride) % len(TITLES)
        title = rng.choice(PRIVATE) if private else TITLES[self.title]
        room_id = None if private or rng.random() < 0.4 else self._room(ids[0], day, bits, len(attendees))
        self.env.events.put(
            Event(f"EV-{self.number}", title, day, clock(at), minutes, ids[0], tuple(attendees), room_id, "confirmed", private)
        )

    def _attendee(self, person_id: str, response: Response) -> Attendee:
        """Kept, because a person answers many invitations alike and frozen rows are slow to make."""
        key = (person_id, response)
        if key not in self.attendees:
            self.attendees[key] = Attendee(person_id, response)
        return self.attendees[key]

    def _room(self, organizer: str, day: str, bits: int, seats: int) -> str | None:
        office = self.env.people[organizer].office
        for room in self.rooms[office]:
            held = self.taken.get((room.id, day), 0)
            if room.capacity >= seats and not held & bits:
                self.taken[room.id, day] = held | bits
                return room.id
        return None
