"""The retail bank: customers, accounts, cards, payments, and the desk's tools."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tracemill.generators.environments.base import Environment, Row, Table, ToolError
from tracemill.generators.environments.people import CITIES, people
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

TODAY = date(2026, 5, 14)
DISPUTE_DAYS = 60
REFUND_DAYS = 90
NEW_PAYEE_LIMIT = 500.0
CREDIT_AT_ONCE = 150.0
REPLACEMENT_FEE = 8.0
REFUNDABLE = ("overdraft fee", "late payment fee")
HIGHEST_LIMIT = {"standard": 2000, "gold": 5000}

FEES = (("overdraft fee", 12.0), ("late payment fee", 15.0), ("foreign exchange fee", 4.6), ("paper statement fee", 3.5))
MERCHANTS = (
    "Copper Kettle Cafe", "Larch & Lime Grocers", "Meridian Rail", "Pixel Harbour Games", "Sunfield Market", "Velo Nord Bikes",
    "Bluebell Pharmacy", "Cobalt Cinema", "Driftwood Hotel", "Ember Grill", "Fernway Books", "Glasshouse Garden Centre",
    "Halcyon Airlines", "Ironbark Tools", "Juniper Spa", "Kestrel Electronics",
)  # fmt: skip
BILLERS = (
    "Northlight Energy", "Marlow Rentals", "Tandem Gym", "Hilltop Dental", "Brightline Internet", "Oakwell Insurance", "Riverside Water",
    "Maple Nursery School", "Corvid Mobile", "Stonebridge Music School",
)  # fmt: skip
MONTHLY = (9.9, 19.5, 24.0, 38.0, 45.0, 62.5, 85.0, 110.0)
PHRASE_WORDS = (
    ("quiet", "amber", "distant", "woollen", "silver", "crooked", "early", "northern", "hollow", "painted"),
    ("harbour", "lantern", "orchard", "compass", "thimble", "sparrow", "staircase", "teapot", "meadow", "violin"),
)
RATES = (("CHF", 0.94), ("GBP", 0.86), ("USD", 1.12), ("SEK", 11.2), ("NOK", 11.8), ("JPY", 164.0))

Kind = Literal["card", "transfer", "own transfer", "fee", "salary", "interest", "refund", "credit"]
Money = Annotated[float, Field(gt=0, le=100000, description="Amount in EUR, such as 120 or 49.95.")]
SessionId = Annotated[str, Field(pattern=r"^SE-\d{5}$", description="Session of the verified customer, such as 'SE-40217'.")]
CustomerId = Annotated[str, Field(pattern=r"^CU-\d{4}$", description="Customer number, such as 'CU-1042'.")]
AccountId = Annotated[str, Field(pattern=r"^AC-\d{5}$", description="Account number, such as 'AC-20417'.")]
CardId = Annotated[str, Field(pattern=r"^CD-\d{4}$", description="Id of a card, such as 'CD-3108', as list_cards returns it.")]
PayeeId = Annotated[str, Field(pattern=r"^PY-\d{4}$", description="Id of a payee, such as 'PY-2203', as list_payees returns it.")]
TransactionId = Annotated[str, Field(pattern=r"^TX-\d{6}$", description="Id of a transaction, such as 'TX-600123'.")]
OrderId = Annotated[str, Field(pattern=r"^SO-\d{4}$", description="Id of a standing order, such as 'SO-5102'.")]
Day = {"format": "date"}


@dataclass(frozen=True)
class Customer(Row):
    id: str
    name: str
    email: str
    date_of_birth: str
    phrase: str
    city: str


@dataclass(frozen=True)
class Session(Row):
    """Drawn beforehand for every customer and handed out to whoever proves to be that customer, so that verifying
    changes nothing and an invented session is as bad as any other invented id."""

    id: str
    customer_id: str


@dataclass(frozen=True)
class Account(Row):
    """`opening` is what was there before the first of the account's transactions."""

    id: str
    customer_id: str
    kind: Literal["current", "savings"]
    opening: float
    balance: float
    overdraft: float
    daily_limit: float

    @property
    def available(self) -> float:
        return round(self.balance + self.overdraft, 2)


@dataclass(frozen=True)
class Card(Row):
    id: str
    account_id: str
    tier: Literal["standard", "gold"]
    last4: str
    status: Literal["active", "frozen", "replaced"]
    monthly_limit: int
    expires: str
    replaced_by: str | None = None
    fee_id: str | None = None


@dataclass(frozen=True)
class Transaction(Row):
    """An entry of `account_id`, and with the sign turned of `counter_account` when the money stays in the house."""

    id: str
    account_id: str
    date: str
    amount: float
    kind: Kind
    description: str
    card_id: str | None = None
    payee_id: str | None = None
    counter_account: str | None = None
    refunded_by: str | None = None
    reference: str = ""
    volatile = ("reference",)


@dataclass(frozen=True)
class Payee(Row):
    id: str
    customer_id: str
    name: str
    account_number: str
    added_on: str


@dataclass(frozen=True)
class StandingOrder(Row):
    id: str
    account_id: str
    payee_id: str
    payee_name: str
    amount: float
    next_on: str
    status: Literal["active", "cancelled"] = "active"


@dataclass(frozen=True)
class PlannedTransfer(Row):
    id: str
    account_id: str
    payee_id: str
    payee_name: str
    amount: float
    on: str
    reference: str = ""
    volatile = ("reference",)


@dataclass(frozen=True)
class Dispute(Row):
    id: str
    transaction_id: str
    account_id: str
    merchant: str
    amount: float
    reason: str
    opened_on: str
    status: Literal["open", "upheld", "rejected"] = "open"
    credit_id: str | None = None
    note: str = ""
    volatile = ("note",)


@dataclass(frozen=True)
class Rate(Row):
    """How much of a currency one EUR buys."""

    id: str
    currency: str
    rate: float


def days_ago(days: int) -> str:
    return (TODAY - timedelta(days=days)).isoformat()


class BankTools(Environment):
    """State and tools; the goals are in goals.py."""

    name = "bank"
    policy = Path(__file__).parent / "policy.md"
    words = Path(__file__).parent / "words.yaml"
    departments = ("accounts", "cards", "payments", "disputes")

    customers: Table[Customer]
    sessions: Table[Session]
    accounts: Table[Account]
    cards: Table[Card]
    transactions: Table[Transaction]
    payees: Table[Payee]
    standing_orders: Table[StandingOrder]
    planned_transfers: Table[PlannedTransfer]
    disputes: Table[Dispute]
    rates: Table[Rate]

    # --- the world ---

    def build(self, rng: random.Random) -> None:
        folk = people(rng, 66)
        # Ids are drawn at random steps, so that no id can be told from another one.
        session, account, card, payee, order = 40000, 20000, 3000, 2000, 5000
        made: list[Transaction] = []
        for number, person in enumerate(folk[:22]):
            session, account = session + rng.randint(11, 900), account + rng.randint(3, 90)
            born = date(rng.randint(1948, 2005), rng.randint(1, 12), rng.randint(1, 28)).isoformat()
            phrase = f"{rng.choice(PHRASE_WORDS[0])} {rng.choice(PHRASE_WORDS[1])}"
            email = f"{person.handle}{rng.randint(10, 99)}@example.com"
            customer = self.customers.put(Customer(f"CU-{1001 + number * 7}", person.name, email, born, phrase, rng.choice(CITIES)[0]))
            self.sessions.put(Session(f"SE-{session}", customer.id))
            busy = number % 5 == 0  # a few who have a bit of everything, for the longer goals of every world
            overdraft, limit = rng.choice((0.0, 200.0, 500.0)), rng.choice((500.0, 1000.0, 1500.0, 2500.0))
            current = Account(
                f"AC-{account}", customer.id, "current", 0.0, round(rng.uniform(400 if busy else 60, 2600), 2), overdraft, limit
            )

            mine: list[Card] = []
            for last4 in rng.sample(range(1000, 10000), 2 if busy else rng.choice((1, 2, 2))):
                card += rng.randint(1, 40)
                tier: Literal["standard", "gold"] = rng.choice(("standard", "standard", "gold"))
                cap = rng.choice((300, 500, 800, 1200) if tier == "standard" else (1000, 1500, 2500, 3000))
                status: Literal["active", "frozen"] = "active" if busy or rng.random() < 0.8 else "frozen"
                expires = f"{rng.randint(2026, 2029)}-{rng.randint(7, 12):02}"
                mine.append(self.cards.put(Card(f"CD-{card}", current.id, tier, str(last4), status, cap, expires)))

            known: list[Payee] = []
            private = [one.name for one in rng.sample(folk[22:], 2)]
            for name in (*rng.sample(BILLERS, 4 if busy else rng.randint(2, 3)), *private[: rng.randint(0, 1)]):
                payee += rng.randint(1, 30)
                number_of = f"XB-{rng.randint(100000, 999999)}"
                known.append(self.payees.put(Payee(f"PY-{payee}", customer.id, name, number_of, days_ago(rng.randint(20, 900)))))

            ordered = rng.sample(known, 4 if busy else rng.choice((0, 1, 1, 2)))
            for one, cost in zip(ordered, rng.sample(MONTHLY, len(ordered)), strict=True):
                order += rng.randint(1, 40)
                due = (TODAY + timedelta(days=rng.randint(1, 28))).isoformat()
                self.standing_orders.put(StandingOrder(f"SO-{order}", current.id, one.id, one.name, cost, due))
            if rng.random() < 0.5:
                one, amount = rng.choice(known), float(rng.randint(15, 140))
                day = _working_day(TODAY + timedelta(days=rng.randint(2, 40))).isoformat()
                self.planned_transfers.put(PlannedTransfer(f"PT-{6001 + number * 9}", current.id, one.id, one.name, amount, day))

            made += self._history(rng, current, mine, known)
            self.accounts.put(current)
            if busy or rng.random() < 0.7:
                account += rng.randint(3, 90)
                savings = self.accounts.put(
                    Account(f"AC-{account}", customer.id, "savings", 0.0, round(rng.uniform(900, 9000), 2), 0.0, 0.0)
                )
                made.append(Transaction("", savings.id, days_ago(44), round(rng.uniform(2, 30), 2), "interest", "Interest for the quarter"))
                put_by = -float(rng.randint(2, 20) * 10)
                made.append(
                    Transaction(
                        "", current.id, days_ago(rng.randint(3, 70)), put_by, "own transfer", f"To {savings.id}", counter_account=savings.id
                    )
                )
        self._book(rng, made)
        for place, (currency, rate) in enumerate(RATES, 1):
            self.rates.put(Rate(f"FX-{place:02}", currency, round(rate * rng.uniform(0.97, 1.03), 4)))

    def _history(self, rng: random.Random, current: Account, cards: list[Card], payees: list[Payee]) -> list[Transaction]:
        """What happened on a current account: ids and order are given by `_book`."""
        made = [Transaction("", current.id, days_ago(19), round(rng.uniform(1400, 3900), 2), "salary", "Salary")]
        for merchant in rng.sample(MERCHANTS, rng.randint(5, 6)):
            price = round(rng.choice((rng.uniform(4, 60), rng.uniform(40, 260))), 2)
            made.append(Transaction("", current.id, days_ago(rng.randint(1, 110)), -price, "card", merchant, card_id=rng.choice(cards).id))
        for label, price in rng.sample(FEES, rng.choice((1, 1, 2))):
            made.append(Transaction("", current.id, days_ago(rng.randint(2, 130)), -price, "fee", label))
        one = rng.choice(payees)
        made.append(
            Transaction("", current.id, days_ago(rng.randint(2, 60)), -float(rng.randint(10, 180)), "transfer", one.name, payee_id=one.id)
        )
        if rng.random() < 0.4:  # part of today's limit is used up already
            one, part = rng.choice(payees), rng.choice((0.2, 0.4, 0.7))
            made.append(
                Transaction("", current.id, TODAY.isoformat(), -round(current.daily_limit * part, 2), "transfer", one.name, payee_id=one.id)
            )
        return made

    def _book(self, rng: random.Random, made: list[Transaction]) -> None:
        """Ids in the order of dates, disputes on a few card payments, and openings that the balances follow from."""
        entered: dict[str, float] = {}
        number = 600000
        for old in sorted(made, key=lambda one: one.date):
            number += rng.randint(1, 60)
            new = self.transactions.put(
                Transaction(
                    f"TX-{number}",
                    old.account_id,
                    old.date,
                    old.amount,
                    old.kind,
                    old.description,
                    old.card_id,
                    old.payee_id,
                    old.counter_account,
                )
            )
            entered[new.account_id] = entered.get(new.account_id, 0.0) + new.amount
            if new.counter_account is not None:
                entered[new.counter_account] = entered.get(new.counter_account, 0.0) - new.amount
            if new.kind == "card" and -new.amount > CREDIT_AT_ONCE and rng.random() < 0.2 and new.date < days_ago(4):
                opened = (date.fromisoformat(new.date) + timedelta(days=3)).isoformat()
                reason = rng.choice(("not recognised", "goods not received"))
                self.disputes.put(Dispute(f"DP-{number - 592000}", new.id, new.account_id, new.description, -new.amount, reason, opened))
        for account in list(self.accounts):
            self.accounts.update(account, opening=round(account.balance - entered.get(account.id, 0.0), 2))

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        entered = {row.id: row.opening for row in changed if isinstance(row, Account)}
        for one in self.transactions if entered else ():
            if one.account_id in entered:
                entered[one.account_id] += one.amount
            if one.counter_account in entered:
                entered[one.counter_account] -= one.amount
        for row in changed:
            if isinstance(row, Account):
                if abs(entered[row.id] - row.balance) > 0.005:
                    yield f"account {row.id}: the balance is not what its transactions make it"
                if row.available < 0:
                    yield f"account {row.id} would be below its overdraft"
            if isinstance(row, Transaction):
                account = self.accounts[row.account_id]
                if row.amount == 0:
                    yield f"transaction {row.id} moves no money"
                if row.payee_id is not None and row.date == TODAY.isoformat() and self.sent_today(account) > account.daily_limit + 0.005:
                    yield f"account {account.id} would send more than its daily limit"
                if row.refunded_by is not None and abs(self.transactions[row.refunded_by].amount + row.amount) > 0.005:
                    yield f"transaction {row.id}: the refund is not what was charged"
            if isinstance(row, Card):
                if not 0 < row.monthly_limit <= HIGHEST_LIMIT[row.tier]:
                    yield f"card {row.id} would have a limit that a {row.tier} card cannot have"
                if (row.status == "replaced") != (row.replaced_by is not None):
                    yield f"card {row.id} is replaced if and only if there is a new one"
            if isinstance(row, Dispute):
                if abs(self.transactions[row.transaction_id].amount + row.amount) > 0.005:
                    yield f"dispute {row.id} is not over the amount of its payment"
                if len(self.disputes.where(transaction_id=row.transaction_id)) > 1:
                    yield f"transaction {row.transaction_id} would be disputed twice"

    # --- tools: who is it ---

    @tool("read")
    def find_customer(
        self, email: Annotated[str, Field(json_schema_extra={"format": "email"}, description="E-mail the customer is registered with.")]
    ) -> Json:
        """Find the customer number that belongs to an e-mail address. It does not verify anybody."""
        found = self.customers.where(email=email.lower())
        if not found:
            raise ToolError("not_found", f"no customer with the e-mail {email!r}")
        return {"customer_id": found[0].id, "name": found[0].name}

    @tool("read")
    def verify_by_date_of_birth(
        self, customer_id: CustomerId, date_of_birth: Annotated[str, Field(json_schema_extra=Day, description="As YYYY-MM-DD.")]
    ) -> Json:
        """Verify a customer by date of birth. Returns the session that all other tools need."""
        customer = self.customers[customer_id]
        if customer.date_of_birth != date_of_birth:
            raise ToolError("not_allowed", f"the date of birth does not match customer {customer.id}; ask again or use the security phrase")
        return self._session(customer)

    @tool("read")
    def verify_by_phrase(
        self, customer_id: CustomerId, phrase: Annotated[str, Field(min_length=3, description="The security phrase.")]
    ) -> Json:
        """Verify a customer by security phrase. Returns the session that all other tools need."""
        customer = self.customers[customer_id]
        if customer.phrase.lower() != phrase.strip().lower():
            raise ToolError("not_allowed", f"the phrase does not match customer {customer.id}; ask again or use the date of birth")
        return self._session(customer)

    # --- tools: looking ---

    @tool("read")
    def list_accounts(self, session_id: SessionId) -> Json:
        """The customer's accounts, with balance and available amount (balance and overdraft together)."""
        accounts = [self.accounts[one] for one in self._ids(session_id)]
        found = [{"account_id": a.id, "kind": a.kind, "balance": a.balance, "available": a.available} for a in accounts]
        return {"session_id": session_id, "accounts": found}

    @tool("read")
    def get_account(self, session_id: SessionId, account_id: AccountId) -> Json:
        """One account: balance, overdraft, and what is left of today's limit for payments to payees."""
        account = self._account(session_id, account_id)
        return {
            "account_id": account.id, "kind": account.kind, "balance": account.balance, "overdraft": account.overdraft,
            "available": account.available, "daily_limit": account.daily_limit, "left_today": self.left_today(account),
        }  # fmt: skip

    @tool("read")
    def list_transactions(
        self,
        session_id: SessionId,
        account_id: AccountId,
        kind: Annotated[Kind | None, Field(description="Only transactions of this kind.")] = None,
        since: Annotated[str | None, Field(json_schema_extra=Day, description="Only from this day on, as YYYY-MM-DD.")] = None,
        limit: Annotated[int, Field(ge=1, le=12, description="How many at most.")] = 8,
    ) -> Json:
        """Transactions of an account, newest first. Money that left the account is negative."""
        account = self._account(session_id, account_id)
        found = [one for one in self._entries(account.id) if kind in (None, one.kind) and one.date >= (since or "")]
        found.sort(key=lambda one: (one.date, one.id), reverse=True)
        shown: list[Json] = []
        for one in found[:limit]:
            entry = {"id": one.id, "date": one.date, "amount": self._amount(one, account.id), "kind": one.kind, "with": one.description}
            if one.counter_account == account.id:
                entry["with"] = f"From {one.account_id}"
            shown.append(entry if one.refunded_by is None else {**entry, "refunded_by": one.refunded_by})
        return {"account_id": account.id, "found": len(found), "transactions": shown}

    @tool("read")
    def get_transaction(self, session_id: SessionId, transaction_id: TransactionId) -> Json:
        """Everything about one transaction of the customer."""
        one = self._transaction(session_id, transaction_id)
        card = None if one.card_id is None else self.cards[one.card_id].last4
        return {
            "id": one.id, "account_id": one.account_id, "date": one.date, "amount": one.amount, "kind": one.kind, "with": one.description,
            "card_last4": card, "payee_id": one.payee_id, "refunded_by": one.refunded_by, "reference": one.reference,
        }  # fmt: skip

    @tool("read")
    def list_payees(self, session_id: SessionId) -> Json:
        """The payees that the customer has stored."""
        mine = self.payees.where(customer_id=self.sessions[session_id].customer_id)
        found = [{"payee_id": one.id, "name": one.name, "account_number": one.account_number, "added_on": one.added_on} for one in mine]
        return {"session_id": session_id, "payees": found}

    @tool("read")
    def list_cards(self, session_id: SessionId) -> Json:
        """The customer's cards, with status, monthly limit and the highest limit that the card can have."""
        own = self._ids(session_id)
        found = [
            {
                "card_id": c.id, "last4": c.last4, "account_id": c.account_id, "tier": c.tier, "status": c.status,
                "monthly_limit": c.monthly_limit, "highest_limit": HIGHEST_LIMIT[c.tier], "expires": c.expires,
                **{name: value for name, value in (("replaced_by", c.replaced_by), ("fee_id", c.fee_id)) if value is not None},
            }
            for c in self.cards
            if c.account_id in own
        ]  # fmt: skip
        return {"session_id": session_id, "cards": found}

    @tool("read")
    def list_standing_orders(self, session_id: SessionId) -> Json:
        """The customer's standing orders, each with its monthly amount and the day it runs next."""
        own = self._ids(session_id)
        mine = [one for one in self.standing_orders if one.account_id in own]
        found = [
            {"order_id": o.id, "from": o.account_id, "payee": o.payee_name, "amount": o.amount, "next_on": o.next_on, "status": o.status}
            for o in mine
        ]  # fmt: skip
        return {"session_id": session_id, "standing_orders": found}

    @tool("read")
    def list_planned_transfers(self, session_id: SessionId) -> Json:
        """Single transfers that the customer has planned for a later day."""
        own = self._ids(session_id)
        mine = [one for one in self.planned_transfers if one.account_id in own]
        found = [{"planned_id": o.id, "from": o.account_id, "payee": o.payee_name, "amount": o.amount, "on": o.on} for o in mine]
        return {"session_id": session_id, "planned_transfers": found}

    @tool("read")
    def list_disputes(self, session_id: SessionId) -> Json:
        """The customer's disputes over card payments."""
        own = self._ids(session_id)
        mine = [one for one in self.disputes if one.account_id in own]
        found = [
            {
                "dispute_id": d.id, "transaction_id": d.transaction_id, "account_id": d.account_id, "merchant": d.merchant,
                "amount": d.amount, "status": d.status, "credit": d.credit_id,
            }
            for d in mine
        ]  # fmt: skip
        return {"session_id": session_id, "disputes": found}

    @tool("read")
    def quote_exchange(
        self,
        currency: Literal["CHF", "GBP", "USD", "SEK", "NOK", "JPY"],
        amount: Annotated[float, Field(gt=0, le=1000000, description="Amount in the foreign currency.")],
        side: Annotated[Literal["buy", "sell"], Field(description="Whether the customer buys or sells the foreign currency.")],
    ) -> Json:
        """Today's rate for buying or selling foreign currency, with the fee and what it comes to in EUR. Open to all."""
        rate = self.rates.where(currency=currency)[0].rate
        worth = round(amount / rate, 2)
        fee = round(max(2.0, worth * 0.01), 2)
        total = round(worth + fee if side == "buy" else worth - fee, 2)
        return {"currency": currency, "amount": amount, "side": side, "rate": rate, "worth_eur": worth, "fee_eur": fee, "total_eur": total}

    # --- tools: money ---

    @tool("irreversible")
    def transfer_money(
        self,
        session_id: SessionId,
        from_account: AccountId,
        payee_id: PayeeId,
        amount: Money,
        reference: Annotated[str, Field(max_length=40, description="What the payee reads.")] = "",
    ) -> Json:
        """Send money from a current account to a stored payee at once. It cannot be called back."""
        account, payee = self._payer(session_id, from_account, payee_id)
        self._covered(account, amount)
        if amount > self.left_today(account):
            raise ToolError(
                "not_allowed",
                f"account {account.id} can send {self.left_today(account):.2f} more today; its daily limit is {account.daily_limit:.2f}",
            )
        if payee.added_on == TODAY.isoformat():
            got = sum(-one.amount for one in self.transactions.where(payee_id=payee.id))
            if got + amount > NEW_PAYEE_LIMIT:
                raise ToolError("not_allowed", f"{payee.name} was added today and can get at most {NEW_PAYEE_LIMIT:.2f} today")
        made = self._post(account, -amount, "transfer", payee.name, payee_id=payee.id, reference=reference)
        return {
            "transaction_id": made.id,
            "from": account.id,
            "to": payee.name,
            "amount": -made.amount,
            "balance": self.accounts[account.id].balance,
        }

    @tool("write")
    def move_money(self, session_id: SessionId, from_account: AccountId, to_account: AccountId, amount: Money) -> Json:
        """Move money between two accounts of the customer. It can be moved back at any time."""
        source, target = self._account(session_id, from_account), self._account(session_id, to_account)
        if source.id == target.id:
            raise ToolError("not_allowed", "the two accounts are the same")
        self._covered(source, amount)
        made = self._post(source, -amount, "own transfer", f"To {target.id}", counter_account=target.id)
        balances = {one: self.accounts[one].balance for one in (source.id, target.id)}
        return {"transaction_id": made.id, "amount": -made.amount, "balances": balances}

    @tool("write")
    def schedule_transfer(
        self,
        session_id: SessionId,
        from_account: AccountId,
        payee_id: PayeeId,
        amount: Money,
        on: Annotated[str, Field(json_schema_extra=Day, description="A working day after today, as YYYY-MM-DD.")],
        reference: Annotated[str, Field(max_length=40, description="What the payee reads.")] = "",
    ) -> Json:
        """Plan a single transfer to a stored payee for a later day. Until then it can be taken back."""
        account, payee = self._payer(session_id, from_account, payee_id)
        day = date.fromisoformat(on)
        if not TODAY < day <= TODAY + timedelta(days=365):
            raise ToolError("not_allowed", f"{on} is not between tomorrow and a year from now")
        if day != _working_day(day):
            raise ToolError("not_allowed", f"{on} is a weekend; the next working day is {_working_day(day).isoformat()}")
        if amount > account.daily_limit:
            raise ToolError("not_allowed", f"account {account.id} has a daily limit of {account.daily_limit:.2f}")
        new_id = self.planned_transfers.next_id("PT-", 6001)
        made = self.planned_transfers.put(PlannedTransfer(new_id, account.id, payee.id, payee.name, round(float(amount), 2), on, reference))
        return {"planned_id": made.id, "from": account.id, "to": payee.name, "amount": made.amount, "on": made.on}

    @tool("write")
    def add_payee(
        self,
        session_id: SessionId,
        name: Annotated[str, Field(min_length=2, max_length=60, description="Name of the person or company.")],
        account_number: Annotated[str, Field(pattern=r"^XB-\d{6}$", description="Account number at another bank, such as 'XB-704512'.")],
    ) -> Json:
        """Store a new payee for the customer."""
        owner = self.sessions[session_id].customer_id
        for one in self.payees.where(customer_id=owner, account_number=account_number):
            raise ToolError("conflict", f"{account_number} is stored already: {one.name}, {one.id}")
        made = self.payees.put(Payee(self.payees.next_id("PY-", 2001), owner, name, account_number, TODAY.isoformat()))
        return {"payee_id": made.id, "name": made.name, "account_number": made.account_number, "most_today": NEW_PAYEE_LIMIT}

    @tool("write")
    def cancel_standing_order(self, session_id: SessionId, order_id: OrderId) -> Json:
        """Cancel a standing order: it does not run again."""
        order = self.standing_orders[order_id]
        self._account(session_id, order.account_id)
        if order.status != "active":
            raise ToolError("not_allowed", f"standing order {order.id} is {order.status} already")
        self.standing_orders.update(order, status="cancelled")
        return {"order_id": order.id, "payee": order.payee_name, "amount": order.amount, "status": "cancelled"}

    @tool("write")
    def refund_fee(self, session_id: SessionId, transaction_id: TransactionId) -> Json:
        """Refund an overdraft fee or a late payment fee of the last 90 days."""
        fee = self._transaction(session_id, transaction_id)
        if fee.kind != "fee" or fee.description not in REFUNDABLE:
            raise ToolError("not_allowed", f"{fee.id} ({fee.description}) cannot be refunded, only: {', '.join(REFUNDABLE)}")
        if fee.date < days_ago(REFUND_DAYS):
            raise ToolError("not_allowed", f"{fee.id} was charged on {fee.date}, more than {REFUND_DAYS} days ago")
        if fee.refunded_by is not None:
            raise ToolError("conflict", f"{fee.id} was refunded already by {fee.refunded_by}")
        made = self._post(self.accounts[fee.account_id], -fee.amount, "refund", f"Refund of {fee.id}, {fee.description}")
        self.transactions.update(fee, refunded_by=made.id)
        return {
            "transaction_id": made.id,
            "refund": made.amount,
            "account_id": fee.account_id,
            "balance": self.accounts[fee.account_id].balance,
        }

    @tool("write")
    def open_dispute(
        self,
        session_id: SessionId,
        transaction_id: TransactionId,
        reason: Literal["not recognised", "charged twice", "goods not received"],
        note: Annotated[str, Field(max_length=200, description="What the customer says about it.")] = "",
    ) -> Json:
        """Dispute a card payment of the last 60 days. Up to 150.00 is credited at once until it is decided."""
        paid = self._transaction(session_id, transaction_id)
        if paid.kind != "card":
            raise ToolError("not_allowed", f"{paid.id} is no card payment ({paid.kind}); only card payments can be disputed")
        if paid.date < days_ago(DISPUTE_DAYS):
            raise ToolError("not_allowed", f"{paid.id} dates from {paid.date}, more than {DISPUTE_DAYS} days ago")
        for other in self.disputes.where(transaction_id=paid.id):
            raise ToolError("conflict", f"{paid.id} is disputed already: {other.id}, {other.status}")
        amount = -paid.amount
        credit = None
        if amount <= CREDIT_AT_ONCE:
            credit = self._post(self.accounts[paid.account_id], amount, "credit", f"Provisional credit: {paid.description}").id
        new_id = self.disputes.next_id("DP-", 8001)
        self.disputes.put(
            Dispute(new_id, paid.id, paid.account_id, paid.description, amount, reason, TODAY.isoformat(), "open", credit, note)
        )
        balance = self.accounts[paid.account_id].balance
        return {"dispute_id": new_id, "status": "open", "amount": amount, "credited_now": credit is not None, "balance": balance}

    # --- tools: cards ---

    @tool("write")
    def freeze_card(self, session_id: SessionId, card_id: CardId) -> Json:
        """Freeze an active card: no payment goes through until it is lifted in the app."""
        card = self._card(session_id, card_id)
        if card.status != "active":
            raise ToolError("not_allowed", f"card {card.id} is {card.status}; only an active card can be frozen")
        self.cards.update(card, status="frozen")
        return {"card_id": card.id, "last4": card.last4, "status": "frozen"}

    @tool("irreversible")
    def replace_card(self, session_id: SessionId, card_id: CardId, reason: Literal["lost", "stolen", "damaged"]) -> Json:
        """Void a card for good and send a new one. The fee of 8.00 is charged at once, unless the card was stolen."""
        card = self._card(session_id, card_id)
        if card.status == "replaced":
            raise ToolError("not_allowed", f"card {card.id} was replaced by {card.replaced_by} already")
        if reason != "damaged" and card.status != "frozen":
            raise ToolError("not_allowed", f"card {card.id} is {card.status}; a {reason} card has to be frozen first")
        fee = 0.0 if reason == "stolen" else REPLACEMENT_FEE
        charge = None
        if fee:
            account = self.accounts[card.account_id]
            self._covered(account, fee)
            charge = self._post(account, -fee, "fee", "card replacement fee").id
        new_id = self.cards.next_id("CD-", 3001)
        last4 = str(1000 + (int(card.last4) * 7 + 1234) % 9000)
        self.cards.put(Card(new_id, card.account_id, card.tier, last4, "active", card.monthly_limit, "2030-05", fee_id=charge))
        self.cards.update(card, status="replaced", replaced_by=new_id)
        arrives = _working_day(TODAY + timedelta(days=7)).isoformat()
        return {"card_id": new_id, "last4": last4, "replaces": card.id, "fee": fee, "arrives_on": arrives}

    @tool("write")
    def set_card_limit(
        self,
        session_id: SessionId,
        card_id: CardId,
        monthly_limit: Annotated[int, Field(ge=100, le=5000, multiple_of=50, description="In EUR, a multiple of 50.")],
    ) -> Json:
        """Change the monthly limit of an active card. How high it can go depends on the card's tier."""
        card = self._card(session_id, card_id)
        if card.status != "active":
            raise ToolError("not_allowed", f"card {card.id} is {card.status}; only the limit of an active card can be changed")
        if monthly_limit > HIGHEST_LIMIT[card.tier]:
            raise ToolError("not_allowed", f"a {card.tier} card can have a limit of at most {HIGHEST_LIMIT[card.tier]}")
        self.cards.update(card, monthly_limit=monthly_limit)
        return {"card_id": card.id, "last4": card.last4, "monthly_limit": monthly_limit, "before": card.monthly_limit}

    # --- what the tools share ---

    def sent_today(self, account: Account) -> float:
        """What the account has sent to payees today."""
        today = TODAY.isoformat()
        sent = [-one.amount for one in self.transactions if one.date == today and one.account_id == account.id and one.payee_id is not None]
        return round(sum(sent), 2)

    def left_today(self, account: Account) -> float:
        return round(account.daily_limit - self.sent_today(account), 2)

    def _session(self, customer: Customer) -> Json:
        return {"verified": True, "customer_id": customer.id, "session_id": self.sessions.where(customer_id=customer.id)[0].id}

    def _ids(self, session_id: str) -> list[str]:
        """The accounts that a session may see."""
        owner = self.sessions[session_id].customer_id
        return [one.id for one in self.accounts if one.customer_id == owner]

    def _account(self, session_id: str, account_id: str) -> Account:
        account = self.accounts[account_id]
        if account.customer_id != self.sessions[session_id].customer_id:
            raise ToolError("not_allowed", f"account {account_id} does not belong to the customer of this session")
        return account

    def _card(self, session_id: str, card_id: str) -> Card:
        card = self.cards[card_id]
        self._account(session_id, card.account_id)
        return card

    def _transaction(self, session_id: str, transaction_id: str) -> Transaction:
        one = self.transactions[transaction_id]
        if not {one.account_id, one.counter_account} & set(self._ids(session_id)):
            raise ToolError("not_allowed", f"transaction {transaction_id} does not belong to the customer of this session")
        return one

    def _payer(self, session_id: str, account_id: str, payee_id: str) -> tuple[Account, Payee]:
        account, payee = self._account(session_id, account_id), self.payees[payee_id]
        if payee.customer_id != account.customer_id:
            raise ToolError("not_allowed", f"payee {payee.id} does not belong to the customer of this session")
        if account.kind != "current":
            raise ToolError("not_allowed", f"{account.id} is a savings account; payees are paid from current accounts only")
        return account, payee

    def _covered(self, account: Account, amount: float) -> None:
        if amount > account.available:
            raise ToolError("not_allowed", f"account {account.id} has {account.available:.2f} available, less than {amount:.2f}")

    def _entries(self, account_id: str) -> list[Transaction]:
        return [one for one in self.transactions if account_id in (one.account_id, one.counter_account)]

    def _amount(self, one: Transaction, account_id: str) -> float:
        """The amount as that account sees it."""
        return one.amount if one.account_id == account_id else -one.amount

    def _post(
        self, account: Account, amount: float, kind: Kind, description: str, *, payee_id: str | None = None,
        counter_account: str | None = None, reference: str = "",
    ) -> Transaction:  # fmt: skip
        """Enter a transaction of today; every balance that it concerns follows."""
        amount = round(float(amount), 2)
        made = Transaction(
            self.transactions.next_id("TX-", 600001), account.id, TODAY.isoformat(), amount, kind, description,
            payee_id=payee_id, counter_account=counter_account, reference=reference,
        )  # fmt: skip
        self.transactions.put(made)
        self.accounts.update(account, balance=round(account.balance + amount, 2))
        if counter_account is not None:
            other = self.accounts[counter_account]
            self.accounts.update(other, balance=round(other.balance - amount, 2))
        return made


def _working_day(day: date) -> date:
    """That day, or the Monday after a weekend."""
    return day + timedelta(days=max(0, 7 - day.weekday())) if day.weekday() >= 5 else day
