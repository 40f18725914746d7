"""What customers of the bank come for."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from tracemill.generators.environments.bank.tools import (
    DISPUTE_DAYS,
    HIGHEST_LIMIT,
    NEW_PAYEE_LIMIT,
    REFUND_DAYS,
    REFUNDABLE,
    REPLACEMENT_FEE,
    TODAY,
    Account,
    BankTools,
    Card,
    Payee,
    Transaction,
    days_ago,
)
from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.people import people
from tracemill.trace import Json, Kind

NO_PLAN: tuple[Kind, ...] = ("tool_call", "error_recovery")
VERIFY = "verify the customer"


class Bank(BankTools):
    def _verify(self, g: Draft, customer_id: str) -> str:
        """Half of the customers know their number, the others are found by e-mail. Either proof can stand in for the
        other; in some cases the customer gives none, and it must be asked for. Returns the session's id."""
        customer = self.customers[customer_id]
        by_phrase, silent = g.rng.random() < 0.4, g.rng.random() < 0.25
        born, phrase = customer.date_of_birth, customer.phrase
        g.know(date_of_birth=born, label="date of birth", withheld=silent and not by_phrase)
        g.know(phrase=phrase, label="security phrase", withheld=silent and by_phrase)
        g.subgoal(VERIFY, "there is a session for the customer")
        if g.rng.random() < 0.5:
            who = f"I'm customer {customer.id}"
        else:
            who = f"I'm registered with you as {customer.email}"
            g.call(
                "find_customer", email=customer.email, why="the customer number belongs to the e-mail and is needed for the verification"
            )
        proof = f", security phrase '{phrase}'" if by_phrase else f", born on {born}"
        g.put(who=who if silent else who + proof)
        birth: dict[str, Json] = {"customer_id": customer.id, "date_of_birth": born}
        words: dict[str, Json] = {"customer_id": customer.id, "phrase": phrase}
        why = "nothing can be shown or changed before the customer is verified"
        ways = [("verify_by_date_of_birth", birth), ("verify_by_phrase", words)]
        (name, arguments), other = reversed(ways) if by_phrase else ways
        done = g.call(name, why=why, fallback=other, **arguments)
        return str(done["session_id"])

    def _savings(self) -> dict[str, Account]:
        """Savings accounts by customer."""
        return {one.customer_id: one for one in self.accounts if one.kind == "savings"}

    def _left_today(self) -> dict[str, float]:
        """What `left_today` says of each account, in one pass."""
        left = {one.id: one.daily_limit for one in self.accounts}
        today = TODAY.isoformat()
        for one in self.transactions:
            if one.date == today and one.payee_id is not None:
                left[one.account_id] = round(left[one.account_id] + one.amount, 2)
        return left

    def _payees(self, account: Account) -> list[Payee]:
        return self.payees.where(customer_id=account.customer_id)

    def _currents(self) -> list[Account]:
        return [one for one in self.accounts if one.kind == "current"]

    def _owner(self, one: Card | Transaction) -> str:
        return self.accounts[one.account_id].customer_id

    def _listed(self, session: str, account: Account) -> tuple[str, dict[str, Json]]:
        """The read that shows whether money has moved on an account."""
        return ("list_transactions", {"session_id": session, "account_id": account.id})

    # --- look-ups ---

    @goal(kinds=NO_PLAN)
    def holiday_money(self, g: Draft) -> None:
        """One call: what does foreign money cost today? It is open to all, so nobody has to be verified."""
        rate = g.pick(self.rates)
        side = g.rng.choice(("buy", "sell"))
        amount = g.rng.randint(4, 60) * (5000 if rate.currency == "JPY" else 100 if rate.currency in ("SEK", "NOK") else 25)
        g.know(amount=amount, currency=rate.currency)
        done = g.call(
            "quote_exchange", currency=rate.currency, amount=amount, side=side, why="rate and fee of today decide what it comes to"
        )
        g.put(side=side, fee=f"{done['fee_eur']:.2f}", total=f"{done['total_eur']:.2f}", flow="cost you" if side == "buy" else "bring you")
        g.tell(done["total_eur"], done["fee_eur"])

    @goal(kinds=NO_PLAN)
    def what_can_i_spend(self, g: Draft) -> None:
        """Verify, then one look: balance and available amount."""
        account = g.pick(self._currents())
        session = self._verify(g, account.customer_id)
        g.subgoal("read the balances", "balance and available amount are known")
        g.call("list_accounts", session_id=session, why="the list of accounts shows balance and available amount")
        g.put(account=account.id, balance=f"{account.balance:.2f}", available=f"{account.available:.2f}")
        g.tell(account.id, account.balance, account.available)

    @goal()
    def month_ahead(self, g: Draft) -> None:
        """What is going to leave the account, from two lists that do not depend on each other, against its balance."""
        owners = {one.account_id for one in self.planned_transfers} & {one.account_id for one in self.standing_orders}
        account = self.accounts[g.pick(sorted(owners))]
        until = (TODAY + timedelta(days=g.rng.choice((7, 10, 14, 21)))).isoformat()
        orders = [o for o in self.standing_orders.where(account_id=account.id) if o.next_on <= until]
        planned = [o for o in self.planned_transfers.where(account_id=account.id) if o.on <= until]
        g.need(orders)
        leaving = round(sum(o.amount for o in orders) + sum(o.amount for o in planned), 2)
        rest = round(account.balance - leaving, 2)
        g.know(until=until, label="last day")
        session = self._verify(g, account.customer_id)
        upto = g.constraint(f"only what runs up to {until} counts", until)
        g.subgoal("find the current account", "its id and balance are known")
        g.call("list_accounts", session_id=session, why="the current account and its balance have to be known first")
        g.subgoal("collect what is due", f"all payments up to {until} are known", after=[VERIFY], constraints=[upto])
        with g.parallel():
            g.call("list_standing_orders", session_id=session, why=f"standing orders may run before {until}")
            g.call("list_planned_transfers", session_id=session, why=f"single transfers may be planned up to {until}")
        count = len(orders) + len(planned)
        payments = "one payment" if count == 1 else f"{count} payments"
        verdict = "the balance covers it" if rest >= 0 else "the balance does not cover it"
        g.put(leaving=f"{leaving:.2f}", rest=f"{rest:.2f}", account=account.id, payments=payments, verdict=verdict)
        g.tell(leaving, rest, verdict)

    # --- payments ---

    @goal()
    def pay_someone(self, g: Draft) -> None:
        """Find account and payee, look at the limits, confirm, send. In a third of the cases the amount must be asked for."""
        left = self._left_today()
        account = g.pick(a for a in self._currents() if min(a.balance, left[a.id]) >= 60)
        payee = g.pick(self._payees(account))
        amount = g.rng.randint(20, int(min(account.balance, left[account.id], 900)))
        vague = g.rng.random() < 0.35
        g.know(amount=amount, label="amount", withheld=vague)
        g.know(payee=payee.name, label="payee")
        if vague:
            g.variant("vague")
        session = self._verify(g, account.customer_id)
        g.subgoal("find the account and the payee", "the ids of both are known")
        with g.parallel():
            g.call("list_accounts", session_id=session, why="the money comes from the current account, whose id is needed")
            g.call("list_payees", session_id=session, why=f"{payee.name} has to be among the stored payees")
        g.subgoal("make sure the account can send it", "the amount is available and within what is left of the daily limit")
        g.call(
            "get_account",
            session_id=session,
            account_id=account.id,
            why="the available amount and today's limit decide whether it can be sent",
            fallback=("list_accounts", {"session_id": session}),
        )
        g.subgoal("send the money", "the transfer has a transaction id")
        what = f"send {amount}.00 EUR from {account.id} to {payee.name} today"
        done = g.call(
            "transfer_money",
            session_id=session,
            from_account=account.id,
            payee_id=payee.id,
            amount=amount,
            why=f"the account can send {amount}.00 and the payee is the right one",
            confirm=what,
            check=self._listed(session, account),
        )
        g.expect("accounts", account.id, balance=done["balance"])
        g.expect("transactions", done["transaction_id"], payee_id=payee.id, amount=-float(amount))
        g.put(account=account.id, tx=done["transaction_id"], balance=f"{done['balance']:.2f}")
        g.tell(amount, payee.name, done["balance"])

    @goal()
    def pay_later(self, g: Draft) -> None:
        """A transfer for a later day; half of the time the day must be asked for."""
        account = g.pick(self._currents())
        payee = g.pick(self._payees(account))
        amount = g.rng.randint(2, 40) * 10
        day = TODAY + timedelta(days=g.rng.randint(3, 80))
        g.need(day.weekday() < 5)
        vague = g.rng.random() < 0.5
        g.know(amount=amount, label="amount")
        g.know(payee=payee.name, label="payee")
        g.know(day=day.isoformat(), label="day of the transfer", withheld=vague)
        if vague:
            g.variant("vague")
        session = self._verify(g, account.customer_id)
        rule = g.constraint(f"the money goes to {payee.name} and from the current account", payee.name)
        g.subgoal("find the account and the payee", "the ids of both are known")
        with g.parallel():
            g.call("list_accounts", session_id=session, why="the transfer is to leave the current account, whose id is needed")
            g.call("list_payees", session_id=session, why=f"{payee.name} has to be among the stored payees")
        g.subgoal("plan the transfer", f"a transfer to {payee.name} is planned for the day", constraints=[rule])
        what = f"plan a transfer of {amount}.00 EUR from {account.id} to {payee.name} for {day.isoformat()}"
        done = g.call(
            "schedule_transfer",
            session_id=session,
            from_account=account.id,
            payee_id=payee.id,
            amount=amount,
            on=day.isoformat(),
            why="account, payee and day are known, and the day is a working day",
            confirm=what,
            check=("list_planned_transfers", {"session_id": session}),
        )
        g.expect(
            "planned_transfers", done["planned_id"], account_id=account.id, payee_id=payee.id, amount=float(amount), on=day.isoformat()
        )
        g.put(planned=done["planned_id"], account=account.id)
        g.tell(done["planned_id"], amount, day.isoformat())

    @goal()
    def pay_newcomer(self, g: Draft) -> None:
        """A payee who is not stored yet: check, add, look at the limits, send. The account number may have to be asked for."""
        left = self._left_today()
        account = g.pick(a for a in self._currents() if min(a.balance, left[a.id]) >= 80)
        name = people(g.rng, 1)[0].name
        g.need(name not in [one.name for one in self._payees(account)])
        number = f"XB-{g.rng.randint(100000, 999999)}"
        amount = g.rng.randint(20, int(min(account.balance, left[account.id], NEW_PAYEE_LIMIT)))
        vague = g.rng.random() < 0.4
        g.know(amount=amount, label="amount")
        g.know(payee=name, label="payee")
        g.know(number=number, label="payee's account number", withheld=vague)
        if vague:
            g.variant("vague")
        session = self._verify(g, account.customer_id)
        most = g.constraint(f"a new payee gets at most {NEW_PAYEE_LIMIT:.0f} today", f"{NEW_PAYEE_LIMIT:.0f}")
        g.subgoal("look at what there is", f"{name} is seen to be new and the current account is known")
        with g.parallel():
            g.call("list_payees", session_id=session, why=f"{name} may be stored already")
            g.call("list_accounts", session_id=session, why="the money comes from the current account, whose id is needed")
        g.subgoal("make sure the account can send it", "the amount is available and within what is left of the daily limit")
        g.call(
            "get_account",
            session_id=session,
            account_id=account.id,
            why="the available amount and today's limit decide whether it can be sent",
            fallback=("list_accounts", {"session_id": session}),
        )
        g.subgoal("add the payee", "the new payee has an id")
        added = g.call(
            "add_payee",
            session_id=session,
            name=name,
            account_number=number,
            why=f"{name} is not stored yet",
            confirm=f"add {name} with the account number {number} as a payee",
            check=("list_payees", {"session_id": session}),
        )
        g.subgoal("send the money", f"the transfer of no more than {NEW_PAYEE_LIMIT:.0f} has a transaction id", constraints=[most])
        what = f"send {amount}.00 EUR from {account.id} to {name} today"
        done = g.call(
            "transfer_money",
            session_id=session,
            from_account=account.id,
            payee_id=added["payee_id"],
            amount=amount,
            why="the payee is stored now and the amount is within all limits",
            confirm=what,
            check=self._listed(session, account),
        )
        g.expect("payees", added["payee_id"], name=name, account_number=number, customer_id=account.customer_id)
        g.expect("accounts", account.id, balance=done["balance"])
        g.expect("transactions", done["transaction_id"], payee_id=added["payee_id"], amount=-float(amount))
        g.put(payee_id=added["payee_id"], account=account.id, balance=f"{done['balance']:.2f}")
        g.tell(added["payee_id"], amount, done["balance"])

    @goal()
    def fill_up_and_pay(self, g: Draft) -> None:
        """A bill that the current account does not cover: what is missing comes from savings. How much must stay on the
        current account is said at once or only midway, and the sum to move depends on it."""
        left, put_by = self._left_today(), self._savings()
        account = g.pick(a for a in self._currents() if left[a.id] >= a.balance + 20 and a.customer_id in put_by)
        savings = put_by[account.customer_id]
        payee = g.pick(self._payees(account))
        top = int(min(left[account.id], account.balance + savings.balance - 250))
        g.need(top > account.balance + 5)
        amount = g.rng.randint(int(account.balance) + 1, top)
        stay = g.rng.choice((50, 80, 100, 150, 200))
        missing = round(amount + stay - account.balance, 2)
        late = g.rng.random() < 0.5
        g.know(amount=amount, label="amount")
        g.know(payee=payee.name, label="payee")
        g.put(stay=stay)
        session = self._verify(g, account.customer_id)
        keep = g.constraint(f"{stay} EUR stay on the current account", str(stay))
        g.subgoal("find the accounts and the payee", "the ids of all three are known")
        with g.parallel():
            g.call("list_accounts", session_id=session, why="the current account and the savings account have to be known")
            g.call("list_payees", session_id=session, why=f"{payee.name} has to be among the stored payees")
        g.subgoal("look at both accounts", "both balances and today's limit are known")
        with g.parallel():
            g.call(
                "get_account",
                session_id=session,
                account_id=account.id,
                why="its balance and today's limit decide what is missing",
                fallback=("list_accounts", {"session_id": session}),
            )
            g.call(
                "get_account",
                session_id=session,
                account_id=savings.id,
                why="the savings have to cover what is missing",
                fallback=("list_accounts", {"session_id": session}),
            )
        if late:
            g.variant("open")
            g.interject(f"Wait, I forgot: {stay} EUR should be left on my current account after the payment.", constraint=keep)
        else:
            g.know(stay=stay, label="amount that stays")
        g.subgoal("move what is missing", f"the current account holds the bill and the {stay} that stay", constraints=[keep])
        what = f"move {missing:.2f} EUR from {savings.id} to {account.id}"
        moved = g.call(
            "move_money",
            session_id=session,
            from_account=savings.id,
            to_account=account.id,
            amount=missing,
            why=f"{amount}.00 and {stay}.00 less the balance of {account.balance:.2f} makes {missing:.2f}",
            confirm=what,
            check=self._listed(session, account),
        )
        g.subgoal("pay the bill", f"the transfer is made and {stay} are left", constraints=[keep])
        what = f"send {amount}.00 EUR from {account.id} to {payee.name} today"
        done = g.call(
            "transfer_money",
            session_id=session,
            from_account=account.id,
            payee_id=payee.id,
            amount=amount,
            why="the account now covers the bill and what has to stay",
            confirm=what,
            check=self._listed(session, account),
        )
        g.expect("accounts", account.id, balance=float(stay))
        g.expect("accounts", savings.id, balance=moved["balances"][savings.id])
        g.expect("transactions", done["transaction_id"], payee_id=payee.id, amount=-float(amount))
        g.put(missing=f"{missing:.2f}", left=f"{done['balance']:.2f}", saved=f"{moved['balances'][savings.id]:.2f}")
        g.tell(missing, amount, done["balance"], moved["balances"][savings.id])

    # --- standing orders ---

    @goal()
    def stop_standing(self, g: Draft) -> None:
        """Find the order by its payee, confirm, cancel."""
        order = g.pick(self.standing_orders.where(status="active"))
        g.know(payee=order.payee_name, label="payee")
        session = self._verify(g, self.accounts[order.account_id].customer_id)
        only = g.constraint(f"no standing order but the one to {order.payee_name} is cancelled", order.payee_name)
        g.subgoal("find the standing order", f"the id of the standing order to {order.payee_name} is known")
        g.call("list_standing_orders", session_id=session, why=f"the order to {order.payee_name} and its amount have to be found")
        g.subgoal("cancel the standing order", f"the order to {order.payee_name} is cancelled", constraints=[only])
        what = f"cancel the standing order {order.id} of {order.amount:.2f} EUR a month to {order.payee_name}"
        g.call(
            "cancel_standing_order",
            session_id=session,
            order_id=order.id,
            why=f"{order.id} is active and the customer wants it stopped",
            confirm=what,
            check=("list_standing_orders", {"session_id": session}),
        )
        g.expect("standing_orders", order.id, status="cancelled")
        g.put(order=order.id, amount=f"{order.amount:.2f}", next_on=order.next_on)
        g.tell(order.id, order.amount, order.next_on)

    @goal()
    def save_the_difference(self, g: Draft) -> None:
        """Cancel all dear standing orders but one, and put aside what a month without them saves: up to ten calls."""
        put_by, running = self._savings(), Counter(o.account_id for o in self.standing_orders)
        account = g.pick(a for a in self._currents() if running[a.id] >= 4 and a.customer_id in put_by)
        savings = put_by[account.customer_id]
        orders = sorted(self.standing_orders.where(account_id=account.id, status="active"), key=lambda one: -one.amount)
        limit = g.pick(one for one in (15, 20, 30, 40) if sum(o.amount > one for o in orders) >= 3)
        dear = [o for o in orders if o.amount > limit]
        spared = g.pick(dear)
        gone = [o for o in dear if o is not spared]
        sum_ = round(sum(o.amount for o in gone), 2)
        g.need(sum_ < account.balance)
        late = g.rng.random() < 0.5
        g.know(limit=limit, label="limit")
        g.put(spared=spared.payee_name)
        session = self._verify(g, account.customer_id)
        keep = g.constraint(f"the standing order to {spared.payee_name} stays", spared.payee_name)
        g.subgoal("look at orders and accounts", "all standing orders and both accounts are known")
        with g.parallel():
            g.call("list_standing_orders", session_id=session, why=f"those above {limit} EUR have to be found")
            g.call("list_accounts", session_id=session, why="the current account and the savings account have to be known")
        if late:
            g.variant("open")
            g.interject(f"Oh, and leave the one to {spared.payee_name} alone, that one has to stay.", constraint=keep)
        g.subgoal("cancel the dear orders", f"all above {limit} are cancelled, except the one to {spared.payee_name}", constraints=[keep])
        listed = ", ".join(o.id for o in gone)
        for place, order in enumerate(gone):
            what = f"cancel the standing orders {listed} and keep {spared.id} to {spared.payee_name}" if place == 0 else ""
            g.call(
                "cancel_standing_order",
                session_id=session,
                order_id=order.id,
                why=f"{order.id} of {order.amount:.2f} is above {limit} and not the one to keep",
                confirm=what,
                check=("list_standing_orders", {"session_id": session}),
            )
            g.expect("standing_orders", order.id, status="cancelled")
            g.tell(order.id)
        g.expect("standing_orders", spared.id, status="active")
        g.forbid("cancel_standing_order", "this one has to stay", order_id=spared.id)
        g.subgoal("put the saving aside", "the sum of the cancelled orders is on the savings account")
        what = f"move {sum_:.2f} EUR from {account.id} to {savings.id}"
        done = g.call(
            "move_money",
            session_id=session,
            from_account=account.id,
            to_account=savings.id,
            amount=sum_,
            why=f"the cancelled orders came to {sum_:.2f} a month",
            confirm=what,
            check=self._listed(session, account),
        )
        g.expect("accounts", savings.id, balance=done["balances"][savings.id])
        g.put(
            listed=" and ".join((", ".join(o.id for o in gone[:-1]), gone[-1].id)),
            sum=f"{sum_:.2f}",
            saved=f"{done['balances'][savings.id]:.2f}",
        )
        g.tell(sum_, done["balances"][savings.id])

    # --- cards ---

    @goal()
    def lost_card(self, g: Draft) -> None:
        """Freeze first, then replace: the rule for a card that is gone."""
        card = g.pick(self.cards.where(status="active"))
        reason = g.rng.choice(("lost", "stolen"))
        account = self.accounts[card.account_id]
        g.need(account.balance > REPLACEMENT_FEE)
        g.know(last4=card.last4, label="last four digits of the card")
        g.know(reason=reason)
        session = self._verify(g, account.customer_id)
        first = g.constraint("the card is frozen before it is replaced", "frozen")
        g.subgoal("find the card", "the card's id and status are known")
        g.call("list_cards", session_id=session, why=f"the id of the card ending in {card.last4} has to be found")
        g.subgoal("freeze the card", "the card's status is frozen", constraints=[first])
        g.call(
            "freeze_card",
            session_id=session,
            card_id=card.id,
            why=f"a {reason} card has to be frozen before anything else",
            check=("list_cards", {"session_id": session}),
        )
        g.subgoal("replace the card", "the new card has an id, and the frozen one is void", constraints=[first])
        price = "free of charge" if reason == "stolen" else f"for {REPLACEMENT_FEE:.2f} EUR"
        what = f"void card {card.id} ending in {card.last4} for good and send a new one {price}"
        done = g.call(
            "replace_card",
            session_id=session,
            card_id=card.id,
            reason=reason,
            why="the card is frozen now and the customer needs a new one",
            confirm=what,
            check=("list_cards", {"session_id": session}),
        )
        g.expect("cards", card.id, status="replaced", replaced_by=done["card_id"])
        g.expect("cards", done["card_id"], account_id=account.id, status="active")
        if done["fee"]:
            g.expect("accounts", account.id, balance=round(account.balance - done["fee"], 2))
            g.tell(done["fee"])
        g.put(new4=done["last4"], arrives=done["arrives_on"], price=price)
        g.tell(done["last4"], done["arrives_on"])

    @goal()
    def found_after_all(self, g: Draft) -> None:
        """A new card, no, rather not: it may turn up, so it is only frozen."""
        card = g.pick(self.cards.where(status="active"))
        place = g.rng.choice(("at the office", "in my other coat", "at my sister's place", "in the car"))
        g.know(last4=card.last4, label="last four digits of the card")
        session = self._verify(g, self._owner(card))
        g.subgoal("find the card", "the card's id and status are known")
        g.call("list_cards", session_id=session, why=f"the id of the card ending in {card.last4} has to be found")
        keep = g.constraint(f"the card ending in {card.last4} is only frozen, not replaced", "not replaced")
        g.interject(
            f"Hold on, I may have left it {place}. Please don't replace it, just freeze it for now.", constraint=keep, changes_goal=True
        )
        g.subgoal("freeze the card", "the card's status is frozen, and it is not replaced", constraints=[keep])
        what = f"freeze card {card.id} ending in {card.last4} and leave it otherwise as it is"
        g.call(
            "freeze_card",
            session_id=session,
            card_id=card.id,
            why="the customer now wants it frozen and no new card",
            confirm=what,
            check=("list_cards", {"session_id": session}),
        )
        g.forbid("replace_card", "the customer no longer wants that")
        g.expect("cards", card.id, status="frozen")
        g.put(card=card.id)
        g.tell(card.last4, "frozen")

    @goal()
    def raise_card_limit(self, g: Draft) -> None:
        """As high as the card's tier allows, but not above a cap, which half of the customers mention only midway."""
        card = g.pick(c for c in self.cards.where(status="active") if c.monthly_limit < HIGHEST_LIMIT[c.tier])
        cap = g.rng.randrange(card.monthly_limit + 200, 4600, 100)
        new = min(cap, HIGHEST_LIMIT[card.tier])
        late = g.rng.random() < 0.5
        g.know(last4=card.last4, label="last four digits of the card")
        g.put(cap=cap)
        session = self._verify(g, self._owner(card))
        most = g.constraint(f"the limit is not above {cap}", str(cap))
        g.subgoal("find the card", "its limit and its highest limit are known")
        g.call("list_cards", session_id=session, why="how high the limit can go depends on the card's tier")
        if late:
            g.variant("open")
            g.interject(f"But please, not above {cap}, I don't want to be tempted.", constraint=most)
        g.subgoal("set the limit", f"the card has the highest limit it can have that is not above {cap}", constraints=[most])
        what = f"set the monthly limit of card {card.id} ending in {card.last4} to {new}"
        why = f"{new} is the highest limit that a {card.tier} card can have and that is not above {cap}"
        g.call(
            "set_card_limit",
            session_id=session,
            card_id=card.id,
            monthly_limit=new,
            why=why,
            confirm=what,
            check=("list_cards", {"session_id": session}),
        )
        g.expect("cards", card.id, monthly_limit=new)
        g.put(new=f"{new:,}", before=f"{card.monthly_limit:,}", tier=card.tier)
        g.tell(new, card.last4)

    @goal()
    def trip_abroad(self, g: Draft) -> None:
        """One card ready for the trip, the other one frozen, and the travel money moved: seven or eight calls."""
        put_by, active = self._savings(), self.cards.where(status="active")
        usable = Counter(card.account_id for card in active)
        account = g.pick(a for a in self._currents() if usable[a.id] >= 2 and a.customer_id in put_by)
        savings = put_by[account.customer_id]
        taken, left = g.some([card for card in active if card.account_id == account.id], 2)
        limit = g.rng.randrange(taken.monthly_limit + 50, HIGHEST_LIMIT[taken.tier] + 1, 50)
        rate = g.pick(self.rates)
        amount = int(rate.rate * g.rng.randint(6, 16)) * 50
        g.need(amount / rate.rate * 1.02 + 5 < savings.balance)
        g.know(taken=taken.last4, label="last four digits of the card for the trip")
        g.know(left=left.last4, label="last four digits of the card at home")
        g.know(limit=limit, label="new monthly limit")
        g.know(amount=amount, label="amount of travel money")
        g.know(currency=rate.currency)
        session = self._verify(g, account.customer_id)
        stays = g.constraint(f"the card ending in {taken.last4} stays active", taken.last4)
        g.subgoal("collect the facts", "the cards, the accounts and the price of the travel money are known")
        with g.parallel():
            g.call("list_cards", session_id=session, why="the ids of both cards and the highest limit are needed")
            g.call("list_accounts", session_id=session, why="the savings have to cover the travel money")
            quote = g.call(
                "quote_exchange",
                currency=rate.currency,
                amount=amount,
                side="buy",
                why="the price of the travel money is what has to be moved",
            )
        total = quote["total_eur"]
        g.subgoal(
            "prepare the cards", f"the card ending in {taken.last4} has the new limit, and the other one is frozen", constraints=[stays]
        )
        what = f"set the monthly limit of card {taken.id} to {limit} and freeze card {left.id}"
        looks = ("list_cards", {"session_id": session})
        g.call(
            "set_card_limit",
            session_id=session,
            card_id=taken.id,
            monthly_limit=limit,
            why=f"the card ending in {taken.last4} goes along and can have that limit",
            confirm=what,
            check=looks,
        )
        g.call("freeze_card", session_id=session, card_id=left.id, why=f"the card ending in {left.last4} stays at home", check=looks)
        g.subgoal("move the travel money", "the price in EUR is on the current account", after=["collect the facts"])
        what = f"move {total:.2f} EUR from {savings.id} to {account.id} for {amount} {rate.currency}"
        done = g.call(
            "move_money",
            session_id=session,
            from_account=savings.id,
            to_account=account.id,
            amount=total,
            why=f"{amount} {rate.currency} cost {total:.2f} EUR with the fee",
            confirm=what,
            check=self._listed(session, account),
        )
        g.expect("cards", taken.id, monthly_limit=limit, status="active")
        g.expect("cards", left.id, status="frozen")
        g.expect("accounts", account.id, balance=done["balances"][account.id])
        g.expect("accounts", savings.id, balance=done["balances"][savings.id])
        g.put(total=f"{total:.2f}", balance=f"{done['balances'][account.id]:.2f}")
        g.tell(taken.last4, limit, left.last4, total, done["balances"][account.id])

    # --- complaints ---

    @goal()
    def dispute_payment(self, g: Draft) -> None:
        """A card payment that is known by its merchant only. Small ones are credited at once."""
        since = days_ago(DISPUTE_DAYS)
        disputed = {one.transaction_id for one in self.disputes}
        paid = g.pick(t for t in self.transactions.where(kind="card") if t.date >= since and t.id not in disputed)
        account = self.accounts[paid.account_id]
        reason = g.rng.choice(("not recognised", "charged twice", "goods not received"))
        g.know(merchant=paid.description, label="merchant")
        g.know(reason=reason)
        session = self._verify(g, account.customer_id)
        recent = g.constraint(f"the payment was made within the last {DISPUTE_DAYS} days", f"{DISPUTE_DAYS} days")
        g.subgoal("find the account", "the current account's id is known")
        g.call("list_accounts", session_id=session, why="the card payments are on the current account, whose id is needed")
        goal_ = f"the payment to {paid.description} is known, not older than {DISPUTE_DAYS} days, and not disputed yet"
        g.subgoal("find the payment", goal_, constraints=[recent])
        with g.parallel():
            g.call(
                "list_transactions",
                session_id=session,
                account_id=account.id,
                kind="card",
                since=since,
                why=f"only card payments since {since} can be disputed",
            )
            g.call("list_disputes", session_id=session, why="the payment may be disputed already")
        g.subgoal("open the dispute", "the dispute has an id")
        what = f"dispute the payment {paid.id} of {-paid.amount:.2f} EUR to {paid.description} as {reason}"
        done = g.call(
            "open_dispute",
            session_id=session,
            transaction_id=paid.id,
            reason=reason,
            why=f"{paid.id} is recent enough and not disputed yet",
            confirm=what,
            check=("list_disputes", {"session_id": session}),
        )
        g.expect("disputes", done["dispute_id"], transaction_id=paid.id, reason=reason, status="open")
        g.expect("accounts", account.id, balance=done["balance"])
        credit = (
            f"{-paid.amount:.2f} EUR are credited for the time being" if done["credited_now"] else "no money moves before it is decided"
        )
        g.put(dispute=done["dispute_id"], tx=paid.id, amount=f"{-paid.amount:.2f}", date=paid.date, credit=credit)
        g.tell(done["dispute_id"], -paid.amount, credit)

    @goal()
    def fee_back(self, g: Draft) -> None:
        """A fee that may be refunded: find it, see its kind and age, confirm, refund."""
        since = days_ago(REFUND_DAYS)
        fee = g.pick(t for t in self.transactions.where(kind="fee") if t.description in REFUNDABLE and t.date >= since)
        account = self.accounts[fee.account_id]
        g.know(fee=fee.description, label="kind of fee")
        session = self._verify(g, account.customer_id)
        young = g.constraint(f"the fee was charged within the last {REFUND_DAYS} days", f"{REFUND_DAYS} days")
        g.subgoal("find the account", "the current account's id is known")
        g.call("list_accounts", session_id=session, why="the fee is on the current account, whose id is needed")
        g.subgoal("find the fee", f"the {fee.description} is known, and it is not older than {REFUND_DAYS} days", constraints=[young])
        g.call(
            "list_transactions",
            session_id=session,
            account_id=account.id,
            kind="fee",
            why="kind and date of the fee decide whether it can be refunded",
        )
        g.subgoal("refund the fee", "the refund is on the account")
        what = f"refund the {fee.description} of {-fee.amount:.2f} EUR from {fee.date} to {account.id}"
        done = g.call(
            "refund_fee",
            session_id=session,
            transaction_id=fee.id,
            why=f"{fee.id} is of a kind and an age that can be refunded",
            confirm=what,
            check=("list_transactions", {"session_id": session, "account_id": account.id, "kind": "refund"}),
        )
        g.expect("transactions", fee.id, refunded_by=done["transaction_id"])
        g.expect("accounts", account.id, balance=done["balance"])
        g.put(a_fee=f"{'an' if fee.description[0] == 'o' else 'a'} {fee.description}")
        g.put(amount=f"{-fee.amount:.2f}", date=fee.date, balance=f"{done['balance']:.2f}", account=account.id)
        g.tell(-fee.amount, done["balance"])

    # --- what must be declined ---

    @goal(kinds=("tool_call",))
    def refuse_overdraw(self, g: Draft) -> None:
        """More than the account has, overdraft and all; the daily limit would allow it."""
        left = self._left_today()
        account = g.pick(a for a in self._currents() if left[a.id] > a.available + 30)
        payee = g.pick(self._payees(account))
        amount = g.rng.randint(int(account.available) + 10, int(left[account.id]))
        g.know(amount=amount, label="amount")
        g.know(payee=payee.name, label="payee")
        session = self._verify(g, account.customer_id)
        g.call("list_accounts", session_id=session, why="the current account has to be found before money is sent from it")
        g.call("get_account", session_id=session, account_id=account.id, why="the available amount decides whether it can be sent")
        g.refuse()
        g.forbid("transfer_money", "the account does not have that much")
        g.put(account=account.id, available=f"{account.available:.2f}")
        g.tell(account.available, CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_over_limit(self, g: Draft) -> None:
        """The account has it, but today's limit does not allow it."""
        left = self._left_today()
        account = g.pick(a for a in self._currents() if a.available > left[a.id] + 30)
        payee = g.pick(self._payees(account))
        amount = g.rng.randint(int(left[account.id]) + 10, int(account.available))
        g.know(amount=amount, label="amount")
        g.know(payee=payee.name, label="payee")
        session = self._verify(g, account.customer_id)
        g.call("list_accounts", session_id=session, why="the current account has to be found before money is sent from it")
        g.call(
            "get_account",
            session_id=session,
            account_id=account.id,
            why="what is left of the daily limit decides whether it can be sent today",
        )
        g.refuse()
        g.forbid("transfer_money", "the daily limit does not allow it")
        g.put(account=account.id, limit=f"{account.daily_limit:.2f}", left=f"{left[account.id]:.2f}")
        g.tell(left[account.id], "daily limit", CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_old_dispute(self, g: Draft) -> None:
        """The payment is too old to be disputed."""
        paid = g.pick(t for t in self.transactions.where(kind="card") if t.date < days_ago(DISPUTE_DAYS))
        g.know(transaction_id=paid.id, label="transaction id")
        g.know(merchant=paid.description, label="merchant")
        session = self._verify(g, self._owner(paid))
        g.call(
            "get_transaction", session_id=session, transaction_id=paid.id, why="the date of the payment decides whether it can be disputed"
        )
        g.refuse()
        g.forbid("open_dispute", "the payment is too old")
        g.put(date=paid.date)
        g.tell(f"{DISPUTE_DAYS} days", paid.date, CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_fee_back(self, g: Draft) -> None:
        """A fee of the wrong kind, or one that is too old."""
        old = days_ago(REFUND_DAYS)
        fee = g.pick(t for t in self.transactions.where(kind="fee") if t.description not in REFUNDABLE or t.date < old)
        account = self.accounts[fee.account_id]
        g.know(fee=fee.description, label="kind of fee")
        session = self._verify(g, account.customer_id)
        g.call("list_accounts", session_id=session, why="the fee is on the current account, whose id is needed")
        g.call(
            "list_transactions",
            session_id=session,
            account_id=account.id,
            kind="fee",
            why="kind and date of the fee decide whether it can be refunded",
        )
        g.refuse()
        g.forbid("refund_fee", "the rules do not allow it")
        if fee.description in REFUNDABLE:
            key, reason = f"{REFUND_DAYS} days", f"a fee can be refunded only within {REFUND_DAYS} days of the charge"
        else:
            key = "overdraft and late payment fees"
            reason = f"only {key} can be refunded"
        g.put(date=fee.date, amount=f"{-fee.amount:.2f}", reason=reason)
        g.tell(key, fee.date, CANNOT)

    @goal(kinds=("tool_call",))
    def refuse_strange_account(self, g: Draft) -> None:
        """An account that is not the customer's own."""
        own = g.pick(self._currents())
        other = g.pick(a for a in self.accounts if a.customer_id != own.customer_id)
        who = g.rng.choice(("my brother", "my neighbour", "a colleague of mine", "my landlord"))
        g.know(account_id=other.id, label="account number")
        g.put(relative=who)
        session = self._verify(g, own.customer_id)
        g.call(
            "list_accounts",
            session_id=session,
            why=f"only an account in this list may be spoken of, so {other.id} has to be looked for in it",
        )
        g.refuse()
        g.forbid("get_account", "it is another customer's account", account_id=other.id)
        g.forbid("list_transactions", "it is another customer's account", account_id=other.id)
        g.tell(other.id, CANNOT)

    @goal(kinds=("tool_call",))
    def no_such_service(self, g: Draft) -> None:
        """Nothing here does that: no call at all."""
        thing = g.rng.choice(
            (
                "a mortgage for a flat",
                "a car loan",
                "a tip which shares to buy",
                "advice on a tax return",
                "a higher interest rate on a savings account",
                "tickets for the football final",
            )
        )
        g.put(thing=thing)
        g.refuse()
        g.tell(CANNOT)
