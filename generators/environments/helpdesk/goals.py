"""What employees come to the help desk for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.helpdesk.tools import (
    HOW_TO,
    PROGRAMS,
    SERVICES,
    TEAM_OF,
    TODAY,
    WORKAROUNDS,
    AccessRequest,
    Device,
    Employee,
    HelpdeskTools,
    Ticket,
    working_day,
)  # fmt: skip
from tracemill.trace import Kind

NO_PLAN: tuple[Kind, ...] = ("tool_call", "error_recovery")
ENDS = ("2026-06-30", "2026-07-31", "2026-08-31", "2026-09-30")


def _the(service: str) -> str:
    """A service's name as it stands in a sentence."""
    return service if service in ("e-mail", "single sign-on", "video conferencing") else f"the {service}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


class Helpdesk(HelpdeskTools):
    def _identify(self, g: Draft, employee: Employee) -> None:
        """Half of the people give their e-mail, half their name and department; each way can stand in for the other."""
        name, department, email = employee.name, employee.department, employee.email
        g.subgoal("identify the employee", "the employee's id is known")
        why = "the employee's record has to be found before anything of theirs is looked at"
        if g.rng.random() < 0.5:
            g.put(who=f"I sign in as {email}")
            g.know(email=email, label="e-mail address")
            g.know(name=name, label="full name")
            g.know(department=department)
            g.call(
                "find_employee_by_email", email=email, why=why, fallback=("find_employee_by_name", {"name": name, "department": department})
            )
        else:
            g.put(who=f"I'm {name} from {department}")
            g.know(email=email, label="e-mail address")
            g.call(
                "find_employee_by_name", name=name, department=department, why=why, fallback=("find_employee_by_email", {"email": email})
            )

    def _open_of(self, employee_id: str) -> list[Ticket]:
        return [one for one in self.tickets.where(employee_id=employee_id) if one.status != "closed"]

    def _in_use(self, employee_id: str, kind: str) -> list[Device]:
        return [one for one in self.devices.where(employee_id=employee_id, kind=kind) if one.status == "in use"]

    def _requests(self, status: str, privileged: bool | None = None) -> Iterable[AccessRequest]:
        return (r for r in self.access_requests.where(status=status) if privileged in (None, self.groups[r.group_id].privileged))

    def _least_busy(self, ticket: Ticket) -> str:
        """The technician to take a ticket: the first whom the look-up lists."""
        first: str = self.list_technicians(TEAM_OF[ticket.category])[0]["technician_id"]
        return first

    def _grant(self, g: Draft, request: AccessRequest, until: str | None, why: str, confirm: str) -> None:
        account = self.accounts[self.employees[request.employee_id].account_id]
        arguments: dict[str, Any] = {"account_id": account.id, "group_id": request.group_id, "request_id": request.id}
        if until:
            arguments["until"] = until
        g.call("grant_group", **arguments, why=why, confirm=confirm, check=("get_account", {"account_id": account.id}))
        groups = [{"group_id": m.group_id, "name": m.name, "until": m.until} for m in account.groups]
        g.expect("accounts", account.id, groups=[*groups, {"group_id": request.group_id, "name": request.group, "until": until}])
        g.expect("access_requests", request.id, status="fulfilled")

    # --- questions ---

    @goal(kinds=NO_PLAN)
    def service_health(self, g: Draft) -> None:
        """One call: does it work?"""
        broken = g.rng.random() < 0.7
        service = g.pick(one for one in self.services if (one.incident_id is not None) == broken)
        g.know(service=service.name)
        g.put(the_service=_the(service.name))
        found = g.call(
            "get_service_status",
            service=service.name,
            why=f"the status of {_the(service.name)} is recorded there",
            fallback=("list_services", {}),
        )
        incident = found["incident"]
        if incident:
            until = incident["expected_by"]
            g.put(report=f"{_the(service.name)} is {service.status} because of incident {incident['id']}, which should be over by {until}")
            g.tell(service.status, incident["id"], incident["expected_by"])
        else:
            g.put(report=f"{_the(service.name)} is operational, and no incident is open")
            g.tell("operational")

    @goal(kinds=NO_PLAN)
    def ticket_news(self, g: Draft) -> None:
        """One call: how far is my ticket?"""
        ticket = g.pick(self.tickets)
        g.know(ticket_id=ticket.id, label="ticket number")
        g.put(status=ticket.status, priority=ticket.priority, opened_on=ticket.opened_on)
        g.call("get_ticket", ticket_id=ticket.id, why="the ticket's record holds its status and priority")
        g.tell(ticket.id, ticket.status, ticket.priority)

    @goal(kinds=NO_PLAN)
    def how_to(self, g: Draft) -> None:
        """One call: the knowledge base has the answer."""
        topic, text, key = g.pick(HOW_TO)
        g.put(topic=topic)
        found = g.call("search_articles", query=topic, why=f"an article may say how to {topic}")
        g.need(found[0]["text"] == text)
        g.put(article=found[0]["id"], text=text)
        g.tell(key)

    @goal(kinds=NO_PLAN)
    def morning_round(self, g: Draft) -> None:
        """Three services at once."""
        names = g.some(SERVICES, 3)
        bad = [one for one in self.services if one.name in names and one.incident_id]
        g.need(1 <= len(bad) <= 2)
        g.put(services=_listed([_the(name) for name in names]))
        with g.parallel():
            for name in names:
                g.call("get_service_status", service=name, why=f"{_the(name)} is one of the three to check", fallback=("list_services", {}))
        g.put(
            report=_listed([f"{_the(one.name)} is {one.status} (incident {one.incident_id})" for one in bad]),
            rest=_listed([_the(name) for name in names if name not in [one.name for one in bad]]),
        )
        for one in bad:
            assert one.incident_id is not None
            g.tell(one.name, one.status, one.incident_id)

    @goal()
    def warranty_first(self, g: Draft) -> None:
        """Independent look-ups of all of a person's devices, and a comparison."""
        employee = g.pick(self.employees)
        devices = self.devices.where(employee_id=employee.id)
        g.need(len(devices) >= 2 and len({one.warranty_until for one in devices}) == len(devices))
        self._identify(g, employee)
        g.subgoal("find the devices", "the ids of all devices are known")
        g.call("list_devices", employee_id=employee.id, why="the ids of the devices have to be found")
        g.subgoal("read the warranty of each device", "the end of every warranty is known")
        with g.parallel():
            for one in devices:
                g.call("get_device", device_id=one.id, why=f"the warranty of {one.id} is in its record")
        first = min(devices, key=lambda one: one.warranty_until)
        tense = "ended" if first.warranty_until < TODAY.isoformat() else "ends"
        g.put(device=first.id, kind=first.kind, model=first.model, until=first.warranty_until, tense=tense)
        g.tell(first.id, first.warranty_until)

    # --- accounts and groups ---

    @goal()
    def forgotten_password(self, g: Draft) -> None:
        """A reset, which ends all sessions. The badge number may have to be asked for."""
        account = g.pick(one for one in self.accounts if one.state != "security hold")
        employee = self.employees[account.employee_id]
        vague = g.rng.random() < 0.5
        g.know(badge=employee.badge, label="badge number", withheld=vague)
        if vague:
            g.variant("vague")
        self._identify(g, employee)
        g.subgoal("find the account", "the id of the account is known")
        g.call("get_employee", employee_id=employee.id, why="the employee's record names the account")
        g.subgoal("make sure the password may be reset", "the account is seen not to be on security hold")
        g.call("get_account", account_id=account.id, why="an account on security hold must not be reset")
        g.subgoal("reset the password", "the temporary password is on its way to the employee's phone")
        phone = f"the phone ending in {employee.phone_ending}"
        what = f"reset the password of {account.id}, which ends all its sessions, and send a temporary one to {phone}"
        g.call(
            "reset_password",
            account_id=account.id,
            badge_number=employee.badge,
            why="the account is not on hold and the badge number is known",
            confirm=what,
        )
        g.expect("accounts", account.id, state="active", sessions=0, failed_logins=0, password_changed=TODAY.isoformat())
        g.put(phone=employee.phone_ending, account=account.id)
        g.tell(employee.phone_ending)

    @goal()
    def locked_out(self, g: Draft) -> None:
        """Unlock, and close the ticket that was opened about it."""
        account = g.pick(self.accounts.where(state="locked"))
        employee = self.employees[account.employee_id]
        about = [one for one in self._open_of(employee.id) if one.category == "account"]
        g.need(len(about) == 1 and len(self._open_of(employee.id)) <= 6 and about[0].technician_id)
        ticket = about[0]
        vague = g.rng.random() < 0.6
        g.know(badge=employee.badge, label="badge number", withheld=vague)
        if vague:
            g.variant("vague")
        self._identify(g, employee)
        g.subgoal("find the account and the ticket", "the ids of the account and of the open account ticket are known")
        with g.parallel():
            g.call("get_employee", employee_id=employee.id, why="the employee's record names the account")
            g.call("list_tickets", employee_id=employee.id, why="the ticket about the account has to be found")
        g.subgoal("make sure the account is locked by failed sign-ins", "the account is seen to be locked and not on security hold")
        g.call("get_account", account_id=account.id, why="the state of the account decides whether it can be unlocked")
        g.subgoal("unlock the account", "the account is active again")
        what = f"unlock account {account.id} and then close ticket {ticket.id} as solved"
        g.call(
            "unlock_account",
            account_id=account.id,
            badge_number=employee.badge,
            why=f"{account.id} is only locked and the badge number is known",
            confirm=what,
        )
        g.expect("accounts", account.id, state="active", failed_logins=0)
        g.subgoal("close the ticket", "the ticket is closed as solved")
        g.call("get_ticket", ticket_id=ticket.id, why="a ticket has to be assigned before it is closed")
        g.call(
            "close_ticket", ticket_id=ticket.id, resolution="solved", why="the account works again, so the ticket has served its purpose"
        )
        g.expect("tickets", ticket.id, status="closed", resolution="solved")
        g.put(account=account.id, ticket_id=ticket.id)
        g.tell(ticket.id, ("active", "unlocked", "open again"))

    @goal()
    def join_group(self, g: Draft) -> None:
        """The request is approved; what is left is to grant it. Half of the time a limit in time comes midway."""
        request = g.pick(self._requests("approved"))
        employee = self.employees[request.employee_id]
        late = g.rng.random() < 0.5
        until = g.rng.choice(ENDS) if late else None
        g.know(group=request.group)
        self._identify(g, employee)
        limit = g.constraint(f"the membership ends on {until}", until) if until else None
        limits = [] if limit is None else [limit]
        g.subgoal("find the account and the approved request", f"an approved request for {request.group} and the account's id are known")
        with g.parallel():
            g.call("get_employee", employee_id=employee.id, why="the employee's record names the account")
            g.call("list_access_requests", employee_id=employee.id, why=f"{request.group} is granted only on an approved request")
        g.subgoal("look at the account", f"the account is seen not to be in {request.group}")
        g.call("get_account", account_id=employee.account_id, why="the present groups have to be seen before one is added")
        if until:
            g.interject(f"One more thing: I only need this until {until}, so let it end on that day.", constraint=limit)
        end = f" until {until}" if until else ""
        g.subgoal("grant the group", f"the account is in {request.group}{end}", constraints=limits)
        why = f"request {request.id} is approved"
        self._grant(g, request, until, why, f"add account {employee.account_id} to {request.group}{end} on request {request.id}")
        g.put(request_id=request.id, end=f", until {until}" if until else "")
        g.tell(request.group, request.id)
        if until:
            g.tell(until)

    @goal()
    def ask_for_access(self, g: Draft) -> None:
        """No request yet: one is made, and the right person has to approve it."""
        employee = g.pick(one for one in self.employees if one.manager_id)
        known = [one.group_id for one in self.accounts[employee.account_id].groups]
        known += [one.group_id for one in self.access_requests.where(employee_id=employee.id)]
        group = g.pick(one for one in self.groups if one.id not in known)
        reason = g.rng.choice(("cover during leave", "project work", "month-end closing", "new duties"))
        g.know(group=group.name)
        g.know(reason=reason)
        self._identify(g, employee)
        g.subgoal("look at the group and at earlier requests", f"it is known who approves {group.name} and that nothing is pending")
        with g.parallel():
            g.call("get_group", name=group.name, why=f"the id of {group.name} and its rule of approval are needed")
            g.call("list_access_requests", employee_id=employee.id, why="a request that exists must not be made again")
        g.subgoal("make the request", "the request is pending with its approver")
        what = f"open an access request for {group.name} in your name (reason: {reason})"
        done = g.call(
            "request_access",
            employee_id=employee.id,
            group_id=group.id,
            reason=reason,
            why=f"there is no request for {group.name} yet",
            confirm=what,
            check=("list_access_requests", {"employee_id": employee.id}),
        )
        g.expect("access_requests", done["request_id"], employee_id=employee.id, group_id=group.id, status="pending")
        g.forbid("grant_group", "nobody has approved it")
        g.put(request_id=done["request_id"], approver=done["approver"])
        g.tell(done["request_id"], done["approver"])

    @goal()
    def manager_approves(self, g: Draft) -> None:
        """A manager approves what a report asked for, and it is granted, with an end that may come only midway."""
        request = g.pick(self._requests("pending", privileged=True))
        manager, employee = self.employees[request.approver_id], self.employees[request.employee_id]
        until = g.rng.choice(ENDS)
        late = g.rng.random() < 0.5
        g.know(request_id=request.id, label="request number")
        g.put(until=until)
        if late:
            g.variant("open")
        self._identify(g, manager)
        limit = g.constraint(f"the membership ends on {until}", until)
        g.subgoal("read the request", "the person, the group and the approver are known")
        g.call("get_access_request", request_id=request.id, why="it has to be seen who asks for what, and who may approve it")
        g.subgoal("check the person and the group", "the person reports to the manager and it is known whether the group is privileged")
        with g.parallel():
            g.call("get_employee", employee_id=employee.id, why=f"the manager of {employee.id} has to be the one who writes")
            g.call("get_group", name=request.group, why=f"who approves depends on whether {request.group} is privileged")
        g.subgoal("look at the account", f"the account is seen not to be in {request.group}")
        g.call("get_account", account_id=employee.account_id, why="the present groups have to be seen before one is added")
        if late:
            g.interject(f"Please note that this has to end on {until}; it is not for good.", constraint=limit)
        g.subgoal("record the decision", "the request is approved")
        what = f"record your approval of {request.id} and add {employee.name} to {request.group} until {until}"
        check = ("get_access_request", {"request_id": request.id})
        g.call(
            "decide_request",
            request_id=request.id,
            approver_id=manager.id,
            decision="approved",
            why="the one who writes is the approver of the request",
            confirm=what,
            check=check,
        )
        g.subgoal("grant the group", f"the account is in {request.group} until {until}", constraints=[limit])
        self._grant(g, request, until, f"{request.id} is approved now", "")
        g.expect("access_requests", request.id, decided_on=TODAY.isoformat())
        g.put(group=request.group, employee=employee.name)
        g.tell(request.id, request.group, until)

    @goal()
    def team_change(self, g: Draft) -> None:
        """Somebody leaves a team: every privileged group goes, up to a dozen dependent calls."""
        accounts = [one for one in self.accounts if any(self.groups[m.group_id].privileged for m in one.groups)]
        account = g.pick(accounts)
        employee = self.employees[account.employee_id]
        g.need(employee.manager_id)
        assert employee.manager_id is not None
        privileged = [m for m in account.groups if self.groups[m.group_id].privileged]
        kept = g.rng.choice(privileged) if len(privileged) > 1 and g.rng.random() < 0.6 else None
        gone = [m for m in privileged if m is not kept]
        g.know(employee=employee.name)
        self._identify(g, self.employees[employee.manager_id])
        only = g.constraint("only privileged groups are revoked", "privileged")
        g.subgoal("find the person who leaves the team", "the person is seen to report to the manager, and the account's id is known")
        other = ("find_employee_by_email", {"email": employee.email})
        g.call(
            "find_employee_by_name",
            name=employee.name,
            department=employee.department,
            why=f"the record of {employee.name} has to be found",
            fallback=other,
        )
        g.call("get_employee", employee_id=employee.id, why="the manager and the account stand in the employee's record")
        g.subgoal("read the groups of the account", "the groups of the account are known")
        g.call("get_account", account_id=account.id, why="the groups of the account have to be seen")
        g.subgoal("find out which groups are privileged", "it is known for every group whether it is privileged", constraints=[only])
        with g.parallel():
            for m in account.groups:
                g.call("get_group", name=m.name, why=f"the record of {m.name} says whether it is privileged")
        stays = []
        if kept:
            keep = g.constraint(f"the group {kept.name} stays", kept.name)
            g.interject(f"Sorry, leave {kept.name} in place for now; it is needed for the handover.", constraint=keep)
            g.forbid("revoke_group", "it is needed for the handover", group_id=kept.group_id)
            stays = [keep]
        but = f", with {kept.name} left in place" if kept else ""
        g.subgoal("revoke the privileged groups", f"the account is in no privileged group any more{but}", constraints=[only, *stays])
        names = _listed([m.name for m in gone])
        for number, m in enumerate(gone):
            what = f"take {employee.name} out of {names}" if number == 0 else ""
            g.call(
                "revoke_group",
                account_id=account.id,
                group_id=m.group_id,
                why=f"{m.name} is privileged",
                confirm=what,
                check=("get_account", {"account_id": account.id}),
            )
            g.tell(m.name)
        left = [m for m in account.groups if m not in gone]
        g.expect("accounts", account.id, groups=[{"group_id": m.group_id, "name": m.name, "until": m.until} for m in left])
        g.put(gone=names, left=_listed([m.name for m in left]))

    # --- devices ---

    @goal()
    def stolen_laptop(self, g: Draft) -> None:
        """Report it, have it wiped, and order another one within the budget: eleven calls."""
        employee = g.pick(self.employees)
        laptops = self._in_use(employee.id, "laptop")
        g.need(len(laptops) == 1 and len(self.devices.where(employee_id=employee.id, kind="laptop")) == 1)
        laptop = laptops[0]
        centre = self.cost_centres[employee.cost_centre_id]
        memory = g.rng.choice((16, 32))
        stocked = [one for one in self.hardware.where(kind="laptop") if one.stock and one.price <= centre.budget_left]
        fitting = sorted((one for one in stocked if one.memory_gb >= memory), key=lambda one: (one.price, one.id))
        g.need(fitting)
        new = fitting[0]
        late = g.rng.random() < 0.5
        place = g.rng.choice(("on the train", "from my car", "at a conference", "in a café"))
        g.put(place=place, memory=memory)
        self._identify(g, employee)
        budget = g.constraint("the new laptop fits what is left of the department's budget", "budget")
        size = g.constraint(f"the new laptop has at least {memory} GB of memory", f"{memory} GB")
        g.subgoal("find the laptop", "the stolen laptop is known")
        g.call("list_devices", employee_id=employee.id, why="the id of the laptop has to be found")
        with g.parallel():
            g.call("get_device", device_id=laptop.id, why="a device is looked at before it is reported and wiped")
            g.call("get_employee", employee_id=employee.id, why="the cost centre that pays stands in the employee's record")
        g.subgoal("report the theft", "a lost-or-stolen ticket about the laptop is with a technician of the security team")
        what = f"report laptop {laptop.id} as stolen and have the security team take over the ticket"
        check = ("list_tickets", {"employee_id": employee.id})
        opened = g.call(
            "create_ticket",
            employee_id=employee.id,
            category="lost or stolen",
            subject=f"Laptop stolen {place}",
            device_id=laptop.id,
            why=f"{laptop.id} can be wiped only on a lost-or-stolen ticket",
            confirm=what,
            check=check,
        )
        ticket = self.tickets[opened["ticket_id"]]
        technician = self._least_busy(ticket)
        g.call("list_technicians", team="security", why="the ticket goes to the one with the fewest open tickets")
        g.call(
            "assign_ticket",
            ticket_id=ticket.id,
            technician_id=technician,
            why=f"{technician} has the fewest open tickets in security",
            check=("get_ticket", {"ticket_id": ticket.id}),
        )
        g.expect(
            "tickets",
            ticket.id,
            employee_id=employee.id,
            category="lost or stolen",
            device_id=laptop.id,
            technician_id=technician,
            status="in progress",
        )
        g.subgoal("wipe the laptop", "the laptop's status is wiped")
        what = f"wipe laptop {laptop.id} for good on ticket {ticket.id}"
        g.call(
            "wipe_device",
            device_id=laptop.id,
            ticket_id=ticket.id,
            why=f"{laptop.id} is stolen and ticket {ticket.id} is about it",
            confirm=what,
            check=("get_device", {"device_id": laptop.id}),
        )
        g.expect("devices", laptop.id, status="wiped", software=[])
        if late:
            g.variant("open")
            g.interject(f"By the way, the new laptop needs at least {memory} GB of memory for my work.", constraint=size)
        g.subgoal(
            "choose a replacement",
            f"the cheapest laptop in stock with {memory} GB or more, within the budget, is chosen",
            constraints=[budget, size],
        )
        g.call("get_cost_centre", cost_centre_id=centre.id, why="what is left of the budget bounds the price")
        g.call("list_hardware", kind="laptop", max_price=centre.budget_left, why="the cheapest fitting laptop in stock has to be found")
        g.subgoal("order the replacement", f"a laptop with {memory} GB or more is ordered within the budget", constraints=[budget, size])
        what = f"order the {new.name} for {new.price:.2f} on cost centre {centre.id}"
        done = g.call(
            "order_replacement",
            employee_id=employee.id,
            device_id=laptop.id,
            hardware_id=new.id,
            ticket_id=ticket.id,
            why=f"the {new.name} is the cheapest that fits",
            confirm=what,
            check=("get_cost_centre", {"cost_centre_id": centre.id}),
        )
        self._expect_order(g, employee, laptop, new.id, ticket.id, done["order_id"])
        g.put(
            ticket_id=ticket.id,
            device=laptop.id,
            model=new.name,
            price=f"{new.price:.2f}",
            order_id=done["order_id"],
            arrives=done["arrives_on"],
        )
        g.tell(ticket.id, laptop.id, new.name, new.price, done["order_id"])

    def _expect_order(self, g: Draft, employee: Employee, old: Device, hardware_id: str, ticket_id: str, order_id: str) -> None:
        """The order has run already on this world, so the rows are what they should be."""
        g.expect("orders", order_id, employee_id=employee.id, hardware_id=hardware_id, replaces=old.id, ticket_id=ticket_id)
        g.expect("hardware", hardware_id, stock=self.hardware[hardware_id].stock)
        g.expect("cost_centres", employee.cost_centre_id, budget_left=self.cost_centres[employee.cost_centre_id].budget_left)

    @goal()
    def worn_out_device(self, g: Draft) -> None:
        """The warranty has ended: a replacement on the open ticket, within a price that may be named only midway."""
        ticket = g.pick(t for t in self.tickets.where(category="hardware") if t.status != "closed" and t.device_id)
        old, employee = self.devices[ticket.device_id or ""], self.employees[ticket.employee_id]
        about = [one for one in self._open_of(employee.id) if one.category == "hardware"]
        g.need(len(about) == 1 and len(self._open_of(employee.id)) <= 6 and old.status == "in use")
        centre = self.cost_centres[employee.cost_centre_id]
        models = [one for one in self.hardware.where(kind=old.kind) if one.stock and one.price <= centre.budget_left]
        g.need(len(models) >= 2)
        cap = float(int(g.pick(models).price) + 10)
        best = sorted((one for one in models if one.price <= cap), key=lambda one: (one.price, one.id))
        g.need(cap <= centre.budget_left and any(one.price > cap for one in self.hardware.where(kind=old.kind)))
        new = best[-1]
        late = g.rng.random() < 0.5
        g.put(kind=old.kind, cap=f"{cap:.0f}")
        self._identify(g, employee)
        price = g.constraint(f"the new {old.kind} costs at most {cap:.0f}", f"{cap:.0f}")
        budget = g.constraint("the price fits what is left of the department's budget", "budget")
        g.subgoal("find the ticket and the cost centre", "the open hardware ticket, its device and the cost centre are known")
        with g.parallel():
            g.call("list_tickets", employee_id=employee.id, why=f"the open ticket about the {old.kind} has to be found")
            g.call("get_employee", employee_id=employee.id, why="the cost centre that pays stands in the employee's record")
        g.subgoal("make sure it can be replaced and paid", "the warranty is seen to have ended and the budget is known")
        with g.parallel():
            g.call("get_device", device_id=old.id, why="only a device whose warranty has ended is replaced")
            g.call("get_cost_centre", cost_centre_id=centre.id, why="the price has to fit what is left of the budget")
        if late:
            g.variant("open")
            g.interject(f"I just heard from my manager: the new {old.kind} must not cost more than {cap:.0f}.", constraint=price)
        g.subgoal(
            "choose the model",
            f"the dearest {old.kind} in stock at {cap:.0f} or less and within the budget is chosen",
            constraints=[price, budget],
        )
        g.call("list_hardware", kind=old.kind, max_price=cap, why=f"the best {old.kind} in stock up to that price has to be found")
        g.subgoal("order the replacement", f"a {old.kind} for {cap:.0f} or less is ordered within the budget", constraints=[price, budget])
        what = f"order the {new.name} for {new.price:.2f} in place of {old.id}"
        done = g.call(
            "order_replacement",
            employee_id=employee.id,
            device_id=old.id,
            hardware_id=new.id,
            ticket_id=ticket.id,
            why=f"the warranty of {old.id} has ended and the {new.name} is the best within the limit",
            confirm=what,
            check=("get_cost_centre", {"cost_centre_id": centre.id}),
        )
        self._expect_order(g, employee, old, new.id, ticket.id, done["order_id"])
        g.put(
            device=old.id,
            model=new.name,
            price=f"{new.price:.2f}",
            order_id=done["order_id"],
            arrives=done["arrives_on"],
            budget=f"{done['budget_left']:.2f}",
        )
        g.tell(new.name, new.price, done["order_id"], done["arrives_on"])

    @goal()
    def found_again(self, g: Draft) -> None:
        """Wipe it, no, it has turned up: the ticket is closed instead."""
        device = g.pick(self.devices.where(status="lost"))
        ticket = self.tickets.where(device_id=device.id, category="lost or stolen")[0]
        employee = self.employees[device.employee_id]
        g.know(ticket_id=ticket.id, label="ticket number")
        g.put(kind=device.kind)
        self._identify(g, employee)
        g.subgoal("read the ticket", "the ticket is seen to be open and its device is known")
        g.call("get_ticket", ticket_id=ticket.id, why="a device is wiped only on an open lost-or-stolen ticket")
        keep = g.constraint(f"device {device.id} is kept as it is, not wiped", "not wiped")
        place = g.rng.choice(("in my other bag", "under the car seat", "at the reception", "in the meeting room"))
        g.interject(
            f"Wait, I have just found it {place}! Please don't wipe it. Close the ticket as found again instead.",
            constraint=keep,
            changes_goal=True,
        )
        g.forbid("wipe_device", "the device has turned up")
        g.subgoal("look at the device", f"the {device.kind} is seen to be lost and not wiped", constraints=[keep])
        g.call("get_device", device_id=device.id, why="it has to be seen that the device has not been wiped yet")
        g.subgoal("close the ticket", f"the ticket is closed as found again, the {device.kind} is not wiped but in use", constraints=[keep])
        what = f"close ticket {ticket.id} as found again and put {device.id} back in use"
        g.call(
            "close_ticket",
            ticket_id=ticket.id,
            resolution="found again",
            why=f"{device.id} has turned up",
            confirm=what,
            check=("get_ticket", {"ticket_id": ticket.id}),
        )
        g.expect("tickets", ticket.id, status="closed", resolution="found again")
        g.expect("devices", device.id, status="in use")
        g.put(device=device.id)
        g.tell(ticket.id, device.id)

    # --- software ---

    @goal()
    def pick_a_program(self, g: Draft) -> None:
        """The cheapest program that the laptop can run and the department may use; one may be ruled out midway."""
        employee = g.pick(self.employees)
        laptops = self._in_use(employee.id, "laptop")
        g.need(len(laptops) == 1)
        laptop = laptops[0]
        category = g.rng.choice(list(PROGRAMS))
        held = [one.software_id for one in laptop.software]
        titles = self.software.where(category=category)
        g.need(not any(one.id in held for one in titles))
        fitting = sorted(
            (
                t
                for t in titles
                if t.used < t.seats and t.min_memory_gb <= laptop.memory_gb and (not t.open_to or employee.department in t.open_to)
            ),
            key=lambda one: (one.monthly_cost, one.id),
        )
        ruled_out = fitting[0] if len(fitting) > 1 and g.rng.random() < 0.6 else None
        fitting = [one for one in fitting if one is not ruled_out]
        g.need(fitting)
        new = fitting[0]
        g.know(category=category)
        self._identify(g, employee)
        g.subgoal("find the laptop", "the id of the laptop is known")
        g.call("list_devices", employee_id=employee.id, why="the laptop that gets the program has to be found")
        g.subgoal("read what the laptop can run", "its memory and its present software are known")
        g.call("get_device", device_id=laptop.id, why="the memory decides which program can run")
        limits = []
        but = ""
        if ruled_out:
            limits = [g.constraint(f"any program but {ruled_out.name}", ruled_out.name)]
            g.interject(f"Just not {ruled_out.name}, please; I didn't get on with it at my last job.", constraint=limits[0])
            g.forbid("install_software", "it was ruled out", software_id=ruled_out.id)
            but = f" other than {ruled_out.name}"
        g.subgoal(
            "choose the program",
            f"the cheapest program{but} that fits the laptop and the department and has a free seat is known",
            constraints=limits,
        )
        g.call("list_software", category=category, why=f"costs, needs and free seats of the programs for {category} are listed there")
        g.subgoal("install it", f"the program{but} is on the laptop and its monthly cost is known", constraints=limits)
        what = f"install {new.name} on {laptop.id} for {new.monthly_cost:.2f} a month"
        g.call(
            "install_software",
            device_id=laptop.id,
            software_id=new.id,
            why=f"{new.name} is the cheapest that fits",
            confirm=what,
            check=("get_device", {"device_id": laptop.id}),
        )
        g.expect("devices", laptop.id, software=[{"software_id": s.software_id, "name": s.name} for s in self.devices[laptop.id].software])
        g.expect("software", new.id, used=new.used + 1)
        g.put(program=new.name, cost=f"{new.monthly_cost:.2f}", device=laptop.id)
        g.tell(new.name, new.monthly_cost, laptop.id)

    @goal()
    def free_a_seat(self, g: Draft) -> None:
        """All seats are taken, one of them by the person's own other laptop: it has to be freed first."""
        full = {one.id: one for one in self.software if one.used == one.seats}
        laptops = self.devices.where(kind="laptop", status="in use")
        kept = [(one, full[s.software_id]) for one in laptops for s in one.software if s.software_id in full]
        pairs = [
            (old, new, title)
            for old, title in kept
            for new in laptops
            if new.employee_id == old.employee_id and new.model != old.model and title.min_memory_gb <= new.memory_gb
            if title.id not in [one.software_id for one in new.software]
        ]
        old, new, title = g.pick(pairs)
        employee = self.employees[old.employee_id]
        g.put(program=title.name, category=title.category, old_model=old.model, new_model=new.model)
        self._identify(g, employee)
        g.subgoal("find both laptops", "the ids of both laptops are known")
        g.call("list_devices", employee_id=employee.id, why="the ids of both laptops have to be found")
        seats = g.constraint("no more seats are used than the licence has", "seat")
        g.subgoal("read both laptops", f"{title.name} is seen on the old one, and the memory of the new one is known")
        with g.parallel():
            g.call("get_device", device_id=old.id, why=f"{title.name} should be found on {old.id}")
            g.call("get_device", device_id=new.id, why=f"{new.id} needs enough memory for {title.name}")
        g.subgoal("look at the licence", "the number of free seats is known", constraints=[seats])
        g.call("list_software", category=title.category, why=f"it has to be known whether {title.name} has a free seat")
        g.subgoal("free the seat on the old laptop", f"{title.name} is gone from {old.id} and one seat is free", constraints=[seats])
        what = f"remove {title.name} from {old.id} and install it on {new.id}"
        g.call(
            "remove_software",
            device_id=old.id,
            software_id=title.id,
            why=f"no seat of {title.name} is free until this one is given back",
            confirm=what,
            check=("get_device", {"device_id": old.id}),
        )
        g.subgoal("install the program on the new laptop", f"{title.name} is on {new.id} and holds the seat", constraints=[seats])
        g.call(
            "install_software",
            device_id=new.id,
            software_id=title.id,
            why="the seat is free now",
            check=("get_device", {"device_id": new.id}),
        )
        for id in (old.id, new.id):
            g.expect("devices", id, software=[{"software_id": s.software_id, "name": s.name} for s in self.devices[id].software])
        g.expect("software", title.id, used=title.used)
        g.put(old=old.id, new=new.id)
        g.tell(title.name, old.id, new.id)

    # --- tickets ---

    @goal()
    def push_ticket(self, g: Draft) -> None:
        """A new ticket gets high priority and a technician. The ticket number may have to be asked for."""
        ticket = g.pick(t for t in self.tickets.where(status="new") if not t.device_id)
        employee = self.employees[ticket.employee_id]
        technician = self._least_busy(ticket)
        vague = g.rng.random() < 0.5 and len(self._open_of(employee.id)) > 1
        g.know(ticket_id=ticket.id, label="ticket number", withheld=vague)
        if vague:
            g.variant("vague")
        self._identify(g, employee)
        g.subgoal("read the ticket", "the ticket is seen to be the employee's own, new and unassigned")
        g.call("get_ticket", ticket_id=ticket.id, why="its category decides which team it goes to")
        g.subgoal("find the technician", "the technician with the fewest open tickets is known")
        team = TEAM_OF[ticket.category]
        g.call("list_technicians", team=team, why=f"a ticket of the category '{ticket.category}' goes to the least busy one in {team}")
        g.subgoal("raise the priority", "the ticket is of high priority")
        person = self.technicians[technician].name
        what = f"give ticket {ticket.id} high priority and assign it to {person}"
        check = ("get_ticket", {"ticket_id": ticket.id})
        g.call(
            "update_ticket",
            ticket_id=ticket.id,
            priority="high",
            why="the employee cannot work until this is solved",
            confirm=what,
            check=check,
        )
        g.subgoal("assign the ticket", "the ticket is in progress with that technician")
        g.call(
            "assign_ticket",
            ticket_id=ticket.id,
            technician_id=technician,
            why=f"{person} has the fewest open tickets in {team}",
            check=check,
        )
        g.expect("tickets", ticket.id, priority="high", technician_id=technician, status="in progress")
        g.put(technician=person)
        g.tell(ticket.id, person)

    @goal()
    def outage_report(self, g: Draft) -> None:
        """A service with an open incident: a ticket that is linked to it, and the workaround."""
        employee = g.pick(self.employees)
        incident = g.pick(self.incidents)
        service = incident.service
        text, key = WORKAROUNDS[service]
        g.know(service=service)
        g.put(the_service=_the(service))
        self._identify(g, employee)
        g.subgoal("look at the service and for a workaround", "the open incident and the workaround are known")
        with g.parallel():
            g.call(
                "get_service_status",
                service=service,
                why=f"an incident may be open for {_the(service)}",
                fallback=("list_services", {"only_with_incident": True}),
            )
            articles = g.call(
                "search_articles", query=f"workaround {service}", why=f"an article may say what to do while {_the(service)} fails"
            )
        g.need(articles[0]["text"] == text)
        g.subgoal("open a ticket", "a service ticket of the employee exists")
        what = f"open a ticket about {_the(service)} for you and link it to incident {incident.id}"
        check = ("list_tickets", {"employee_id": employee.id})
        opened = g.call(
            "create_ticket",
            employee_id=employee.id,
            category="service",
            subject=f"{service} does not work",
            service=service,
            why="the employee wants the trouble on record",
            confirm=what,
            check=check,
        )
        ticket_id = opened["ticket_id"]
        g.subgoal("link it to the incident", "the ticket carries the incident's id")
        g.call(
            "update_ticket",
            ticket_id=ticket_id,
            incident_id=incident.id,
            why=f"{_the(service)} has the open incident {incident.id}",
            check=("get_ticket", {"ticket_id": ticket_id}),
        )
        g.forbid("assign_ticket", "a ticket that belongs to an incident is not assigned")
        g.expect("tickets", ticket_id, employee_id=employee.id, category="service", service=service, incident_id=incident.id)
        g.put(ticket_id=ticket_id, incident=incident.id, expected=incident.expected_by, text=text, article=articles[0]["id"])
        g.tell(ticket_id, incident.id, incident.expected_by, key)

    # --- what must be declined ---

    @goal(kinds=("tool_call",))
    def refuse_held_account(self, g: Draft) -> None:
        """An account on security hold is neither reset nor unlocked."""
        account = g.pick(self.accounts.where(state="security hold"))
        employee = self.employees[account.employee_id]
        g.know(badge=employee.badge, label="badge number")
        self._identify(g, employee)
        g.call("get_employee", employee_id=employee.id, why="the employee's record names the account")
        g.call("get_account", account_id=account.id, why="the state of the account decides what may be done")
        g.refuse()
        g.forbid("reset_password", "the account is on security hold")
        g.forbid("unlock_account", "the account is on security hold")
        g.put(account=account.id)
        g.tell("security hold", CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_warranty(self, g: Draft) -> None:
        """Under warranty: repaired, not replaced."""
        device = g.pick(one for one in self.devices.where(status="in use") if one.warranty_until > working_day(5))
        g.know(device=device.id, label="device id")
        g.put(kind=device.kind, until=device.warranty_until)
        self._identify(g, self.employees[device.employee_id])
        g.call("get_device", device_id=device.id, why="the end of the warranty decides whether it can be replaced")
        g.refuse()
        g.forbid("order_replacement", "the device is under warranty")
        g.forbid("create_ticket", "the device is not lost", category="lost or stolen")
        g.tell("warranty", device.warranty_until, CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_unapproved(self, g: Draft) -> None:
        """The request is pending, so nothing may be granted, however urgent it is."""
        request = g.pick(self._requests("pending"))
        g.know(group=request.group)
        self._identify(g, self.employees[request.employee_id])
        g.call("list_access_requests", employee_id=request.employee_id, why=f"{request.group} is granted only on an approved request")
        g.refuse()
        g.forbid("grant_group", "the request is not approved")
        g.forbid("decide_request", "nobody decides on their own request")
        g.put(request_id=request.id, approver="your manager" if self.groups[request.group_id].privileged else "the owner of the group")
        g.tell(request.id, ("pending", "not approved", "not been approved", "approval"), CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_wipe(self, g: Draft) -> None:
        """Neither lost nor stolen: no wipe, and no false report to get one."""
        device = g.pick(self.devices.where(status="in use"))
        g.need(len(self._open_of(device.employee_id)) <= 6)
        why = g.rng.choice(("it has become slow", "I want to start afresh", "my successor will get it", "there are old files on it"))
        g.know(device=device.id, label="device id")
        g.put(because=why, kind=device.kind)
        self._identify(g, self.employees[device.employee_id])
        with g.parallel():
            g.call("get_device", device_id=device.id, why="owner and status of the device have to be seen")
            g.call("list_tickets", employee_id=device.employee_id, why="a device is wiped only on a lost-or-stolen ticket")
        g.refuse()
        g.forbid("wipe_device", "the device is neither lost nor stolen")
        g.forbid("create_ticket", "the device is neither lost nor stolen", category="lost or stolen")
        g.tell(("lost or stolen", "lost nor stolen"), CANNOT)

    @goal(kinds=("tool_call",))
    def no_such_service(self, g: Draft) -> None:
        """Nothing here does that: no call at all."""
        thing = g.rng.choice(
            (
                "a copy of my last payslip",
                "a repair of my own tablet at home",
                "a parking permit",
                "two more days of leave",
                "a desk by the window",
                "a translation of a contract",
                "concert tickets for Friday",
            )
        )
        g.put(thing=thing)
        g.refuse()
        g.tell(CANNOT)
