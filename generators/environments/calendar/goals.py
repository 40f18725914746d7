"""What an employee asks the assistant of their calendar for."""

from __future__ import annotations

from collections.abc import Sequence

from tracemill.generators.environments.calendar.tools import (
    LUNCH,
    OFFSETS,
    OPEN_DAYS,
    TODAY_TEXT,
    USER,
    CalendarTools,
    Event,
    Person,
    clock,
    minute,
    spoken,
    working_hours,
)
from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.trace import Json, Kind

NO_PLAN: tuple[Kind, ...] = ("tool_call", "error_recovery")
PURPOSES = (
    "Yearly talk",
    "Offer check",
    "Mentoring hour",
    "Numbers check-in",
    "Onboarding talk",
    "Feedback talk",
    "Interview prep",
    "Price check",
)
WORKSHOPS = ("Strategy workshop", "Naming workshop", "Process clinic", "Estimation round", "Customer story session", "Idea session")
SERVICES = (
    "a train ticket to Graz",
    "a rise in pay",
    "the minutes of last week's meeting",
    "a summary of my unread mail",
    "a taxi to the airport",
    "lunch for twelve people",
    "the sales figures of April",
    "a new laptop",
)
MESSAGES = (
    "Please bring your numbers for April.",
    "Please read the draft before we meet.",
    "We start on time, so please be punctual.",
    "Please have your laptop with you.",
    "Please send me your open questions the day before.",
)


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def crowd(count: int) -> str:
    return "one person" if count == 1 else f"{count} people"


class Calendar(CalendarTools):
    # --- drawing ---

    def _mine(self, days: Sequence[str] = OPEN_DAYS) -> list[Event]:
        """Meetings that the user organizes and other people attend."""
        return [one for one in self.events if one.organizer_id == USER and one.day in days and one.others and one.status == "confirmed"]

    def _coming(self, event: Event) -> list[str]:
        """Whom a move has to suit, the user left out."""
        return [one.person_id for one in event.attendees if one.person_id != USER and one.response != "declined"]

    def _window(self, g: Draft, ids: Sequence[str], day: str, minutes: int, not_before: str = "00:00") -> str:
        """The earliest start that suits the user and these people."""
        g.need(not any(self._is_away(one, day, day) for one in ids))
        found = self.free_windows([USER, *ids], day, minutes, not_before)
        g.need(found)
        return clock(found[0][0])

    def _room_stays_free(self, g: Draft, event: Event, day: str, start: str) -> None:
        g.need(event.room_id is None or not self._room_taken(event.room_id, day, start, event.minutes, event.id))

    def _colleague(self, g: Draft, *offices: str) -> Person:
        return g.pick(one for one in self.people if one.id != USER and (not offices or one.office in offices))

    # --- reference calls that many goals share ---

    def _find_meeting(self, g: Draft, event: Event, *, look: bool = True) -> None:
        """By day and title, then its record; the search by title can stand in for the day's list."""
        g.put(title=event.title, when=spoken(event.day))
        g.subgoal("find the meeting", f"the id of {event.title!r} is known")
        other = ("search_events", {"text": event.title})
        g.call("list_events", day=event.day, why=f"the id of {event.title!r} is in the list of that day", fallback=other)
        if look:
            g.subgoal("look at the meeting", "its organizer, participants and room are known")
            g.call("get_event", event_id=event.id, why="a meeting is looked at before anything is done about it")

    def _find_colleague(self, g: Draft, person: Person) -> None:
        other = ("list_team", {"team": person.team})
        g.call("find_person", name=person.name, why=f"the directory has the id of {person.name}", fallback=other)

    def _shown(self, event_id: str) -> tuple[str, dict[str, Json]]:
        return "get_event", {"event_id": event_id}

    # --- one or two calls ---

    @goal(kinds=NO_PLAN)
    def when_and_where(self, g: Draft) -> None:
        """One call: when is it, and in which room?"""
        event = g.pick(e for e in self.events if e.keeps_busy(USER) and e.room_id is not None and e.day >= TODAY_TEXT)
        assert event.room_id is not None
        room = self.rooms[event.room_id].name
        g.put(title=event.title, when=spoken(event.day), start=event.start, room=room)
        other = ("search_events", {"text": event.title})
        g.call("list_events", day=event.day, why="the list of that day has time and room of every meeting", fallback=other)
        g.tell(event.start, room)

    @goal(kinds=NO_PLAN)
    def lightest_day(self, g: Draft) -> None:
        """Independent look-ups: on which of three days is there least to do?"""
        days = sorted(g.some(OPEN_DAYS, 3))
        counts = {day: sum(e.day == day and e.keeps_busy(USER) for e in self.events) for day in days}
        best = min(days, key=lambda day: counts[day])
        g.need(counts[best] > 1 and list(counts.values()).count(counts[best]) == 1)
        with g.parallel():
            for day in days:
                g.call("list_events", day=day, why=f"the number of meetings on {day} is needed for the comparison")
        g.put(days=listed([spoken(day) for day in days]), best=spoken(best), count=counts[best])
        g.tell(best, counts[best])

    @goal(kinds=NO_PLAN)
    def early_warning(self, g: Draft) -> None:
        """A reminder before the first meeting of a day, whichever that is."""
        day = g.pick(OPEN_DAYS)
        todays = sorted((e for e in self.events if e.day == day and e.keeps_busy(USER)), key=lambda e: (e.start, e.id))
        g.need(len(todays) >= 2 and todays[0].start < todays[1].start)
        first, minutes = todays[0], g.rng.choice((15, 30, 45, 60))
        g.know(minutes=minutes, label="number of minutes")
        g.put(when=spoken(day), title=first.title, start=first.start)
        g.call("list_events", day=day, why="the list of that day shows which meeting comes first")
        why = f"{first.title!r} at {first.start} is the first meeting of the day"
        done = g.call("add_reminder", event_id=first.id, minutes_before=minutes, why=why, check=self._shown(first.id))
        g.expect("reminders", done["reminder_id"], event_id=first.id, minutes_before=minutes)
        g.tell(first.title, first.start)

    # --- changes to one meeting ---

    @goal()
    def drop_meeting(self, g: Draft) -> None:
        """Find, look, confirm, cancel; the reason may have to be asked for."""
        event = g.pick(self._mine())
        reason = g.rng.choice(("no longer needed", "postponed", "too few participants"))
        vague = g.rng.random() < 0.4
        g.know(reason=reason, label="reason for cancelling", withheld=vague)
        if vague:
            g.variant("vague")
        self._find_meeting(g, event)
        g.subgoal("cancel the meeting", "its status is cancelled")
        what = f"cancel {event.id}, {event.title!r} on {event.day} at {event.start}, which sends a notice to {crowd(len(event.others))}"
        why = "the user organizes it and wants it off the calendar"
        g.call("cancel_event", event_id=event.id, reason=reason, why=why, confirm=what, check=self._shown(event.id))
        g.expect("events", event.id, status="cancelled", cancel_reason=reason)
        g.put(event_id=event.id, start=event.start)
        g.tell(event.id, event.start, ("cancelled", "off the calendar"))

    @goal()
    def shift_meeting(self, g: Draft) -> None:
        """To the earliest time of another day that suits all; a limit comes with the wish or only midway."""
        event = g.pick(e for e in self._mine() if len(e.others) <= 3)
        day = g.pick(one for one in OPEN_DAYS if one != event.day)
        limit = g.rng.choice(("10:00", "11:00", "13:00", "14:00", "15:00"))
        people = self._coming(event)
        start = self._window(g, people, day, event.minutes, limit)
        g.need(start != self._window(g, people, day, event.minutes))
        self._room_stays_free(g, event, day, start)
        late = g.rng.random() < 0.5
        g.know(limit=limit, label="earliest start")
        g.put(new_when=spoken(day))
        self._find_meeting(g, event)
        cap = g.constraint(f"the meeting starts at {limit} or later", limit)
        if late:
            g.variant("open")
            g.interject(f"One thing I forgot: it must not start before {limit}.", constraint=cap)
        g.subgoal("find a time that suits everybody", f"the earliest common time at {limit} or later is known", constraints=[cap])
        why = f"the new time has to suit everybody who is coming, at {limit} or later"
        g.call("find_free_slots", person_ids=people, day=day, minutes=event.minutes, not_before=limit, why=why)
        g.subgoal("move the meeting", "the calendar shows the new day and start", constraints=[cap])
        what = f"move {event.id}, {event.title!r}, to {spoken(day)} at {start}, which asks everybody again"
        g.call(
            "move_event",
            event_id=event.id,
            day=day,
            start=start,
            why=f"{start} is the earliest time that suits all",
            confirm=what,
            check=self._shown(event.id),
        )
        g.expect("events", event.id, day=day, start=start)
        g.put(event_id=event.id, start=start)
        g.tell(event.id, day, start)

    @goal()
    def keep_and_move(self, g: Draft) -> None:
        """Cancel, no, rather move: the user changes their mind once the meeting is on the table."""
        event = g.pick(e for e in self._mine() if len(e.others) <= 3)
        day = g.pick(one for one in OPEN_DAYS if one != event.day)
        people = self._coming(event)
        start = self._window(g, people, day, event.minutes)
        self._room_stays_free(g, event, day, start)
        g.know(reason="no longer needed", label="reason for cancelling")
        self._find_meeting(g, event)
        keep = g.constraint(f"{event.id} is kept, not cancelled", "not cancel")
        g.interject(
            f"Wait, don't cancel it after all. Please move it to {spoken(day)} at {start}, if everybody can make it.",
            constraint=keep,
            changes_goal=True,
        )
        g.subgoal("make sure that everybody can make the new time", f"{start} on {day} is seen to be free for all", constraints=[keep])
        why = f"everybody has to be free at {start} before the meeting goes there"
        g.call("find_free_slots", person_ids=people, day=day, minutes=event.minutes, not_before=start, why=why)
        g.subgoal("move the meeting", "the calendar shows the new day and start", constraints=[keep])
        what = f"keep {event.id} and move it to {spoken(day)} at {start}, which asks everybody again"
        why = f"all are free at {start}, and the user now wants the meeting then"
        g.call("move_event", event_id=event.id, day=day, start=start, why=why, confirm=what, check=self._shown(event.id))
        g.forbid("cancel_event", "the user wants to keep the meeting")
        g.expect("events", event.id, status="confirmed", day=day, start=start)
        g.put(event_id=event.id, start=start, new_when=spoken(day))
        g.tell(event.id, day, start)

    @goal()
    def room_for_meeting(self, g: Draft) -> None:
        """A room for a meeting that has none, or a better one; what it must have may come up midway."""
        event = g.pick(self._mine())
        wanted = g.rng.choice(("projector", "video", "whiteboard"))
        seats = len(event.attendees)
        any_room = self.free_rooms(event.day, event.start, event.minutes, seats)
        fitting = self.free_rooms(event.day, event.start, event.minutes, seats, equipment=wanted)
        g.need(fitting and fitting[0].id not in (any_room[0].id, event.room_id))
        room, late = fitting[0], g.rng.random() < 0.6
        g.know(equipment=wanted, label="equipment")
        self._find_meeting(g, event)
        must = g.constraint(f"the room has {wanted} equipment", wanted)
        if late:
            g.variant("open")
            g.interject(f"Before you pick one: the room needs {wanted} equipment.", constraint=must)
        g.subgoal("find a room", f"the smallest free room with {wanted} equipment for {seats} people is known", constraints=[must])
        why = f"the room has to be free then, with {wanted} equipment and {seats} seats"
        g.call("find_rooms", day=event.day, start=event.start, minutes=event.minutes, seats=seats, equipment=wanted, why=why)
        g.subgoal("book the room", "the meeting's record shows the room", constraints=[must])
        why = f"{room.name} is the smallest that fits"
        what = f"book {room.name} ({room.id}, {room.capacity} seats) for {event.id}"
        g.call("book_room", event_id=event.id, room_id=room.id, why=why, confirm=what, check=self._shown(event.id))
        g.expect("events", event.id, room_id=room.id)
        g.put(room=room.name, event_id=event.id)
        g.tell(room.name, event.id)

    @goal()
    def swap_participant(self, g: Draft) -> None:
        """One colleague for another in a meeting, if the new one is free."""
        event = g.pick(e for e in self._mine() if len(e.others) >= 2)
        old = self.people[g.pick(event.others)]
        new = self._colleague(g)
        g.need(new.id not in event.others and self.why_not([new.id], event.day, event.start, event.minutes) is None)
        g.put(old=old.name, new=new.name, new_team=new.team)
        free = g.constraint(f"{new.name} is invited only if free at that time", "free")
        self._find_meeting(g, event)
        g.subgoal("find the new participant", f"the id of {new.name} is known", after=[])
        self._find_colleague(g, new)
        g.subgoal("check the new participant's calendar", f"{new.name} is seen to be free then", constraints=[free])
        why = f"{new.name} has to be free at {event.start}"
        g.call("list_events", day=event.day, person_id=new.id, why=why)
        g.subgoal(
            "change the list of participants",
            f"{new.name} is invited, who is free, and {old.name} is not",
            after=["look at the meeting", "check the new participant's calendar"],
            constraints=[free],
        )
        what = f"take {old.name} off {event.id} and invite {new.name} in their place"
        why = f"{new.name} is free, so the place of {old.name} can be given away"
        g.call("remove_attendee", event_id=event.id, person_id=old.id, why=why, confirm=what, check=self._shown(event.id))
        why = f"{new.name} takes the place of {old.name}"
        g.call("add_attendee", event_id=event.id, person_id=new.id, why=why, check=self._shown(event.id))
        left: list[Json] = [{"person_id": a.person_id, "response": a.response} for a in event.attendees if a.person_id != old.id]
        g.expect("events", event.id, attendees=[*left, {"person_id": new.id, "response": "pending"}])
        g.put(event_id=event.id)
        g.tell(old.name, new.name, event.id)

    @goal()
    def tell_participants(self, g: Draft) -> None:
        """A note to all who are invited; it cannot be recalled."""
        event = g.pick(self._mine())
        text = g.rng.choice(MESSAGES)
        g.know(text=text, label="text of the note")
        self._find_meeting(g, event)
        g.subgoal("send the note", "the meeting's record shows that a note was sent")
        what = f'send this note to the {crowd(len(event.others))} invited to {event.id}: "{text}"'
        why = "the user organizes the meeting and gave the text"
        done = g.call("send_invitation_note", event_id=event.id, text=text, why=why, confirm=what, check=self._shown(event.id))
        g.expect("notes", done["note_id"], event_id=event.id)
        g.put(event_id=event.id, others=listed([self.people[one].name for one in event.others]))
        g.tell(event.id, *(self.people[one].name for one in event.others))

    # --- invitations and absence ---

    @goal()
    def answer_invitation(self, g: Draft) -> None:
        """Accept if the time is free, else decline: the calendar decides."""
        event = g.pick(e for e in self.events if e.response(USER) == "pending" and e.day >= TODAY_TEXT)
        clash = self.clash(event)
        answer = "declined" if clash else "accepted"
        g.put(title=event.title, host=self.people[event.organizer_id].name)
        rule = g.constraint("the invitation is accepted only if nothing else is accepted at that time, and declined otherwise", "accepted")
        g.subgoal("find the invitation", "its id, day and time are known")
        other = ("search_events", {"text": event.title})
        g.call("list_pending_invitations", why=f"the day and time of {event.title!r} are in the list of open invitations", fallback=other)
        g.subgoal("check the calendar", f"it is known whether anything is accepted from {event.start} on {event.day}", constraints=[rule])
        g.call("list_events", day=event.day, why="what else is accepted at that time decides the answer")
        g.subgoal(
            "answer the invitation",
            f"the record shows the answer, accepted or declined as the calendar of {event.day} says",
            constraints=[rule],
        )
        why = f"{clash.title!r} is at the same time" if clash else "nothing else is accepted at that time"
        g.call("respond_to_invitation", event_id=event.id, response=answer, why=why, check=self._shown(event.id))
        attendees: list[Json] = [
            {"person_id": a.person_id, "response": answer if a.person_id == USER else a.response} for a in event.attendees
        ]
        g.expect("events", event.id, attendees=attendees)
        because = f"{clash.title} is at the same time" if clash else "you have accepted nothing else at that time"
        g.put(answer=answer, because=because, when=spoken(event.day), start=event.start)
        g.tell(answer, event.day, event.start)
        if clash:
            g.tell(clash.title)

    @goal()
    def name_deputy(self, g: Draft) -> None:
        """Out of office, with the one of two colleagues as deputy who is there all the time."""
        team = [one for one in self.people.where(team=self.people[USER].team) if one.id != USER]
        absence = g.pick(one for one in self.absences if one.person_id in {p.id for p in team})
        away = self.people[absence.person_id]
        at = g.pick(number for number, day in enumerate(OPEN_DAYS) if absence.covers(day, day))
        days = OPEN_DAYS[max(0, at - g.rng.randint(0, 2)) : at + g.rng.randint(1, 3)]
        g.need(len(days) > 1)
        there = g.pick(one for one in team if not self._is_away(one.id, days[0], days[-1]))
        pair = g.some((away, there), 2)
        g.know(first_day=days[0], label="first day")
        g.know(last_day=days[-1], label="last day")
        g.put(pair=listed([one.name for one in pair]).replace(" and ", " or "), team=there.team)
        rule = g.constraint("the deputy is not away in that time", "away")
        g.subgoal("find the two colleagues", "both ids are known")
        with g.parallel():
            for one in pair:
                self._find_colleague(g, one)
        g.subgoal("see who is there", f"it is known who of them is away between {days[0]} and {days[-1]}", constraints=[rule])
        with g.parallel():
            for one in pair:
                other: tuple[str, dict[str, Json]] = ("get_person", {"person_id": one.id})
                g.call("list_absences", person_id=one.id, why=f"{one.name} must not be away in that time", fallback=other)
        g.subgoal("set the out-of-office period", "the period stands, with a deputy who is not away", constraints=[rule])
        what = f"mark you as out of office from {days[0]} to {days[-1]} with {there.name} as deputy"
        why = f"{there.name} is there all the time and {away.name} is not"
        done = g.call(
            "set_out_of_office",
            first_day=days[0],
            last_day=days[-1],
            deputy_id=there.id,
            why=why,
            confirm=what,
            check=("list_absences", {}),
        )
        g.expect("absences", done["absence_id"], person_id=USER, first_day=days[0], last_day=days[-1], deputy_id=there.id)
        g.put(deputy=there.name, absent=away.name)
        g.tell(there.name, away.name, days[0], days[-1])

    @goal()
    def clear_for_leave(self, g: Draft) -> None:
        """Days off: own meetings are cancelled, invitations declined, a deputy named. Up to a dozen calls."""
        first = g.rng.randrange(len(OPEN_DAYS))
        days = OPEN_DAYS[first : first + g.rng.choice((1, 1, 2))]
        mine, invited = self._meetings(days)
        g.need(all(one.others for one in mine) and mine and invited and 2 * len(mine) + len(invited) <= 8)
        team = [one for one in self.people.where(team=self.people[USER].team) if one.id != USER]
        deputy = g.pick(one for one in team if not self._is_away(one.id, days[0], days[-1]))
        g.know(first_day=days[0], label="first day")
        g.know(last_day=days[-1], label="last day")
        g.put(days=listed([spoken(day) for day in days]), deputy=deputy.name, team=deputy.team)
        rule = g.constraint("invitations by other people are declined, not cancelled", "declined")
        g.subgoal("list what is planned", "all meetings of the time away are known")
        with g.parallel():
            for day in days:
                g.call("list_events", day=day, why=f"the meetings of {day} have to be known")
        g.subgoal("look at the user's own meetings", "participants of each are known")
        with g.parallel():
            for event in mine:
                g.call("get_event", event_id=event.id, why=f"{event.id} is looked at before it is cancelled")
        g.subgoal("cancel the user's own meetings", "each of them has the status cancelled")
        for event in mine:
            what = f"cancel {event.id}, {event.title!r} on {event.day} at {event.start}, which sends a notice to {crowd(len(event.others))}"
            why = f"{event.title!r} cannot take place without the user, who organizes it"
            g.call("cancel_event", event_id=event.id, reason="user away", why=why, confirm=what, check=self._shown(event.id))
            g.expect("events", event.id, status="cancelled", cancel_reason="user away")
        g.subgoal(
            "decline the invitations", "each invitation by other people is declined", after=["list what is planned"], constraints=[rule]
        )
        for event in invited:
            why = f"{event.title!r} is organized by somebody else, so it is declined"
            g.call("respond_to_invitation", event_id=event.id, response="declined", why=why, check=self._shown(event.id))
            answered: list[Json] = [
                {"person_id": a.person_id, "response": "declined" if a.person_id == USER else a.response} for a in event.attendees
            ]
            g.expect("events", event.id, attendees=answered)
        g.subgoal("find the deputy", f"the id of {deputy.name} is known", after=[])
        self._find_colleague(g, deputy)
        g.subgoal("set the out-of-office period", "the period stands, with the deputy's name")
        time = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
        what = f"mark you as out of office {time} with {deputy.name} as deputy"
        why = f"the calendar is clear and {deputy.name} stands in"
        done = g.call(
            "set_out_of_office",
            first_day=days[0],
            last_day=days[-1],
            deputy_id=deputy.id,
            why=why,
            confirm=what,
            check=("list_absences", {}),
        )
        g.expect("absences", done["absence_id"], person_id=USER, first_day=days[0], last_day=days[-1], deputy_id=deputy.id)
        g.put(cancelled=listed([e.id for e in mine]), declined=listed([e.id for e in invited]))
        g.tell(*(e.id for e in [*mine, *invited]), deputy.name)

    def _meetings(self, days: Sequence[str]) -> tuple[list[Event], list[Event]]:
        """What the user has on these days: organized by them, and by others."""
        found = sorted((e for e in self.events if e.day in days and e.keeps_busy(USER)), key=lambda e: (e.day, e.start, e.id))
        return [e for e in found if e.organizer_id == USER], [e for e in found if e.organizer_id != USER]

    # --- new meetings ---

    @goal()
    def meet_colleague(self, g: Draft) -> None:
        """Person, time, room, meeting: each depends on the one before. The length may have to be asked for."""
        person, day = self._colleague(g, "Vienna"), g.pick(OPEN_DAYS)
        minutes, purpose = g.rng.choice((30, 45, 60, 75)), g.rng.choice(PURPOSES)
        start = self._window(g, [person.id], day, minutes)
        rooms = self.free_rooms(day, start, minutes, 2)
        g.need(rooms)
        room, vague = rooms[0], g.rng.random() < 0.45
        g.know(purpose=purpose, label="title")
        g.know(minutes=minutes, label="length in minutes", withheld=vague)
        if vague:
            g.variant("vague")
        g.put(name=person.name, team=person.team, when=spoken(day))
        g.subgoal("find the colleague", f"the id of {person.name} is known")
        self._find_colleague(g, person)
        g.subgoal("find a time", "the earliest time when both are free is known")
        g.call("find_free_slots", person_ids=[person.id], day=day, minutes=minutes, why="both calendars have to be free")
        g.subgoal("find a room", "the smallest free room for two is known")
        g.call("find_rooms", day=day, start=start, minutes=minutes, seats=2, why=f"a room for two is needed at {start}")
        g.subgoal("set up the meeting", "the calendar shows the meeting with its id")
        what = f"set up {purpose!r} with {person.name} on {spoken(day)} at {start} for {minutes} minutes in {room.name}"
        why = f"both are free at {start} and {room.name} is the smallest free room"
        event_id = self._create(g, [person.id], why, what, title=purpose, day=day, start=start, minutes=minutes, room_id=room.id)
        g.put(event_id=event_id, start=start, room=room.name)
        g.tell(event_id, start, room.name)

    @goal()
    def call_abroad(self, g: Draft) -> None:
        """A call with an office in another time zone; the user wants to know both times."""
        person, day = self._colleague(g, "Lisbon", "Turku", "Toronto"), g.pick(OPEN_DAYS)
        minutes, purpose = g.rng.choice((30, 45, 60)), g.rng.choice(PURPOSES)
        start = self._window(g, [person.id], day, minutes)
        there = clock(minute(start) + 60 * OFFSETS[person.office])
        g.know(purpose=purpose, label="title")
        g.know(minutes=minutes, label="length in minutes")
        g.put(name=person.name, team=person.team, office=person.office, when=spoken(day))
        rule = g.constraint("the call lies within the working hours of both", "hours")
        g.subgoal("find the colleague", f"the id of {person.name} is known")
        self._find_colleague(g, person)
        g.subgoal("learn about the time zone", f"the time difference and working hours in {person.office} are known", constraints=[rule])
        g.call("get_person", person_id=person.id, why=f"the time difference of {person.office} is in the record")
        g.subgoal("find a time", "the earliest time when both are free and within their hours is known", constraints=[rule])
        g.call("find_free_slots", person_ids=[person.id], day=day, minutes=minutes, why="both have to be free and at work")
        g.subgoal("set up the call", "the calendar shows the call with its id")
        when = f"on {spoken(day)} at {start} Vienna time, {there} in {person.office}, for {minutes} minutes"
        what = f"set up {purpose!r} with {person.name} {when}"
        why = f"{start} is the earliest time when both are at work and free"
        event_id = self._create(g, [person.id], why, what, title=purpose, day=day, start=start, minutes=minutes)
        g.put(event_id=event_id, start=start, there=there)
        g.tell(event_id, start, there)

    @goal()
    def plan_workshop(self, g: Draft) -> None:
        """Three people, a time, a room with equipment, the meeting, a reminder and a note: eight calls."""
        guests, day = g.some((one for one in self.people if one.id != USER and one.office != "Toronto"), 3), g.pick(OPEN_DAYS)
        minutes, title, wanted = g.rng.choice((60, 90, 120)), g.rng.choice(WORKSHOPS), g.rng.choice(("projector", "video", "whiteboard"))
        ids = [one.id for one in guests]
        start = self._window(g, ids, day, minutes)
        rooms = self.free_rooms(day, start, minutes, 4, equipment=wanted)
        g.need(rooms)
        room, before, text = rooms[0], g.rng.choice((15, 30, 60)), g.rng.choice(MESSAGES)
        g.know(title=title, text=text, equipment=wanted)
        g.know(minutes=minutes, label="length in minutes")
        g.know(before=before, label="minutes for the reminder")
        g.put(names=listed([f"{one.name} ({one.team})" for one in guests]), when=spoken(day))
        must = g.constraint(f"the room has {wanted} equipment", wanted)
        g.subgoal("find the three people", "all three ids are known")
        with g.parallel():
            for one in guests:
                self._find_colleague(g, one)
        g.subgoal("find a time", "the earliest time when all four are free is known")
        g.call("find_free_slots", person_ids=ids, day=day, minutes=minutes, why="all four have to be free")
        g.subgoal("find a room", f"the smallest free room with {wanted} equipment for four is known", constraints=[must])
        g.call(
            "find_rooms",
            day=day,
            start=start,
            minutes=minutes,
            seats=4,
            equipment=wanted,
            why=f"four seats and {wanted} equipment are needed at {start}",
        )
        g.subgoal("set up the workshop", f"the calendar shows it, in the room with {wanted} equipment", constraints=[must])
        invited = listed([one.name for one in guests])
        what = f"set up {title!r} on {spoken(day)} at {start} for {minutes} minutes in {room.name} and invite {invited}"
        why = f"everybody is free at {start} and {room.name} has what is needed"
        event_id = self._create(g, ids, why, what, title=title, day=day, start=start, minutes=minutes, room_id=room.id)
        g.subgoal("add the reminder", f"the workshop has a reminder {before} minutes before", after=["set up the workshop"])
        reminder = g.call(
            "add_reminder",
            event_id=event_id,
            minutes_before=before,
            why="the workshop exists now and can be given its reminder",
            check=self._shown(event_id),
        )
        g.expect("reminders", reminder["reminder_id"], event_id=event_id, minutes_before=before)
        g.subgoal("send the note", "the record shows that the note was sent", after=["set up the workshop"])
        what = f'send this note to the three participants of {event_id}: "{text}"'
        note = g.call(
            "send_invitation_note",
            event_id=event_id,
            text=text,
            why="everybody is invited and can be told",
            confirm=what,
            check=self._shown(event_id),
        )
        g.expect("notes", note["note_id"], event_id=event_id)
        g.put(event_id=event_id, start=start, room=room.name)
        g.tell(event_id, start, room.name)

    def _create(self, g: Draft, guests: list[str], why: str, what: str, *, title: str, day: str, **fields: Json) -> str:
        """Create an event and expect it, whatever its title has become."""
        check: tuple[str, dict[str, Json]] = ("list_events", {"day": day})
        done = g.call("create_event", title=title, day=day, attendee_ids=guests, why=why, confirm=what, check=check, **fields)
        attendees: list[Json] = [{"person_id": USER, "response": "accepted"}]
        attendees += [{"person_id": one, "response": "pending"} for one in guests]
        g.expect(
            "events", done["event_id"], status="confirmed", organizer_id=USER, attendees=attendees, day=day, **{"room_id": None, **fields}
        )
        return str(done["event_id"])

    # --- what cannot be done ---

    @goal(kinds=("tool_call",))
    def refuse_foreign_meeting(self, g: Draft) -> None:
        """Somebody else's meeting can be neither cancelled nor moved."""
        event = g.pick(e for e in self.events if e.day in OPEN_DAYS and e.keeps_busy(USER) and e.organizer_id != USER)
        g.put(verb=g.rng.choice(("cancel", "postpone")))
        self._find_meeting(g, event)
        g.refuse()
        g.forbid("cancel_event", "the user does not organize the meeting")
        g.forbid("move_event", "the user does not organize the meeting")
        g.put(host=self.people[event.organizer_id].name)
        g.tell(self.people[event.organizer_id].name, CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_odd_hours(self, g: Draft) -> None:
        """A call at a time when the colleague abroad does not work yet, or no more."""
        person, day = self._colleague(g, "Toronto", "Turku"), g.pick(OPEN_DAYS)
        opens, closes = working_hours(person)
        start = g.rng.choice(("09:00", "10:00", "11:00", "13:30") if person.office == "Toronto" else ("16:15", "16:30"))
        g.need(not opens <= minute(start) <= closes - 45 and not LUNCH[0] <= minute(start) < LUNCH[1])
        g.put(name=person.name, team=person.team, when=spoken(day), start=start)
        g.put(opens=clock(opens), closes=clock(closes))
        g.subgoal("find the colleague", f"the id of {person.name} is known")
        self._find_colleague(g, person)
        g.subgoal("learn the working hours", "they are known in Vienna time")
        g.call("get_person", person_id=person.id, why="a meeting has to lie within the working hours of everybody")
        g.refuse()
        g.forbid("create_event", "the colleague does not work at that time")
        g.tell(clock(opens), clock(closes), CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_private(self, g: Draft) -> None:
        """What a colleague keeps private is not found out for anybody."""
        event = g.pick(e for e in self.events if e.private and e.organizer_id != USER)
        person = self.people[event.organizer_id]
        g.put(name=person.name, team=person.team, when=spoken(event.day), start=event.start)
        g.subgoal("find the colleague", f"the id of {person.name} is known")
        self._find_colleague(g, person)
        g.subgoal("look at the calendar", "what the entry shows to others is known")
        g.call("list_events", day=event.day, person_id=person.id, why="what a colleague shares of a day is in their calendar")
        g.refuse()
        g.forbid("get_event", "the entry is private", event_id=event.id)
        g.tell("private", CANNOT)

    @goal(kinds=("tool_call",))
    def no_such_service(self, g: Draft) -> None:
        """Nothing here does that: no call at all."""
        thing = g.rng.choice(SERVICES)
        g.put(thing=thing)
        g.refuse()
        g.tell(CANNOT)
